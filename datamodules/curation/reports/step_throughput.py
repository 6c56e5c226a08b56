"""Throughput of each step, run alone over the beginning of a source.

A sample on an otherwise idle engine instead of a clock inside every step: on a cluster such clocks would have to be
collected, and Daft fuses the steps between them.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import daft
import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.parquet
from daft import col

from datamodules.curation.filters.base import CurationStep, Filter
from datamodules.curation.filters.normalize import Normalize

SAMPLE_BYTES = 1_000_000


def step_rates(piece: Path, steps: Sequence[CurationStep]) -> list[dict[str, Any]]:
    """Seconds that each step takes for the first documents of a piece, given as they were read.

    Args:
        piece: columns of `collect.RAW_SCHEMA`, filtered before, so that everything is compiled and loaded.
        steps: of its source.

    Returns:
        `step`, `seconds`, `bytes` and `megabytes_per_second` of each, the normalization first.
    """
    table = pyarrow.parquet.read_table(piece)
    table = table.filter(pyarrow.compute.is_valid(table.column("text")))
    sizes = pyarrow.compute.binary_length(table.column("text")).to_numpy()
    first = max(1, int(np.searchsorted(np.cumsum(sizes), SAMPLE_BYTES, side="right")))
    sample, size = daft.from_arrow(table.slice(0, first)).collect(), int(sizes[:first].sum())
    rates = []
    for step in [Normalize(), *steps] if size else []:
        made = step.measures(col("text")) if isinstance(step, Filter) else {"rewritten": step.transform(col("text"))}
        plan = sample.select(*(value.alias(f"{name}_") for name, value in made.items()))
        start = time.perf_counter()
        plan.collect()
        seconds = time.perf_counter() - start
        rate = {
            "seconds": round(seconds, 4),
            "bytes": size,
            "megabytes_per_second": float(f"{size / 1e6 / seconds:.3g}"),
        }
        rates.append({"step": type(step).__name__} | rate)
    return rates
