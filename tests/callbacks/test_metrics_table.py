"""The table of metrics survives kills: torn lines vanish, repeated steps are not doubled."""

from pathlib import Path

from callbacks.metrics_table import MetricsTable, rewind_metrics
from common.run_folder import METRICS, read_metrics


def test_rows_count_completed_steps_and_are_appended(tmp_path: Path) -> None:
    first = MetricsTable(str(tmp_path / "run"))
    first.log_metrics({"train/loss": 2.5, "epoch": 0.0}, step=0)
    first.finalize("success")
    second = MetricsTable(str(tmp_path / "run"))
    second.log_metrics({"train/loss": 0.1, "other": 1 / 3}, step=1)
    second.finalize("success")
    rows = [(step, name, float(value)) for step, _, name, value in read_metrics(tmp_path / "run")]
    assert rows == [(1, "train/loss", 2.5), (2, "train/loss", 0.1), (2, "other", 1 / 3)]


def test_a_torn_line_and_later_steps_are_forgotten(tmp_path: Path) -> None:
    table = MetricsTable(str(tmp_path))
    for step in range(5):
        table.log_metrics({"train/loss": float(step)}, step=step)
    table.finalize("success")
    with (tmp_path / METRICS).open("a") as file:
        file.write("6,1700000000.0,train/lo")
    assert [row[0] for row in read_metrics(tmp_path)] == [1, 2, 3, 4, 5]
    rewind_metrics(tmp_path, 3)
    resumed = MetricsTable(str(tmp_path))
    resumed.log_metrics({"train/loss": 9.0}, step=3)
    resumed.finalize("success")
    assert [(row[0], float(row[3])) for row in read_metrics(tmp_path)] == [(1, 0.0), (2, 1.0), (3, 2.0), (4, 9.0)]
    rewind_metrics(tmp_path / "absent", 0)
    assert not (tmp_path / "absent").exists()
