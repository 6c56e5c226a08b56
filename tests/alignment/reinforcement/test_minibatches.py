"""Mini-batches and micro-batches: each response once, within the budget, whatever the rank."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.reinforcement.minibatches import ChunkedForward, minibatch_of, split_microbatches
from models.packed_batch import response_log_probabilities
from tests.helpers.rollouts import CPU, POLICY, made_up


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 999), group=st.sampled_from([1, 3, 12]), budget=st.integers(1, 60), data=st.data())
def test_pieces_hold_everything_once_within_the_budget(seed: int, group: int, budget: int, data: st.DataObject) -> None:
    rollouts = made_up(seed, group, count=12)
    chosen = data.draw(st.lists(st.integers(0, 11), unique=True))
    found = split_microbatches(rollouts, chosen, budget)
    assert sorted(number for microbatch in found for number in microbatch) == sorted(chosen)
    for microbatch in found:
        assert microbatch
        assert len(microbatch) == 1 or rollouts.pack(microbatch, CPU).tokens.numel() <= budget


@settings(max_examples=30, deadline=None)
@given(minibatches=st.integers(1, 6), blocks=st.integers(1, 5), seed=st.integers(0, 99))
def test_minibatches_are_equally_large_and_new_each_epoch(minibatches: int, blocks: int, seed: int) -> None:
    drawn = [minibatch_of(position, minibatches, seed, 0) for position in range(minibatches * blocks)]
    assert [drawn.count(number) for number in range(minibatches)] == [blocks] * minibatches
    many = range(6 * 40)
    first, second = ([minibatch_of(position, 6, seed, epoch) for position in many] for epoch in (0, 1))
    assert first != second


def test_a_rank_with_less_to_compute_keeps_step() -> None:
    """Its further passes change nothing of what is found."""
    rollouts = made_up(1)
    alone = ChunkedForward(rollouts, budget=12, device=CPU)
    beside = ChunkedForward(rollouts, budget=12, device=CPU, max_over_ranks=lambda count: count + 2)
    assert len(beside.packed) == len(alone.packed) + 2
    results = [passes(lambda packed: response_log_probabilities(POLICY, packed, 1.0)) for passes in (alone, beside)]
    torch.testing.assert_close(results[0], results[1])
