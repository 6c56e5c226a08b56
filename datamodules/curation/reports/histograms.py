"""Histograms of measurements, with the thresholds of the filters."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet

from datamodules.curation.passes.write import FilteredPiece

BINS = 64
LOGARITHMIC_FROM = 100.0
"""A measurement that is never negative and reaches this is counted in bins of equal ratio: lengths span decades."""
PREFIX = "measured_"


class Histograms:
    """Counts every source's measurements over two passes: their range, then their bins.

    Args:
        steps: `filter.describe_steps` of each source.
    """

    def __init__(self, steps: Mapping[str, list[dict[str, Any]]]) -> None:
        self._limits: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for source, described in steps.items():
            for step in described:
                for measure in step["measures"]:
                    self._limits[source, measure] = [
                        {"reason": reason, "comparison": limit["comparison"], "threshold": float(limit["threshold"])}
                        for reason, limit in step["limits"].items()
                        if limit["measure"] == measure
                    ]
        self._range: dict[tuple[str, str], tuple[float, float]] = {}
        self._counts: dict[tuple[str, str], np.ndarray] = {}

    def widen(self, piece: FilteredPiece) -> None:
        """First pass: let the range of each measurement hold those of a piece."""
        for key, values in self._measured(piece):
            lowest, highest = self._range.get(key, (np.inf, -np.inf))
            self._range[key] = min(lowest, float(values.min())), max(highest, float(values.max()))

    def count(self, piece: FilteredPiece) -> None:
        """Second pass: count those of a piece."""
        for key, values in self._measured(piece):
            counts = np.histogram(values, self._edges(key))[0]
            self._counts[key] = self._counts.get(key, np.zeros(BINS, dtype=np.int64)) + counts

    def _measured(self, piece: FilteredPiece) -> list[tuple[tuple[str, str], np.ndarray]]:
        found = []
        schema = pyarrow.parquet.read_schema(piece.filtered)
        names = [field.name for field in schema if field.name.startswith(PREFIX) and _is_number(field.type)]
        table = piece.read(names)
        for name in names:
            values = table.column(name).drop_null().cast(pyarrow.float64()).to_numpy()
            values = values[np.isfinite(values)]
            if len(values):
                found.append(((piece.source, name.removeprefix(PREFIX)), values))
        return found

    def _edges(self, key: tuple[str, str]) -> np.ndarray:
        lowest, highest = self._range[key]
        if lowest >= 0 and highest >= LOGARITHMIC_FROM:
            edges = np.expm1(np.linspace(np.log1p(lowest), np.log1p(highest), BINS + 1))
        else:
            edges = np.linspace(lowest, highest, BINS + 1)
        # Rounding must not leave the extremes outside; all values alike still want a width.
        edges[0], edges[-1] = lowest, highest if highest > lowest else lowest + 1
        return np.sort(edges)

    def summary(self) -> dict[str, dict[str, Any]]:
        """By source and measurement: `edges` [65], `counts` [64] of documents that reached the filter, and `limits`."""
        found: dict[str, dict[str, Any]] = {}
        for (source, measure), thresholds in self._limits.items():
            key = (source, measure)
            if key in self._counts:
                found.setdefault(source, {})[measure] = {
                    "edges": [float(f"{edge:.6g}") for edge in self._edges(key)],
                    "counts": self._counts[key].tolist(),
                    "limits": thresholds,
                }
        return found


def _is_number(kind: pyarrow.DataType) -> bool:
    return bool(pyarrow.types.is_integer(kind) or pyarrow.types.is_floating(kind) or pyarrow.types.is_boolean(kind))
