"""Fixture of recipe tests."""

import sys
from pathlib import Path

import pytest

from commands.recipe import command as recipe
from tests.helpers.recipes import TRAINING


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Makes `TRAINING` what a stage runs."""
    (tmp_path / "training.py").write_text(TRAINING)
    command = [sys.executable, "-S", "-I", str(tmp_path / "training.py")]
    monkeypatch.setattr(recipe, "PROGRAM", command)
    return command
