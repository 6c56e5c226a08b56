"""Attention over the cache against float64, from the same rounded keys and values."""

import pytest
import torch

from models.config import DecoderConfig
from models.kv_cache import KVCache

CONFIG = DecoderConfig(64, width=64, layers=1, heads=4, key_value_heads=2, feed_forward_width=8, head_width=32)
LENGTH = 64


def errors(dtype: torch.dtype, spread: float, autocast: bool) -> float:
    """Root mean square of what attention is off by, over that of its values."""
    generator = torch.Generator().manual_seed(0)
    cache = KVCache(CONFIG, 3, LENGTH, torch.zeros(1, dtype=dtype))
    cache.keys.copy_(torch.randn(cache.keys.shape, generator=generator))
    cache.values.copy_(torch.randn(cache.values.shape, generator=generator))
    cache.lengths = [LENGTH - 1] * 3
    cache.extend(3)
    q_SHD = (torch.randn(3, 4, 32, generator=generator) * spread).to(dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = cache.attend(0, q_SHD, cache.bias(None)).double()
    q = q_SHD.double().view(3, 2, 2, 32)
    weights = (q @ cache.keys[0].double() * 32**-0.5).softmax(-1)
    exact = (weights @ cache.values[0].double()).flatten(1, 2)
    return ((found - exact).square().mean() / exact.square().mean()).sqrt().item()


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("spread", [1.0, 3.0, 6.0])
def test_scores_are_not_rounded_to_the_caches_dtype(spread: float, autocast: bool) -> None:
    # What remains is the rounding of probabilities and of the result; rounded scores are off by twice as much.
    assert errors(torch.bfloat16, spread, autocast) < 0.004


def test_float32_is_exact() -> None:
    assert errors(torch.float32, 3.0, False) < 1e-5
