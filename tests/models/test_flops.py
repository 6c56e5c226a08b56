"""Formulas against the model itself and PyTorch's own counter."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from models.decoder import Decoder, DecoderConfig
from models.flops import adapter_parameters, matmul_parameters, parameters, training_flops
from models.lora import LoRA

CONFIGS = [
    DecoderConfig(vocabulary_size=96, width=64, layers=3, heads=4, key_value_heads=2, feed_forward_width=96),
    DecoderConfig(
        vocabulary_size=96, width=64, layers=2, heads=2, key_value_heads=1, feed_forward_width=80, head_width=16,
        tied_embeddings=False,
    ),
]  # fmt: skip


@pytest.mark.parametrize("config", CONFIGS)
def test_parameters_equal_the_model(config: DecoderConfig) -> None:
    with torch.device("meta"):
        decoder = Decoder(config)
    assert sum(p.numel() for p in decoder.parameters()) == parameters(config)


@pytest.mark.parametrize("config", CONFIGS)
def test_training_flops_equal_the_counter(config: DecoderConfig) -> None:
    batch, time = 2, 32
    with torch.device("meta"):
        decoder = Decoder(config)
        tokens = torch.zeros(batch, time, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        decoder.output(decoder(tokens)).sum().backward()
    # The counter takes attention as the full square, and its flash backward recomputes the scores: 10 FLOPs per
    # pair and channel instead of 8.
    assert config.head_width is not None
    pairs = batch * time * time
    recomputed = 2 * config.layers * config.heads * config.head_width * pairs
    counted = counter.get_total_flops()
    assert counted in {
        training_flops(config, batch * time, pairs),
        training_flops(config, batch * time, pairs) + recomputed,
    }
    assert matmul_parameters(config) < parameters(config)


@pytest.mark.parametrize("scalar_output", [False, True])
@pytest.mark.parametrize("targets", [["wq", "wk", "wv"], LoRA().targets])
def test_frozen_matrices_have_no_gradient_to_compute(targets: list[str], scalar_output: bool) -> None:
    config = DecoderConfig(
        96, width=64, layers=3, heads=4, key_value_heads=2, feed_forward_width=96, tied_embeddings=False,
        scalar_output=scalar_output, lora=LoRA(4, targets=targets),
    )  # fmt: skip
    batch, time = 2, 32
    with torch.device("meta"):
        decoder = Decoder(config)
        tokens = torch.zeros(batch, time, dtype=torch.int64)
    assert sum(p.numel() for name, p in decoder.named_parameters() if "lora" in name) == adapter_parameters(config)
    with FlopCounterMode(display=False) as counter:
        decoder.output(decoder(tokens)).sum().backward()
    # Nothing in front of the first block learns: its first products send no gradient further down.
    first = decoder.layers["0"].attention
    spared = sum(layer.weight.numel() for layer in (first.wq, first.wk, first.wv))  # type: ignore[union-attr]
    spared += sum(p.numel() for name, p in first.named_parameters() if "lora_a" in name and "wo" not in name)
    pairs, width = batch * time * time, config.layers * config.heads * 16
    counted = counter.get_total_flops() + 2 * batch * time * spared
    expected = training_flops(config, batch * time, pairs)
    assert counted in {expected, expected + 2 * width * pairs}
    assert expected < 0.85 * training_flops(dense(config), batch * time, pairs)


def dense(config: DecoderConfig) -> DecoderConfig:
    """The same shape, all of it trained."""
    return replace(config, lora=None)
