"""Checkpoints are whole or absent, and damage is noticed."""

import os
import time
from pathlib import Path

import pytest
import torch

from common.errors import InputError
from models.weights.single_file import AtomicCheckpointIO
from tests.helpers.distributed import forked, wait_for

PARTS = {"pytorch-lightning_version": "2.6.0", "global_step": 3, "decoder_config": {}}


def test_a_file_of_another_origin_is_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(2)}, tmp_path / "step=1.ckpt")
    with pytest.raises(InputError, match="lacks pytorch-lightning_version"):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "step=1.ckpt")


def test_round_trip_and_removal(tmp_path: Path) -> None:
    path, plugin = tmp_path / "step=3.ckpt", AtomicCheckpointIO()
    plugin.save_checkpoint(PARTS | {"weight": torch.arange(5), "step": 3}, path)
    loaded = plugin.load_checkpoint(path)
    assert loaded["step"] == 3
    assert torch.equal(loaded["weight"], torch.arange(5))
    assert os.listdir(tmp_path) == ["step=3.ckpt"]
    plugin.remove_checkpoint(path)
    assert not path.exists()


def test_code_is_never_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "step=1.ckpt"
    AtomicCheckpointIO().save_checkpoint({"object": Path("x")}, path)
    with pytest.raises(InputError, match="more than tensors"):
        AtomicCheckpointIO().load_checkpoint(path)


@pytest.mark.parametrize("damage", ["flip", "cut", "missing"])
def test_damage_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "step=1.ckpt"
    AtomicCheckpointIO().save_checkpoint({"weight": torch.randn(1000)}, path)
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.unlink()
    with pytest.raises(InputError, match="damaged|does not exist"):
        AtomicCheckpointIO().load_checkpoint(path)


def save_for_ever(folder: Path) -> None:
    """A file after another, each of some megabytes."""
    content = PARTS | {"weight": torch.ones(3_000_000)}
    for step in range(10_000):
        AtomicCheckpointIO().save_checkpoint(content, f"{folder}/step={step}.ckpt")


@pytest.mark.distributed
def test_a_kill_while_saving_leaves_only_whole_files(tmp_path: Path) -> None:
    process = forked(tmp_path, save_for_ever, tmp_path)
    wait_for(tmp_path / "step=0.ckpt")
    time.sleep(0.5)
    process.kill()
    process.communicate()
    whole = list(tmp_path.glob("step=*.ckpt"))
    assert whole
    for path in whole:
        assert AtomicCheckpointIO().load_checkpoint(path)["weight"].sum() == 3_000_000


def test_a_folder_of_another_strategy_is_named(tmp_path: Path) -> None:
    """Lightning's `auto` once said of it that it does not exist."""
    (tmp_path / "step=12.ckpt").mkdir()
    with pytest.raises(InputError, match=r"step=12\.ckpt is a folder, written by strategies\.TensorParallelStrategy"):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "step=12.ckpt")
