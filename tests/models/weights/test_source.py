"""Identity of weights: what they hold, not where they lie or when they were written."""

import os
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from models.config import DecoderConfig
from models.initialization import build_decoder
from models.weights.hugging_face_folder import write_hugging_face_folder
from models.weights.hugging_face_names import to_hugging_face
from models.weights.single_file import AtomicCheckpointIO, write_safetensors
from models.weights.source import WeightSource
from strategies.parallel.saver import CheckpointSaver

SHAPE = DecoderConfig(vocabulary_size=13, width=8, layers=1, heads=2, key_value_heads=1, feed_forward_width=16)
REST = {"pytorch-lightning_version": "2.6.0", "global_step": 3, "decoder_config": asdict(SHAPE)}


def write(kind: str, path: Path, seed: int) -> Path:
    """Weights drawn from a seed, in a folder or file of one kind."""
    tensors = {name: p.detach().contiguous() for name, p in build_decoder(SHAPE, seed).named_parameters()}
    ours = {f"decoder.{name}": tensor for name, tensor in tensors.items()}
    if kind == "sharded":
        CheckpointSaver().save(path / "step=3.ckpt", {f"model.{name}": t for name, t in ours.items()}, dict(REST))
        return path / "step=3.ckpt"
    if kind == "single":
        AtomicCheckpointIO().save_checkpoint(REST | {"state_dict": ours}, path / "step=3.ckpt")
        return path / "step=3.ckpt"
    if kind == "safetensors":
        write_safetensors(ours, asdict(SHAPE), path / "model.safetensors")
        return path / "model.safetensors"
    sizes = [(name, tensor.shape) for name, tensor in tensors.items()]
    described = to_hugging_face(SHAPE, 64, "float32", {})
    write_hugging_face_folder(path, SHAPE, described, sizes, tensors.__getitem__, torch.float32)
    return path


@pytest.mark.parametrize("kind", ["sharded", "single", "safetensors", "hugging_face"])
def test_a_copy_has_the_same_identity_and_other_weights_have_not(tmp_path: Path, kind: str) -> None:
    first = write(kind, tmp_path / "first", 1)
    moved = tmp_path / "moved" / first.name
    moved.parent.mkdir()
    (shutil.copytree if first.is_dir() else shutil.copy)(first, moved)
    for file in [moved, *moved.rglob("*")]:
        os.utime(file, (1, 1))
    identity = WeightSource(first).identity
    assert identity
    assert WeightSource(moved).identity == identity
    assert WeightSource(write(kind, tmp_path / "again", 1)).identity == identity
    assert WeightSource(write(kind, tmp_path / "other", 2)).identity != identity


def test_the_index_of_a_checkpoint_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It grows with the number of tensors, each of which is asked for."""
    source = WeightSource(write("sharded", tmp_path, 1))
    opened: list[str] = []
    read = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *a, **k: (opened.append(self.name), read(self, *a, **k))[1])
    names = [name for name, _ in build_decoder(SHAPE, 1).named_parameters()]
    assert all(source(name) is not None for name in names)
    assert ".metadata" not in opened
