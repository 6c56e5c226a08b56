"""Checkpoints are found by their number, not by their time or order of name."""

from pathlib import Path

import pytest

from callbacks.checkpoints import Checkpoints, checkpoint_step, latest_checkpoint
from common.errors import InputError


def test_latest_is_by_number_and_ignores_partial_files(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    for name in ("step=9.ckpt", "step=10.ckpt", ".step=11.ckpt.partial", "step=12.txt", "last.ckpt"):
        (tmp_path / name).touch()
    assert latest_checkpoint(tmp_path) == tmp_path / "step=10.ckpt"


def test_bad_values_are_refused() -> None:
    with pytest.raises(InputError, match="every_steps=0"):
        Checkpoints(every_steps=0)
    with pytest.raises(InputError, match=r"best\.ckpt: its name must be step=N\.ckpt"):
        checkpoint_step(Path("best.ckpt"))
