"""FLOPs of a step against those that training counts."""

import pytest
import torch

from models.attention import attended_pairs
from models.flops import matmul_parameters, training_flops
from strategies.planner.step_time import block_flops, model_flops_of_step
from tests.helpers.planner import LENGTH, ROWS, small_setup


def test_a_step_counts_as_the_throughput_callback_counts() -> None:
    """Causal pairs of whole windows."""
    setup = small_setup()
    pairs = ROWS * LENGTH * (LENGTH + 1) // 2
    assert model_flops_of_step(setup) == training_flops(setup.config, ROWS * LENGTH, pairs)


@pytest.mark.parametrize("window", [None, 1, 5, 100, LENGTH, 3 * LENGTH])
def test_attention_of_a_block_counts_the_pairs_that_a_step_counts(window: int | None) -> None:
    """Those that attention itself counts, 4 FLOPs each and channel forward, 12 with the backward pass."""
    setup = small_setup(sliding_window=window)
    pairs = int(attended_pairs(torch.zeros(ROWS, LENGTH, dtype=torch.int64), window=window))
    channels = setup.config.heads * (setup.config.head_width or 0)
    assert block_flops(setup)[1] == 4 * channels * pairs
    products = 6 * matmul_parameters(setup.config) * ROWS * LENGTH
    assert model_flops_of_step(setup) - products == 12 * setup.config.layers * channels * pairs
