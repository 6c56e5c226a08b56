"""Pass 1: run all steps of a source on one piece and compute deduplication keys, as one Daft plan.

All measurements are kept beside each document, also those that did not drop it, and so are the hashes by which
documents are compared later: some 800 bytes per document on disk until curation is done. In return deduplication reads
columns of numbers and no text.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from daft import DataFrame, DataType, Expression, col, lit
from daft.functions import coalesce, hash, left, length_bytes, regexp, when

from common.compute.daft_engine import spread
from common.errors import InputError
from common.files import write_atomically
from datamodules.curation.deduplication.connected_components import NO_KEY
from datamodules.curation.deduplication.dates import NO_DATE, date_key
from datamodules.curation.deduplication.exact import text_key
from datamodules.curation.deduplication.minhash import NearDuplicates
from datamodules.curation.deduplication.url import UrlDuplicates
from datamodules.curation.filters.base import CurationStep, Filter
from datamodules.curation.filters.normalize import Normalize

EXCERPT_CHARACTERS = 200
MASKING_MARGIN = 320
"""Characters kept behind an excerpt until it is masked, so that the cut halves no address: the longest e-mail."""
KEYS = ("id", "size", "text_key", "group_key", "url_key", "date_key")
READING = -1
"""Number of the step that drops what could not be read."""


def band_column(band: int) -> str:
    """Name of the column of a band's keys."""
    return f"band_{band:02}"


def loose_column(band: int) -> str:
    """Name of the column of the keys of a band of half as many rows."""
    return f"loose_{band:02}"


def apply_steps(
    piece: DataFrame,
    source: str,
    steps: Sequence[CurationStep],
    near: NearDuplicates | None,
    urls: UrlDuplicates | None,
) -> DataFrame:
    """Lazy plan of all steps over a piece.

    Args:
        piece: columns of `collect.RAW_SCHEMA`.
        source: name of its source.
        steps: steps of the source, without the normalization that always comes first.
        near: near-duplicate removal, or None for no signatures.
        urls: duplicates by URL, or None for no keys of URLs and dates.

    Returns:
        One row a document in the order of the piece: what it was read as, `source`, `excerpt` (unmasked, with a
        margin), `text` (null once dropped), `reason` (null while kept), `dropped_by` (number of the step, counted
        from the normalization), `size` (bytes after all steps, 0 once dropped), `size_N` (bytes after transform N,
        null where dropped before), `measured_NAME` (null where dropped before), the columns of `key_columns`, and
        `signature` where there are near-duplicates to find.
    """
    df = piece.with_columns(
        {
            "source": lit(source),
            "excerpt": left(col("text"), EXCERPT_CHARACTERS + MASKING_MARGIN),
            "dropped_by": when(~col("reason").is_null(), lit(READING)),
        }
    )
    for number, step in enumerate([Normalize(), *steps]):
        alive = col("reason").is_null()
        if isinstance(step, Filter):
            measures = step.measures(col("text"))
            df = df.with_columns({f"measured_{name}": when(alive, value) for name, value in measures.items()})
            drops = step.drops({name: col(f"measured_{name}") for name in measures})
            reasons = [when(drop, lit(reason)) for reason, drop in drops.items()]
        else:
            df = df.with_column("text", when(alive, step.transform(col("text"))))
            df = df.with_column(f"size_{number}", when(alive, length_bytes(col("text")).cast(DataType.int64())))
            reasons = [when(~regexp(col("text"), r"\S"), lit("empty"))]
        if not reasons:
            continue
        df = df.with_column("reason", coalesce(col("reason"), *reasons))
        # A dropped text is let go: what follows has nothing to compute on it.
        df = df.with_columns(
            {
                "text": when(col("reason").is_null(), col("text")),
                "dropped_by": coalesce(col("dropped_by"), when(~col("reason").is_null(), lit(number))),
            }
        )
    kept: dict[str, Expression] = {
        "size": length_bytes(col("text")).cast(DataType.int64()).fill_null(lit(0).cast(DataType.int64())),
        "dropped_by": col("dropped_by").cast(DataType.int32()),
        "text_key": text_key(col("text")),
        "group_key": hash(col("group")),
        "url_key": urls.key(col("url")) if urls else lit(NO_KEY).cast(DataType.uint64()),
        "date_key": date_key(col("date")) if urls else lit(NO_DATE).cast(DataType.uint64()),
    }
    df = df.with_columns(kept)
    if near is not None:
        # Dropped documents have the signature of no text, which is never read: slices of null lists are an error in
        # Daft, and Parquet cannot read null lists of a fixed size back.
        signature = near.signature(col("text").fill_null(lit(""))).cast(DataType.list(DataType.uint32()))
        df = df.with_column("signature", signature)
        bands = {band_column(n): key for n, key in enumerate(near.band_keys(col("signature")))}
        loose = {loose_column(n): key for n, key in enumerate(near.band_keys(col("signature"), near.rows // 2))}
        df = df.with_columns(bands | loose)
    return df


def key_columns(near: NearDuplicates | None) -> list[str]:
    """Columns of numbers by which documents are compared, in the order in which they are stored."""
    bands = near.bands if near else 0
    return [*KEYS, *map(band_column, range(bands)), *map(loose_column, range(2 * bands))]


def keys_of(filtered: Path) -> Path:
    """File of the keys of a filtered piece: uint64 [columns, documents], memory-mapped one column at a time."""
    return filtered.with_suffix(".keys.npy")


def signatures_of(filtered: Path) -> Path:
    """File of its signatures, uint32 [documents, hashes]."""
    return filtered.with_suffix(".signatures.npy")


def write_filtered(
    piece: Path,
    filtered: Path,
    source: str,
    steps: Sequence[CurationStep],
    near: NearDuplicates | None,
    urls: UrlDuplicates | None,
) -> None:
    """Filter a piece on disk into three files of the same rows, unless they are there; arguments as for
    `apply_steps`."""
    if filtered.exists():
        return
    table = apply_steps(spread(pyarrow.parquet.read_table(piece)), source, steps, near, urls).to_arrow()
    keys = np.empty((len(key_columns(near)), len(table)), dtype=np.uint64)
    for row, name in enumerate(key_columns(near)):
        keys[row] = table.column(name).fill_null(0).to_numpy()
    with write_atomically(keys_of(filtered)) as partial, partial.open("wb") as file:
        np.save(file, keys)
    if near is not None:
        flat = table.column("signature").combine_chunks().flatten().to_numpy()
        signatures = flat.reshape(-1, near.bands * near.rows)
        with write_atomically(signatures_of(filtered)) as partial, partial.open("wb") as file:
            np.save(file, signatures)
        table = table.drop_columns("signature")
    # Last: it says that the piece is done.
    write_table(table.drop_columns([name for name in key_columns(near) if name not in ("id", "size")]), filtered)


def write_table(table: pyarrow.Table, path: Path) -> None:
    """Write rows in their order, as a whole or not at all; Daft's own writer names its files at random."""
    with write_atomically(path) as partial:
        pyarrow.parquet.write_table(table, partial, row_group_size=4096, compression="zstd", compression_level=1)


def describe_steps(source: str, steps: Sequence[CurationStep]) -> list[dict[str, Any]]:
    """Description of each step of a source, in order, for reports.

    Returns:
        One dictionary per step with `step` (its class), `about` (its summary),
        `measures` and `thresholds`: reason -> measure, comparison, threshold.

    Raises:
        InputError: when two filters give one name to their measurements.
    """
    described: list[dict[str, Any]] = []
    seen: dict[str, str] = {}
    for step in [Normalize(), *steps]:
        name = type(step).__name__
        measures = list(step.measures(col("text"))) if isinstance(step, Filter) else []
        thresholds = step.thresholds() if isinstance(step, Filter) else {}
        for measure in measures:
            if measure in seen:
                raise InputError(
                    f"sources.{source}.steps: {seen[measure]} and {name} both measure {measure!r}: leave one out"
                )
            seen[measure] = name
        described.append(
            {
                "step": name,
                "about": step.summary,
                "measures": measures,
                "limits": {reason: vars(limit) for reason, limit in thresholds.items()},
            }
        )
    return described
