"""A local table of metrics that a killed and resumed run extends without a gap or a double line.

Lightning's CSVLogger keeps one column a metric, rewrites its file when a new one appears and deletes it when a run
starts again in the same folder. Long format, `step,time,name,value`, is only ever appended to.
"""

import argparse
import csv
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

TABLE = "metrics.csv"
COLUMNS = ["step", "time", "name", "value"]


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
        """Forget what was logged after a step, which a run goes back to."""
        self.finalize("rewound")
        rewind_metrics(self._folder, step)
        rows = read_metrics(self._folder / TABLE) if (self._folder / TABLE).exists() else []
        self._step, self._names = step, {name for number, _, name, _ in rows if number == step}

    def _open(self) -> Any:
        path = self._folder / TABLE
        if not path.exists():
            write_metrics(path, [])
        return path.open("a", encoding="utf-8", newline="")

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


Row = tuple[int, str, str, str]


def read_metrics(path: Path) -> list[Row]:
    """Rows (step, time, name, value) of a table; a last line torn by a kill is left out."""
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    rows = list(csv.reader(whole.splitlines()))[1:]
    return [(int(step), when, name, value) for step, when, name, value in rows]


def write_metrics(path: Path, rows: list[Row]) -> None:
    """Replace a table in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".partial")
    with temporary.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)


def rewind_metrics(folder: Path, step: int) -> None:
    """Forget what a run logged after the step it continues from: it is about to log that again."""
    path = folder / TABLE
    if path.exists():
        write_metrics(path, [row for row in read_metrics(path) if row[0] <= step])
