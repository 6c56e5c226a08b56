"""Formulas against the model itself and PyTorch's own counter."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from models.decoder import Decoder, DecoderConfig
from models.flops import matmul_parameters, parameters, training_flops

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
