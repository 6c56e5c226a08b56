"""Metrics logger: a local table that a killed and resumed run extends without gaps or repeated lines.

Lightning's CSVLogger keeps one column a metric, rewrites its file when a new one appears and deletes it when a run
starts again in the same folder. Long format, `step,time,name,value`, is only ever appended to.
"""

import argparse
import csv
import io
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from common.files import write_text_atomically
from common.run_folder import METRICS, METRICS_COLUMNS, MetricRow, read_metrics


class MetricsTable(Logger):
    """Writes every logged number to `metrics.csv`; `step` counts the optimizer steps completed.

    Args:
        save_dir: folder of the table; by default the run's folder, `trainer.default_root_dir`.
    """

    def __init__(self, save_dir: str | None = None) -> None:
        super().__init__()
        self._folder = Path(save_dir or ".")
        self._file: Any = None
        self._step, self._names = -1, set[str]()

    @property
    def name(self) -> str:
        return "metrics"

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        return str(self._folder)

    @property
    def log_dir(self) -> str:
        return str(self._folder)

    def log_hyperparams(self, params: dict[str, Any] | argparse.Namespace, *args: Any, **kwargs: Any) -> None:
        """The configuration is saved whole by the command line, not here."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append a line for each metric, in the file at once; one that this step has already is left out."""
        if self._file is None:
            self._file = self._open()
        now = f"{time.time():.3f}"
        number = (step or 0) + 1  # Lightning counts the step it logs from 0
        if number != self._step:
            self._step, self._names = number, set()
        new = {name: value for name, value in metrics.items() if name != "epoch" and name not in self._names}
        self._names |= new.keys()
        rows = [[number, now, name, repr(float(value))] for name, value in new.items()]
        csv.writer(self._file, lineterminator="\n").writerows(rows)
        self._file.flush()

    @rank_zero_only
    def save(self) -> None:
        """Bring what was logged to the disk."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    @rank_zero_only
    def rewind(self, step: int) -> None:
        """Remove what was logged after a step that the run returns to."""
        self.finalize("rewound")
        rewind_metrics(self._folder, step)
        rows = read_metrics(self._folder) if (self._folder / METRICS).exists() else []
        self._step, self._names = step, {name for number, _, name, _ in rows if number == step}

    def _open(self) -> Any:
        path = self._folder / METRICS
        if not path.exists():
            write_metrics(self._folder, [])
        return path.open("a", encoding="utf-8", newline="")

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def write_metrics(run: Path, rows: list[MetricRow]) -> None:
    """Replace the table of a run in one step."""
    table = io.StringIO(newline="")
    csv.writer(table, lineterminator="\n").writerows([METRICS_COLUMNS, *rows])
    write_text_atomically(run / METRICS, table.getvalue())


def rewind_metrics(run: Path, step: int) -> None:
    """Remove what a run logged after the step it continues from: it is about to log that again."""
    if (run / METRICS).exists():
        write_metrics(run, [row for row in read_metrics(run) if row[0] <= step])
