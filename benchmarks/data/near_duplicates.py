"""Recall of MinHash near-duplicates, beside an exhaustive comparison and the formula 1 - (1 - s^8)^14.

    python -m benchmarks.data.near_duplicates

Plants pairs of documents of every Jaccard similarity from 0.5 to 0.95 (and below, to see what is found wrongly) among
5,000 documents, compares all 12.5 million pairs exactly, and counts which of them the shipped settings find. Also
the memory that the driver's decisions take for 1 million documents. Minutes, most of it for those.
"""

import argparse
import json
import math
import re
import sys
import tempfile
import tracemalloc
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import daft
import matplotlib
import numpy as np
import pyarrow
import pyarrow.parquet
from daft import col

matplotlib.use("Agg")
from matplotlib import pyplot

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from datamodules.curation.deduplication.minhash import NearDuplicates, estimated_similarity, probability_found  # noqa: E402
from datamodules.curation.passes.deduplicate import deduplicate_and_split  # noqa: E402
from datamodules.curation.passes.filter import key_columns, keys_of, signatures_of  # noqa: E402

SIMILARITIES = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
BACKGROUND = (0.2, 0.25, 0.3, 0.35, 0.4, 0.45)
WORDS = 300
DOCUMENTS = 5000


@dataclass
class Corpus:
    """Texts, of which 2 i and 2 i + 1 were planted as a pair, and the similarity each pair was planted at."""

    texts: list[str]
    planted: np.ndarray


@dataclass
class Measured:
    """Of planted pairs: exact and estimated similarity, whether each banding finds them, and whether one is dropped for
    the other; of all pairs that the first banding finds: their exact similarity; and how many of all pairs are at least
    so similar."""

    exact: np.ndarray
    estimated: np.ndarray
    found: np.ndarray
    verified: np.ndarray
    found_loose: np.ndarray
    found_similarities: np.ndarray
    similar_pairs: dict[float, int]


def plant(similarities: tuple[float, ...], pairs: int, seed: int) -> Corpus:
    """Documents of words drawn as natural ones are (Zipf), in which a run was replaced in the second of each pair."""
    generator = np.random.default_rng(seed)
    vocabulary = np.array([f"w{index}" for index in range(50_000)])
    chances = 1 / np.arange(10, len(vocabulary) + 10)
    chances /= chances.sum()

    def words(count: int) -> list[str]:
        chosen: list[str] = generator.choice(vocabulary, count, p=chances).tolist()
        return chosen

    texts, planted = [], []
    for similarity in similarities:
        for _ in range(pairs):
            original = words(WORDS)
            # c changed n-grams of n leave (n - c) of (n + c) in common; a run of k words is in k + 4.
            changed = max(1, round((WORDS - 4) * (1 - similarity) / (1 + similarity)) - 4)
            start = int(generator.integers(4, WORDS - 4 - changed))
            texts += [" ".join(original), " ".join(original[:start] + words(changed) + original[start + changed :])]
            planted.append(similarity)
    return Corpus(texts, np.array(planted))


def ngrams(text: str, size: int = 5) -> set[tuple[str, ...]]:
    """N-grams as the paper has them, apart from the code under test."""
    words = re.sub(r"[^\w\s]", "", text.lower()).split()
    return {tuple(words[i : i + size]) for i in range(len(words) - size + 1)}


def all_similarities(texts: list[str]) -> dict[tuple[int, int], float]:
    """Exact Jaccard similarity of every pair that has an n-gram in common; that of all others is 0."""
    documents: dict[tuple[str, ...], list[int]] = {}
    sets = [ngrams(text) for text in texts]
    shared: dict[tuple[int, int], int] = {}
    for document, grams in enumerate(sets):
        for gram in grams:
            for other in documents.setdefault(gram, []):
                shared[other, document] = shared.get((other, document), 0) + 1
            documents[gram].append(document)
    return {(a, b): count / (len(sets[a]) + len(sets[b]) - count) for (a, b), count in shared.items()}


def measure(corpus: Corpus, near: NearDuplicates) -> Measured:
    """Compare all pairs, exactly and by MinHash."""
    similarities = all_similarities(corpus.texts)
    df = daft.from_pydict({"id": np.arange(len(corpus.texts), dtype=np.uint64), "text": corpus.texts})
    df = df.select("id", near.signature(col("text")).alias("signature")).collect()
    hashes = np.array(df.sort("id").to_pydict()["signature"], dtype=np.uint32)
    pairs = [(2 * i, 2 * i + 1) for i in range(len(corpus.planted))]
    tight, loose = ({tuple(sorted(p)) for p in near.edges(df, rows).tolist()} for rows in (near.rows, near.rows // 2))
    values = np.array(list(similarities.values()))
    return Measured(
        exact=np.array([similarities.get(pair, 0.0) for pair in pairs]),
        estimated=estimated_similarity(hashes[::2], hashes[1::2]),
        found=np.array([pair in tight for pair in pairs]),
        verified=np.array([pair in tight for pair in pairs])
        & (estimated_similarity(hashes[::2], hashes[1::2]) >= near.similarity),
        found_loose=np.array([pair in loose for pair in pairs]),
        found_similarities=np.array([similarities.get((a, b), 0.0) for a, b in sorted(tight)]),
        similar_pairs={level: int((values >= level).sum()) for level in (*BACKGROUND, *SIMILARITIES)},
    )


def interval(successes: int, trials: int) -> tuple[float, float]:
    """95 % of a share (Wilson 1927)."""
    z, share = 1.96, successes / trials
    middle = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials)) / (1 + z * z / trials)
    return round(max(0.0, middle - half), 4), round(min(1.0, middle + half), 4)


def figures(corpus: Corpus, measured: Measured) -> dict[str, Any]:
    """Recall a level with the formula's value for the same pairs; precision and recall over all pairs."""
    levels = []
    for level in sorted(set(corpus.planted.tolist())):
        own = corpus.planted == level
        found, loose = int(measured.found[own].sum()), int(measured.found_loose[own].sum())
        levels.append(
            {
                "planted": level,
                "pairs": int(own.sum()),
                "similarity": round(float(measured.exact[own].mean()), 4),
                "found": found,
                "recall": round(found / own.sum(), 4),
                "recall_verified": round(float(measured.verified[own].mean()), 4),
                "recall_95": interval(found, int(own.sum())),
                "formula": round(float(np.mean(probability_found(measured.exact[own]))), 4),
                "recall_4_rows": round(loose / own.sum(), 4),
                "formula_4_rows": round(float(np.mean(probability_found(measured.exact[own], 28, 4))), 4),
                "estimate_error": round(float(np.std((measured.estimated - measured.exact)[own])), 4),
            }
        )
    found = measured.found_similarities
    overall = {
        level: {
            "precision": round(float((found >= level).mean()), 4),
            "recall": round(float((found >= level).sum()) / measured.similar_pairs[level], 4),
            "pairs": measured.similar_pairs[level],
        }
        for level in (0.5, 0.6, 0.7, 0.8, 0.9)
    }
    return {
        "documents": len(corpus.texts),
        "pairs_compared": len(corpus.texts) * (len(corpus.texts) - 1) // 2,
        "pairs_found": len(found),
        "pairs_found_below_0.2": int((found < 0.2).sum()),
        "levels": levels,
        "at_least": overall,
    }


def memory(documents: int, pieces: int = 16, near: NearDuplicates | None = None) -> dict[str, Any]:
    """Peak memory of deduplication and split for documents of which a tenth are near-copies.

    Keys and signatures lie on disk, as the pass before leaves them; their mapped pages are the system's to drop and do
    not count.
    """
    near = near or NearDuplicates()
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{piece}.parquet") for piece in range(pieces)]
        for piece, path in enumerate(paths):
            write_keys(path, documents // pieces, near, seed=piece)
        deduplicate_and_split(paths[:1], ["web"], near, 0.02, 0)  # compiled before memory is watched
        tracemalloc.start()
        result = deduplicate_and_split(paths, ["web"] * pieces, near, 0.02, 0)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert result is not None
    return {
        "documents": documents,
        "kept": int((result.reason == 0).sum()),
        "related": int(result.related.sum()),
        "peak_megabytes": round(peak / 1e6, 1),
    }


def write_keys(path: Path, documents: int, near: NearDuplicates, seed: int) -> None:
    """What `filter.write_filtered` leaves of a piece for the next pass, of random signatures and near-copies."""
    generator = np.random.default_rng(seed)
    hashes = near.bands * near.rows
    signatures = generator.integers(0, 2**32, (documents, hashes), dtype=np.uint32)
    copies = generator.choice(documents, documents // 10, replace=False)
    signatures[copies] = signatures[generator.integers(0, documents, len(copies))]
    # A tenth of the hashes differ, another tenth of the documents is half like another.
    changed = (
        generator.random((len(copies), hashes))
        < np.repeat([0.1, 0.45], [len(copies) // 2, -(-len(copies) // 2)])[:, None]
    )
    signatures[copies] = np.where(
        changed, generator.integers(0, 2**32, changed.shape, dtype=np.uint32), signatures[copies]
    )
    keys = np.empty((len(key_columns(near)), documents), dtype=np.uint64)
    for row, name in enumerate(key_columns(near)):
        if name.startswith(("band_", "loose_")):
            width = near.rows if name.startswith("band_") else near.rows // 2
            band = signatures[:, width * int(name[-2:]) :][:, :width].astype(np.uint64)
            keys[row] = (band * np.uint64(0x9E3779B97F4A7C15) ** np.arange(1, width + 1, dtype=np.uint64)).sum(axis=1)
        else:
            keys[row] = (
                generator.integers(200, 5000, documents) if name == "size" else generator.integers(1, 2**63, documents)
            )
    np.save(keys_of(path), keys)
    np.save(signatures_of(path), signatures)
    pyarrow.parquet.write_table(pyarrow.table({"id": keys[0]}), path)


def draw(record: dict[str, Any], path: Path) -> None:
    """Recall by similarity over the formula's curves."""
    levels = record["levels"]
    x = np.linspace(0.2, 1, 200)
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4))
    for axis, key, bands, rows in ((left, "recall", 14, 8), (right, "recall_4_rows", 28, 4)):
        axis.plot(x, probability_found(x, bands, rows), color="black", label=f"1 - (1 - s^{rows})^{bands}")
        measured = np.array([level[key] for level in levels])
        bounds = np.array([interval(round(level[key] * level["pairs"]), level["pairs"]) for level in levels])
        axis.errorbar(
            [level["similarity"] for level in levels], measured,
            yerr=np.abs(bounds.T - measured), fmt="o", markersize=4, label="found, with 95 % intervals",
        )  # fmt: skip
        axis.set(xlabel="Jaccard similarity of 5-grams", ylabel="share of pairs found", title=f"{bands} bands x {rows}")
        axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure, record, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=DOCUMENTS)
    arguments = parser.parse_args()
    similarities = (*BACKGROUND, *SIMILARITIES)
    corpus = plant(similarities, arguments.documents // (2 * len(similarities)), seed=1)
    record = figures(corpus, measure(corpus, NearDuplicates())) | {"memory": memory(1_000_000)}
    here = Path(__file__)
    here.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    draw(record, here.with_suffix(".png"))
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
