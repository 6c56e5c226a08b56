"""Folders that are whole or absent, notice damage, and run no code."""

import os
import pickle
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from common.errors import InputError
from main import main
from models.weights.sharded_folder import (
    METADATA,
    TRAINER,
    load_tensors,
    read_whole,
    remove,
    write_checksum,
)
from models.weights.single_file import read_checkpoint
from strategies.parallel.saver import CheckpointSaver
from tests.helpers.corpus import Configure
from tests.helpers.distributed import forked, wait_for, warm_program

REST = {"pytorch-lightning_version": "2.6.0", "global_step": 3, "decoder_config": {}}


def save(folder: Path, value: float = 1.0) -> Path:
    CheckpointSaver().save(
        folder, {"model.weight": torch.full((100, 10), value), "optimizer.0.weight.step": torch.tensor(3.0)}, REST
    )
    return folder


def test_round_trip_and_removal(tmp_path: Path) -> None:
    folder = save(tmp_path / "step=3.ckpt")
    whole = read_whole(folder)
    assert whole["global_step"] == 3
    assert whole["state_dict"].keys() == {"weight"}
    assert torch.equal(whole["state_dict"]["weight"], torch.ones(100, 10))
    target = torch.zeros(100, 10)
    load_tensors(folder, {"model.weight": target})
    assert torch.equal(target, torch.ones(100, 10))
    assert torch.equal(read_whole(save(folder, 2.0))["state_dict"]["weight"], torch.full((100, 10), 2.0))
    remove(folder)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("damage", ["flip", "cut", "sidecar"])
@pytest.mark.parametrize("name", ["__0_0.distcp", METADATA, TRAINER])
def test_damage_is_refused(tmp_path: Path, name: str, damage: str) -> None:
    path = save(tmp_path / "step=3.ckpt") / name
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.with_name(f"{name}.xxh3").unlink()
    with pytest.raises(InputError, match=f"is damaged \\({name}\\)"):
        read_checkpoint(tmp_path / "step=3.ckpt")


def test_another_shape_or_name_is_refused(tmp_path: Path) -> None:
    folder = save(tmp_path / "step=3.ckpt")
    with pytest.raises(InputError, match="shape \\(100, 10\\), this model needs \\(10, 10\\)"):
        load_tensors(folder, {"model.weight": torch.zeros(10, 10)})
    with pytest.raises(InputError, match="model.bias with shape None"):
        load_tensors(folder, {"model.bias": torch.zeros(10)})


class Harmful:
    def __reduce__(self) -> object:
        return os.system, ("touch harmed",)


@pytest.mark.parametrize(
    "content",
    [
        # Protocol 4 takes dotted names: what a trusted module imported would come with it.
        b"\x80\x04\x8c\x27torch.distributed.checkpoint.filesystem\x8c\x09os.system\x93\x8c\x0ctouch harmed\x85R.",
        b"\x80\x04\x8c\x27torch.distributed.checkpoint.filesystem\x8c\x02os\x93.",
        pickle.dumps(3),
        b"",
    ],
)
def test_an_index_holds_nothing_but_an_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.chdir(tmp_path)
    folder = save(tmp_path / "step=3.ckpt")
    (folder / METADATA).write_bytes(content)
    write_checksum(folder / METADATA)
    with pytest.raises(InputError, match="no readable index"):
        read_checkpoint(folder)
    assert not (tmp_path / "harmed").exists()


def test_code_is_never_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, write in ((METADATA, pickle.dumps), (TRAINER, None)):
        folder = save(tmp_path / "step=3.ckpt")
        if write:
            (folder / name).write_bytes(write(Harmful()))
        else:
            torch.save(Harmful(), folder / name)
        write_checksum(folder / name)
        with pytest.raises(InputError, match="no readable index|more than tensors"):
            read_checkpoint(folder)
    assert not (tmp_path / "harmed").exists()


def save_for_ever(folder: Path) -> None:
    """A folder after another, each of some megabytes."""
    for step in range(10_000):
        CheckpointSaver().save(folder / f"step={step}.ckpt", {"model.weight": torch.ones(3_000_000)}, REST)


@pytest.mark.distributed
def test_a_kill_while_saving_leaves_only_whole_folders(tmp_path: Path) -> None:
    process = forked(tmp_path, save_for_ever, tmp_path)
    wait_for(tmp_path / "step=0.ckpt")
    time.sleep(0.5)
    process.kill()
    process.communicate()
    whole = list(tmp_path.glob("step=*.ckpt"))
    assert whole
    for path in whole:
        assert read_checkpoint(path)["state_dict"]["weight"].sum() == 3_000_000


@pytest.mark.end_to_end
def test_convert_merges_into_one_file(configure: Configure, tmp_path: Path) -> None:
    config = str(configure(trainer__max_steps=4))
    main(["fit", "--config", config])
    main(["convert", "--input", str(tmp_path / "run"), "--output", str(tmp_path / "model.safetensors")])
    expected = read_checkpoint(tmp_path / "run/checkpoints/step=4.ckpt")["state_dict"]
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert set(file.keys()) == set(expected)
        assert all(torch.equal(file.get_tensor(name), expected[name]) for name in expected)
        assert '"width": 32' in file.metadata()["decoder_config"]
    assert (tmp_path / "model.tokenizer/tokenizer.model").stat().st_size > 1000


@pytest.mark.end_to_end
def test_parity_names_the_first_parameter_that_differs(
    configure: Configure, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no tolerance at all, rounding is a difference."""
    monkeypatch.setattr("commands.training.parity.PROGRAM", warm_program())
    strategy = {"class_path": "strategies.TensorParallelStrategy", "init_args": {"tensor_parallel_size": 2}}
    config = str(configure(trainer__strategy=strategy, trainer__devices=2))
    with pytest.raises(SystemExit) as raised:
        main(["parity", "--config", config, "--steps=2", "--tolerance=0"])
    assert raised.value.code == 1
    output = capsys.readouterr().out
    assert "the first parameter that differs is decoder.tok_embeddings.weight" in output
    assert "NOT the same" in output
    differences = [
        float(line.split()[-1]) for line in output.splitlines() if line.startswith(("  train/", "  validation"))
    ]
    assert len(differences) == 3
    assert max(differences) < 1e-5
