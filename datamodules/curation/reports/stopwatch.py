"""Stopwatch: seconds and bytes of each stage of curation."""

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any


class Stopwatch:
    """Adds up what stages take. Only this run is counted: chunks that an interrupted one left took no time in it."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._lock = threading.Lock()
        self._stages: dict[str, list[float]] = {}

    @contextlib.contextmanager
    def measure(self, name: str, size: int) -> Iterator[None]:
        """Count the block's time toward a stage, and `size` bytes of text."""
        start = time.perf_counter()
        yield
        seconds = time.perf_counter() - start
        with self._lock:
            total = self._stages.setdefault(name, [0.0, 0.0])
            total[0] += seconds
            total[1] += size

    def summary(self) -> dict[str, Any]:
        """`stages` in the order in which they began, and `seconds` of all together on the wall's clock."""
        stages = [
            {
                "stage": name,
                "seconds": round(seconds, 3),
                "bytes": int(size),
                "megabytes_per_second": float(f"{size / 1e6 / max(seconds, 1e-9):.3g}"),
            }
            for name, (seconds, size) in self._stages.items()
        ]
        return {"stages": stages, "seconds": round(time.perf_counter() - self._start, 2)}
