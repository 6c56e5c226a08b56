"""Saves that fail end in one line on every rank, and leave what was saved before."""

import resource
from pathlib import Path

import pytest
import torch

from common.errors import InputError
from models.weights.sharded_folder import read_whole
from models.weights.single_file import AtomicCheckpointIO
from strategies.parallel.saver import CheckpointSaver
from tests.helpers.distributed import run_ranks

REST = {"pytorch-lightning_version": "2.6.0", "global_step": 3, "decoder_config": {}}


def save_twice(folder: Path, limited_rank: int, file_bytes: int, asynchronous: bool) -> str:
    """A small checkpoint, then one that does not fit on one rank, where a file may have so many bytes."""
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    saver = CheckpointSaver(asynchronous)
    small, large = (torch.ones(size) for size in (1000, 500_000))
    saver.save(folder / "step=1.ckpt", {f"model.{rank}": small}, REST)
    saver.wait()
    if rank == limited_rank:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    try:
        saver.save(folder / "step=2.ckpt", {f"model.{rank}": large}, REST)
        saver.wait()
    except InputError as error:
        return str(error)
    return "saved"


@pytest.mark.distributed
@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(("limited_rank", "file_bytes"), [(1, 2**16), (0, 2**16), (0, 100)])
def test_what_one_rank_cannot_write_ends_the_save_on_all(
    tmp_path: Path, limited_rank: int, file_bytes: int, asynchronous: bool
) -> None:
    """The tensors of either rank, or already the first rank's trainer state."""
    told = run_ranks(2, save_twice, tmp_path, limited_rank, file_bytes, asynchronous)
    assert all("step=2.ckpt cannot be written" in line and "\n" not in line for line in told)
    assert [path.name for path in tmp_path.iterdir()] == ["step=1.ckpt"]
    assert read_whole(tmp_path / "step=1.ckpt")["global_step"] == 3


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's writer says `unexpected pos` and hides the system's reason."""

    def fail(*_: object) -> None:
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598")

    monkeypatch.setattr("torch.save", fail)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 0}))
    for save in (AtomicCheckpointIO().save_checkpoint, lambda rest, path: CheckpointSaver().save(path, {}, rest)):
        with pytest.raises(InputError, match=r"step=1.ckpt cannot be written \(no space is left on the disk\)"):
            save(REST, tmp_path / "checkpoints/step=1.ckpt")
        assert not list((tmp_path / "checkpoints").iterdir())
