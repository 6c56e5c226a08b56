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
import tracemalloc
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import daft
import matplotlib
import numpy as np
from daft import col
from tqdm import tqdm

matplotlib.use("Agg")
from matplotlib import pyplot

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from datamodules.curation.deduplication.connected_components import (  # noqa: E402
    best_of_components,
    connected_components,
    pairs_in_buckets,
)
from datamodules.curation.deduplication.minhash import NearDuplicates, estimated_similarity, probability_found  # noqa: E402

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
    """Of planted pairs: exact and estimated similarity, and whether each banding finds them; of all pairs that the
    first banding finds: their exact similarity; and how many of all pairs are at least so similar."""

    exact: np.ndarray
    estimated: np.ndarray
    found: np.ndarray
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


def memory(documents: int, bands: int = 14) -> dict[str, Any]:
    """Peak memory of numpy in the driver's decisions about documents of which a tenth are copies."""
    generator = np.random.default_rng(0)
    original = np.arange(documents)
    copies = generator.choice(documents, documents // 10, replace=False)
    original[copies] = generator.integers(0, documents, len(copies))
    scores, sizes = generator.random(documents), generator.integers(200, 5000, documents)
    order = np.arange(documents)
    connected_components(np.empty((0, 2), dtype=np.int64), 1)  # compiled before memory is watched
    tracemalloc.start()

    def edges() -> Any:
        for band in tqdm(range(bands), unit=" bands"):
            keys = np.random.default_rng(band).integers(1, 2**63, documents, dtype=np.uint64)[original]
            yield pairs_in_buckets(order, keys)

    components = connected_components(edges(), documents)
    peak = {"bands_and_components": tracemalloc.get_traced_memory()[1]}
    tracemalloc.reset_peak()
    kept = best_of_components(components, scores, sizes, order)
    peak["best_of_components"] = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return {
        "documents": documents,
        "kept": int(kept.sum()),
        "components": len(np.unique(components)),
        "peak_megabytes": {name: round(size / 1e6, 1) for name, size in peak.items()},
    }


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
