"""Measurements of a filter: one compiled pass over a batch of texts, one Daft expression per quantity.

All measurements of a filter are fields of one struct, so that Daft runs the loop once. The price is that all are
computed where one threshold is set.
"""

from collections.abc import Callable, Sequence

import daft
import numpy as np
import pyarrow
from daft import DataType, Expression, Series

from datamodules.curation.filters.base import Threshold
from datamodules.curation.words.utf8_buffers import utf8_buffers


def measurements(
    text: Expression, names: Sequence[str], measure: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> dict[str, Expression]:
    """Expressions over the fields of one pass.

    Args:
        text: the text column.
        names: names of the measurements.
        measure: from bytes uint8 [total] and offsets int64 [texts + 1] to float64 [texts, names].
    """

    @daft.func.batch(return_dtype=DataType.struct(dict.fromkeys(names, DataType.float64())))
    def measure_batch(texts: Series) -> pyarrow.Array:
        values = measure(*utf8_buffers(texts))
        columns = [pyarrow.array(np.ascontiguousarray(values[:, index])) for index in range(len(names))]
        return pyarrow.StructArray.from_arrays(columns, names=list(names))

    measured = measure_batch(text)
    return {name: measured.get(name) for name in names}


def active(thresholds: dict[str, tuple[str, str, float | None]]) -> dict[str, Threshold]:
    """Thresholds that are not None: null in a configuration turns a rule off."""
    return {
        reason: Threshold(measure, comparison, threshold)  # type: ignore[arg-type]
        for reason, (measure, comparison, threshold) in thresholds.items()
        if threshold is not None
    }


def longest(offsets: np.ndarray) -> int:
    """Bytes of the longest text of a batch."""
    return int(np.diff(offsets).max(initial=0))
