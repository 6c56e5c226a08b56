"""Pass 2: exact, URL and near-duplicate removal, and the validation split.

The driver reads columns of numbers only, one band of keys at a time: 176 bytes per document at the peak
(benchmarks/data/near_duplicates.py); signatures, 448 bytes per document, are mapped from one file on disk and not held.
In exchange nothing here runs on a cluster, and texts are never compared: equal hashes count as equal texts.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet

from common.files import write_atomically
from datamodules.curation.deduplication.connected_components import join, labels_of, pairs_in_buckets
from datamodules.curation.deduplication.minhash import RELATED, NearDuplicates
from datamodules.curation.deduplication.similar_documents import (
    NO_SIGNATURES,
    join_similar,
    keep_best,
    pairs_of_similar,
    similarities,
)
from datamodules.curation.passes.filter import band_column, key_columns, keys_of, loose_column, signatures_of
from datamodules.curation.passes.validation_split import choose_validation

SCORE = "measured_quality_score"
"""The measurement by which the best of several duplicates is chosen, where a source has it."""
EXACT, URL, NEAR = "exact_duplicate", "url_duplicate", "near_duplicate"
MAX_ROUNDS = 8
"""Rounds of near-duplicates: what resembles a dropped document alone is compared with others in the next one."""


@dataclass(frozen=True)
class DedupResult:
    """Result of deduplication and split for every document, in the order of all pieces.

    Attributes:
        ids: uint64 [documents].
        reason: index into `REASONS`, int8 [documents]; 0 for a document that is no duplicate or was dropped before.
        duplicate_of: position of the document kept instead, int64 [documents]; its own where there is none. Where the
            document it was dropped for was itself dropped, the one that is kept for that.
        similarity: share of equal MinHash values with that document, float32 [documents]; not a number where the
            reason is not `near_duplicate`.
        validation: whether the document is in the validation split, boolean [documents].
        related: whether it is kept and stays in one split with another that is kept, boolean [documents].
        bounds: position of the first document of each piece, and the end, int64 [pieces + 1].
    """

    ids: np.ndarray
    reason: np.ndarray
    duplicate_of: np.ndarray
    similarity: np.ndarray
    validation: np.ndarray
    related: np.ndarray
    bounds: np.ndarray


REASONS = ("", EXACT, URL, NEAR)


def deduplicate_and_split(
    filtered: Sequence[Path],
    owners: Sequence[str],
    near: NearDuplicates | None,
    validation_fraction: float,
    seed: int,
    crawls: Collection[str] = (),
) -> DedupResult | None:
    """Find duplicates among the documents that are left and choose the validation split.

    Documents of one URL go first, then exact duplicates, then near-duplicates of what is left: a text whose only
    other copy is an older fetch of a page stays. A copy under the same URL counts as an exact duplicate.

    Kept is a document of a source that is no crawl, then the best-scored, then the larger, then the earlier; of one URL
    the newest before the best-scored. A document of a source without scores counts as better than any with one.

    Args:
        filtered: pieces that `filter.write_filtered` wrote, in the order of the corpus.
        owners: source of each piece.
        near: settings of near-duplicates that the pieces were filtered with.
        validation_fraction: share of each source's bytes in the validation split.
        seed: seed of the split.
        crawls: sources whose documents of one URL are one page, whatever their text.

    Returns:
        None when no document is left.
    """
    if not filtered:
        return None
    rows = {name: row for row, name in enumerate(key_columns(near))}
    bounds = np.cumsum([0, *(np.load(keys_of(path), mmap_mode="r").shape[1] for path in filtered)])
    total = int(bounds[-1])
    size = _read(filtered, rows["size"]).astype(np.int64)
    # Documents that a step dropped share no bucket.
    if not size.any():
        return None
    crawled = np.repeat([owner in crawls for owner in owners], np.diff(bounds))
    reason, duplicate_of = np.zeros(total, dtype=np.int8), np.arange(total)

    def drop(pairs: np.ndarray, number: int) -> None:
        """Drop the other document of each pair for the first."""
        reason[pairs[:, 1]] = number
        duplicate_of[pairs[:, 1]] = pairs[:, 0]

    order = _best_first(crawled, _scores(filtered, bounds), size)
    with _signatures(filtered, near) as signatures:
        ranked = _newest_first(order[size[order] > 0], crawled, _read(filtered, rows["date_key"]))
        urls = _read(filtered, rows["url_key"])[ranked]
        pairs = pairs_of_similar(ranked, urls, signatures, RELATED, crawled)
        del urls
        drop(pairs, REASONS.index(URL))
        texts = _read(filtered, rows["text_key"])
        drop(pairs[texts[pairs[:, 0]] == texts[pairs[:, 1]]], REASONS.index(EXACT))
        ranked = order[(size[order] > 0) & (reason[order] == 0)]
        drop(pairs_in_buckets(ranked, texts[ranked]), REASONS.index(EXACT))
        del texts, ranked, pairs
        similarity = np.full(total, np.nan, dtype=np.float32)
        if near is not None:
            bands = [rows[band_column(number)] for number in range(near.bands)]
            kept = order[(size[order] > 0) & (reason[order] == 0)]
            drop(_near_duplicates(filtered, bands, kept, order, signatures, near.similarity), REASONS.index(NEAR))
            lost = np.flatnonzero(reason == REASONS.index(NEAR))
            similarity[lost] = similarities(signatures, np.stack((duplicate_of[lost], lost), axis=1))
        del order
        # What was dropped for a document that was itself dropped names the one that is kept: three steps at most.
        for _ in range(2):
            duplicate_of = duplicate_of[duplicate_of]
        left = np.flatnonzero((size > 0) & (reason == 0))
        components = np.arange(total)
        join(components, pairs_in_buckets(left, _read(filtered, rows["group_key"])[left]))
        for number in range(2 * near.bands if near else 0):
            keys = _read(filtered, rows[loose_column(number)])[left]
            join_similar(components, left, keys, signatures, RELATED)
            del keys
    labels_of(components)
    related = np.bincount(components[left], minlength=total)[components] > 1
    related &= (size > 0) & (reason == 0)
    sources = np.repeat(np.unique(owners, return_inverse=True)[1], np.diff(bounds))
    # Named by an id, so that more files elsewhere change little of the split.
    ids = _read(filtered, rows["id"])
    validation = choose_validation(sources, size * (reason == 0), ids[components], validation_fraction, seed)
    return DedupResult(ids, reason, duplicate_of, similarity, validation, related, bounds)


def _near_duplicates(
    filtered: Sequence[Path], bands: Sequence[int], ranked: np.ndarray, order: np.ndarray, signatures: np.ndarray,
    threshold: float,
) -> np.ndarray:  # fmt: skip
    """Pairs of the kept and the dropped document, int64 [dropped, 2].

    Args:
        bands: rows of the bands' keys.
        ranked: documents to compare, the best first.
        order: all documents of the corpus, the best first.
        signatures: of all documents.
        threshold: similarity from which on a document is dropped.
    """
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    dropped = np.empty((0, 2), dtype=np.int64)
    # A document that another was dropped for is never dropped: in later rounds it goes before all others.
    for _ in range(MAX_ROUNDS):
        found = [pairs_of_similar(ranked, _read(filtered, band)[ranked], signatures, threshold) for band in bands]
        pairs = np.concatenate(found)
        pairs = pairs[~np.isin(pairs[:, 1], dropped[:, 0])]
        more, still_open = keep_best(pairs, rank)
        dropped = np.concatenate((dropped, more))
        if not len(still_open):
            break
        pinned = np.unique(dropped[:, 0])
        others = np.setdiff1d(still_open, pinned)
        ranked = np.concatenate((pinned[np.argsort(rank[pinned])], others[np.argsort(rank[others])]))
        rank[ranked] = np.arange(len(ranked)) - len(ranked)
    return dropped


def _read(filtered: Sequence[Path], row: int) -> np.ndarray:
    """A row of the pieces' keys over all documents, uint64 [documents]."""
    # Copied: a row that is only seen keeps its file open.
    return np.concatenate([np.array(np.load(keys_of(path), mmap_mode="r")[row]) for path in filtered])


@contextmanager
def _signatures(filtered: Sequence[Path], near: NearDuplicates | None) -> Iterator[np.ndarray]:
    """Signatures of all documents, uint32 [documents, hashes], mapped from one file while they are compared.

    Candidates lie in any two pieces: each piece is opened once to be copied, and not for every comparison.
    """
    if near is None:
        yield NO_SIGNATURES
        return
    path = filtered[0].with_name("all.signatures.npy")
    documents = sum(np.load(keys_of(piece), mmap_mode="r").shape[1] for piece in filtered)
    shape = (documents, near.bands * near.rows)
    with write_atomically(path) as partial, partial.open("wb") as file:
        header = {"descr": "<u4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for piece in filtered:
            file.write(np.load(signatures_of(piece), mmap_mode="r").data)
    try:
        yield np.asarray(np.load(path, mmap_mode="r"))
    finally:
        path.unlink()


def _scores(filtered: Sequence[Path], bounds: np.ndarray) -> np.ndarray:
    """Quality scores, float64; infinite where a source has none, not a number for a document without text."""
    # A source without scores is trusted: an encyclopedia's article is better than its copy on a web page.
    scores = np.full(bounds[-1], np.inf)
    for number, path in enumerate(filtered):
        if SCORE in pyarrow.parquet.read_schema(path).names:
            column = pyarrow.parquet.read_table(path, columns=[SCORE]).column(SCORE).cast(pyarrow.float64())
            scores[bounds[number] : bounds[number + 1]] = column.to_numpy()
    return scores


def _best_first(crawled: np.ndarray, score: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Positions of all documents, the best first: no crawl, the best-scored, the largest, the earliest."""
    score[np.isnan(score)] = -np.inf
    return np.lexsort((-size, -score, crawled))


def _newest_first(ranked: np.ndarray, crawled: np.ndarray, dates: np.ndarray) -> np.ndarray:
    """Documents in the order of preference between those of one URL: no crawl, the newest, then as ranked."""
    return ranked[np.lexsort((~dates[ranked], crawled[ranked]))]


def rows_at(
    filtered: Sequence[Path], bounds: np.ndarray, positions: np.ndarray, columns: list[str]
) -> dict[str, list[Any]]:
    """Columns of the documents at sorted positions."""
    found: dict[str, list[Any]] = {column: [] for column in columns}
    ends = np.searchsorted(positions, bounds)
    for number, path in enumerate(filtered):
        rows = positions[ends[number] : ends[number + 1]] - bounds[number]
        if len(rows):
            table = pyarrow.parquet.read_table(path, columns=columns).take(rows)
            for column in columns:
                found[column] += table.column(column).to_pylist()
    return found
