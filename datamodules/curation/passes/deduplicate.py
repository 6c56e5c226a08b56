"""Pass 2: exact, URL and near-duplicate removal, and the validation split.

The driver reads columns of numbers only, one band of keys at a time: 60 bytes per document and 16 more for the current
band, so that a billion documents fit into a large machine. In exchange nothing here runs on a cluster, and texts are
never compared: equal hashes count as equal texts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet

from datamodules.curation.deduplication.connected_components import (
    best_of_components,
    connected_components,
    kept_of,
    pairs_in_buckets,
)
from datamodules.curation.deduplication.minhash import NearDuplicates, estimated_similarity
from datamodules.curation.passes.filter import KEYS, band_column, key_columns, keys_of, loose_column, signatures_of
from datamodules.curation.passes.validation_split import choose_validation

SCORE = "measured_quality_score"
"""The measurement by which the best of several duplicates is chosen, where a source has it."""
EXACT, URL, NEAR = "exact_duplicate", "url_duplicate", "near_duplicate"


@dataclass(frozen=True)
class DedupResult:
    """Result of deduplication and split for every document, in the order of all pieces.

    Attributes:
        ids: uint64 [documents].
        reason: index into `REASONS`, int8 [documents]; 0 for a document that is no duplicate or was dropped before.
        duplicate_of: position of the document kept instead, int64 [documents]; its own where there is none.
        similarity: share of equal MinHash values with that document, float32 [documents]; not a number where the
            reason is not `near_duplicate`.
        validation: whether the document is in the validation split, boolean [documents].
        bounds: position of the first document of each piece, and the end, int64 [pieces + 1].
    """

    ids: np.ndarray
    reason: np.ndarray
    duplicate_of: np.ndarray
    similarity: np.ndarray
    validation: np.ndarray
    bounds: np.ndarray


REASONS = ("", EXACT, URL, NEAR)


def deduplicate_and_split(
    filtered: Sequence[Path],
    owners: Sequence[str],
    near: NearDuplicates | None,
    validation_fraction: float,
    seed: int,
) -> DedupResult | None:
    """Find duplicates among the documents that are left and choose the validation split.

    Exact duplicates go first, then those of one URL, then near-duplicates of what is left. Of exact and near-duplicates
    the best-scored is kept, then the larger, then the earlier; of one URL the newest by date. A document of a source
    without scores counts as better than any with one.

    Args:
        filtered: pieces that `filter.write_filtered` wrote, in the order of the corpus.
        owners: source of each piece.
        near: settings of near-duplicates that the pieces were filtered with.
        validation_fraction: share of each source's bytes in the validation split.
        seed: seed of the split.

    Returns:
        None when no document is left.
    """
    if not filtered:
        return None
    rows = {name: row for row, name in enumerate(key_columns(near))}
    facts = {name: _read(filtered, rows[name]) for name in KEYS}
    bounds = np.cumsum([0, *(np.load(keys_of(path), mmap_mode="r").shape[1] for path in filtered)])
    total = int(bounds[-1])
    size, order = facts["size"].astype(np.int64), np.arange(total)
    # Documents that a step dropped share no bucket.
    alive = size > 0
    if not alive.any():
        return None
    score = _scores(filtered, bounds)
    reason, duplicate_of = np.zeros(total, dtype=np.int8), order.copy()

    def drop(edges: Iterator[np.ndarray], rank: np.ndarray, number: int) -> None:
        """Keep one document of each component of the edges."""
        components = connected_components(edges, total)
        kept = best_of_components(components, score, size, rank)
        others = kept_of(components, kept)
        lost = alive & (reason == 0) & (others != order)
        reason[lost] = number
        duplicate_of[lost] = others[lost]

    def bucket(keys: np.ndarray, among: np.ndarray) -> Iterator[np.ndarray]:
        positions = np.flatnonzero(among)
        yield pairs_in_buckets(positions, keys[positions])

    drop(bucket(facts["text_key"], alive), order, REASONS.index(EXACT))
    urls = next(bucket(facts["url_key"], alive & (reason == 0)))
    if len(urls):
        newest = _newest_first(filtered, bounds, np.unique(urls))
        components = connected_components(urls, total)
        # The date decides before the score does.
        kept = best_of_components(components, newest, np.zeros_like(size), _ranks(score, size))
        others = kept_of(components, kept)
        lost = others != order
        reason[lost] = REASONS.index(URL)
        duplicate_of[lost] = others[lost]
    similarity = np.full(total, np.nan, dtype=np.float32)
    if near is not None:
        survivors = alive & (reason == 0)
        bands = (_read(filtered, rows[band_column(number)]) for number in range(near.bands))
        drop((next(bucket(band, survivors)) for band in bands), order, REASONS.index(NEAR))
        similarity = _similarity(filtered, bounds, np.flatnonzero(reason == REASONS.index(NEAR)), duplicate_of)

    def related() -> Iterator[np.ndarray]:
        """Pairs that stay in one split: of one group, duplicates, or similar in the looser banding."""
        yield from bucket(facts["group_key"], alive)
        lost = np.flatnonzero(reason > 0)
        yield np.stack((lost, duplicate_of[lost]), axis=1)
        for number in range(2 * near.bands if near else 0):
            yield from bucket(_read(filtered, rows[loose_column(number)]), alive)

    sources = np.repeat(np.unique(owners, return_inverse=True)[1], np.diff(bounds))
    components = connected_components(related(), total)
    # Named by an id, so that more files elsewhere change little of the split.
    validation = choose_validation(sources, size * (reason == 0), facts["id"][components], validation_fraction, seed)
    return DedupResult(facts["id"], reason, duplicate_of, similarity, validation, bounds)


def _read(filtered: Sequence[Path], row: int) -> np.ndarray:
    """A row of the pieces' keys over all documents, uint64 [documents]."""
    # Copied: a row that is only seen keeps its file open.
    return np.concatenate([np.array(np.load(keys_of(path), mmap_mode="r")[row]) for path in filtered])


def _scores(filtered: Sequence[Path], bounds: np.ndarray) -> np.ndarray:
    """Quality scores, float64; infinite where a source has none, not a number for a document without text."""
    # A source without scores is trusted: an encyclopedia's article is better than its copy on a web page.
    scores = np.full(bounds[-1], np.inf)
    for number, path in enumerate(filtered):
        if SCORE in pyarrow.parquet.read_schema(path).names:
            column = pyarrow.parquet.read_table(path, columns=[SCORE]).column(SCORE).cast(pyarrow.float64())
            scores[bounds[number] : bounds[number + 1]] = column.to_numpy()
    return scores


def _newest_first(filtered: Sequence[Path], bounds: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Rank of each document's date among those of the positions, float64, the newest highest; none is the oldest."""
    dates = rows_at(filtered, bounds, positions, ["date"])["date"]
    ranks = np.full(bounds[-1], -np.inf)
    ranks[positions] = np.unique([date or "" for date in dates], return_inverse=True)[1]
    return ranks


def _ranks(score: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Position of each document when the best-scored and then the largest come first."""
    order = np.lexsort((-size, -np.where(np.isnan(score), -np.inf, score)))
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.arange(len(order))
    return ranks


def _similarity(filtered: Sequence[Path], bounds: np.ndarray, lost: np.ndarray, duplicate_of: np.ndarray) -> np.ndarray:
    """Share of equal hashes of the lost documents' signatures with those kept instead, float32 [documents]."""
    similarity = np.full(bounds[-1], np.nan, dtype=np.float32)
    # A few thousand signatures at a time: half a kilobyte each.
    for start in range(0, len(lost), 2**16):
        some = lost[start : start + 2**16]
        wanted = np.unique(np.concatenate((some, duplicate_of[some])))
        ends = np.searchsorted(wanted, bounds)
        signatures = np.concatenate(
            [
                np.load(signatures_of(path), mmap_mode="r")[wanted[ends[number] : ends[number + 1]] - bounds[number]]
                for number, path in enumerate(filtered)
            ]
        )
        left, right = np.searchsorted(wanted, some), np.searchsorted(wanted, duplicate_of[some])
        similarity[some] = estimated_similarity(signatures[left], signatures[right])
    return similarity


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
