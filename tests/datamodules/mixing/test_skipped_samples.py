"""Counting around what is left out, against a list without it."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InputError
from datamodules.mixing.samplers import DistributedBatchSampler, StepBatchSampler
from datamodules.mixing.skipped_samples import SkippedSamples
from datamodules.random_tokens import RandomTokens

RANGES = st.lists(st.tuples(st.integers(0, 80), st.integers(1, 30)).map(lambda p: (p[0], p[0] + p[1])), max_size=6)


@given(ranges=RANGES, start=st.integers(0, 120), count=st.integers(0, 60))
def test_taking_and_counting_go_around_what_is_left_out(ranges: list[tuple[int, int]], start: int, count: int) -> None:
    skipped = SkippedSamples(ranges)
    left_out = {number for pair in ranges for number in range(*pair)}
    taken = [number for number in range(500) if number not in left_out and number >= start]
    assert skipped.take(start, count) == taken[:count]
    assert skipped.after(start, count) == taken[count]
    assert skipped.within(start, start + count) == len(left_out & set(range(start, start + count)))
    assert all(a[1] < b[0] for a, b in itertools.pairwise(skipped.ranges))
    assert SkippedSamples([list(pair) for pair in skipped.ranges]).ranges == skipped.ranges


@given(ranges=RANGES, start=st.integers(0, 60), ranks=st.sampled_from([1, 2, 4]))
def test_steps_hold_the_same_samples_for_any_number_of_ranks(
    ranges: list[tuple[int, int]], start: int, ranks: int
) -> None:
    skipped, seen = SkippedSamples(ranges), []
    for rank in range(ranks):
        batches = DistributedBatchSampler(lambda: start, lambda: itertools.repeat(8 // ranks), rank, ranks, skipped)
        seen.append(list(itertools.islice(StepBatchSampler(batches, 16), 6)))
    for number, keys in enumerate(zip(*seen, strict=True)):
        step = skipped.take(skipped.after(start, number // 2 * 16), 16)
        assert all(list(key.step) == step for key in keys)
        assert sorted(s for key in keys for s in key.samples) == step[number % 2 * 8 :][:8]


@pytest.mark.parametrize("bad", [[3], [5, 5], [-1, 4], ["a", 2], [1.0, 2], 7])
def test_a_damaged_stretch_is_refused(bad: Any) -> None:
    with pytest.raises(InputError, match="skipped samples"):
        RandomTokens().load_state_dict({"order": RandomTokens().order(), "skipped": [bad], "consumed_samples": 0})


def test_what_a_checkpoint_does_not_know_of_stays_left_out() -> None:
    data = RandomTokens()
    data.skipped.add(40, 50)
    state = {"order": data.order(), "skipped": [[8, 12]], "consumed_samples": 4, "counted_steps": 1}
    data.load_state_dict(state)
    assert data.skipped.ranges == [(8, 12), (40, 50)]
    assert data.position() == 4
