"""Balance of pipeline stages."""

from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InputError
from models.config import DecoderConfig
from strategies.parallel.pipeline_stages import layer_costs, split_layers


@given(layers=st.integers(1, 9), stages=st.integers(1, 9), head=st.floats(0, 5))
def test_stages_are_balanced(layers: int, stages: int, head: float) -> None:
    """Against every possible cut: none has a cheaper slowest stage."""
    costs = [0.0, *[1.0] * layers, head]
    if layers < stages:
        with pytest.raises(InputError, match="fewer than"):
            split_layers(costs, stages)
        return

    def slowest(ranges: list[range]) -> float:
        return max(len(r) + (head if r.stop == layers else 0.0) for r in ranges)

    ranges = split_layers(costs, stages)
    assert [i for r in ranges for i in r] == list(range(layers))
    assert all(ranges)
    cuts = [[0, *inner, layers] for inner in combinations(range(1, layers), stages - 1)]
    best = min(slowest([range(a, b) for a, b in pairwise(cut)]) for cut in cuts)
    assert slowest(ranges) == pytest.approx(best)


def test_a_large_head_takes_layers_from_the_last_stage() -> None:
    config = DecoderConfig(
        vocabulary_size=32_000, width=64, layers=8, heads=4, key_value_heads=2, feed_forward_width=176
    )
    first, last = split_layers(layer_costs(config, 128), 2)
    assert len(first) > len(last)
