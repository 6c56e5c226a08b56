"""What commands in this process leave behind: what a run logged, the one line that a mistake gets."""

import csv
from pathlib import Path

import pytest

from main import main

Rows = list[tuple[str, str, str]]


def learned(run: Path) -> Rows:
    """Everything logged but times and speeds."""
    with (run / "metrics.csv").open(encoding="utf-8") as file:
        return [
            (row["step"], row["name"], row["value"])
            for row in csv.DictReader(file)
            if not row["name"].startswith("throughput")
        ]


def refused(arguments: list[str | Path], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a mistake gets."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as raised:
        main([str(argument) for argument in arguments])
    assert raised.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]
