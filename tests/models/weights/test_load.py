"""A decoder loaded for inference is whole, frozen, and has its adapter merged."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from models.config import DecoderConfig
from models.initialization import build_decoder
from models.lora import LoRA, LoRALinear
from models.weights.load import load_decoder
from models.weights.single_file import write_safetensors
from models.weights.source import WeightSource

SHAPE = DecoderConfig(vocabulary_size=13, width=8, layers=1, heads=2, key_value_heads=1, feed_forward_width=16)


@pytest.mark.parametrize("lora", [None, LoRA(rank=2)])
def test_a_loaded_decoder_computes_what_the_saved_one_did(lora: LoRA | None, tmp_path: Path) -> None:
    config = replace(SHAPE, lora=lora)
    decoder = build_decoder(config, 3)
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            if name.endswith("lora_b"):
                parameter.normal_(generator=torch.Generator().manual_seed(1))
    tensors = {f"decoder.{name}": p.detach().contiguous().clone() for name, p in decoder.named_parameters()}
    write_safetensors(tensors, asdict(config), tmp_path / "model.safetensors")
    loaded = load_decoder(WeightSource(tmp_path / "model.safetensors"), torch.device("cpu"))
    tokens = torch.tensor([[1, 5, 7, 2]])
    torch.testing.assert_close(loaded.output.logits(loaded(tokens)), decoder.output.logits(decoder(tokens)))
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    assert not any(isinstance(module, LoRALinear) for module in loaded.modules())
    low = load_decoder(WeightSource(tmp_path / "model.safetensors"), torch.device("cpu"), torch.bfloat16)
    assert {p.dtype for p in low.parameters()} == {torch.bfloat16}


def test_loading_begins_the_watch_over_spinning_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`evaluate`, `generate`, `compare` and `constitution` share their cores as `fit` does: all load here."""
    threads: list[int] = []
    monkeypatch.setattr("models.weights.load.watch_spin", threads.append)
    tensors = {f"decoder.{name}": p.detach().contiguous() for name, p in build_decoder(SHAPE, 3).named_parameters()}
    write_safetensors(tensors, asdict(SHAPE), tmp_path / "model.safetensors")
    load_decoder(WeightSource(tmp_path / "model.safetensors"), torch.device("cpu"))
    assert threads == [torch.get_num_threads()]
