"""Counting around what is left out, against a list without it."""

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InputError
from datamodules.mixing.batch_size_warmup import BatchSizeWarmup
from datamodules.mixing.samplers import DistributedBatchSampler, StepBatchSampler
from datamodules.mixing.skipped_samples import SkippedSamples
from datamodules.random_tokens import RandomTokens
from datamodules.resumable import ResumableDataModule

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


def numbered(micro_batches: int, warmup: BatchSizeWarmup | None = None, state: Any = None) -> Any:
    """Samples for a run of so many micro-batches a step, from the beginning or a checkpoint."""
    data: Any = ResumableDataModule(4, 0, warmup)
    data.trainer = SimpleNamespace(
        accumulate_grad_batches=micro_batches, distributed_sampler_kwargs=None, global_step=0, max_steps=-1
    )
    if state is not None:
        data.load_state_dict(state)
    return data


def test_a_resumed_run_knows_the_samples_of_the_steps_before() -> None:
    """Two starts and a third, with batches that grow and then another number of them a step."""
    warmup = BatchSizeWarmup(initial=1, increment=1, steps=6)
    first = numbered(2, warmup)
    first.skipped.add(5, 7)
    taken = [first.samples_of_step(step) for step in range(1, 11)]
    assert [len(samples) for samples in taken] == [2, 2, 4, 4, 6, 6, 8, 8, 8, 8]
    first.trainer.global_step = 10
    second = numbered(1, None, first.state_dict())
    taken += [second.samples_of_step(step) for step in range(11, 16)]
    second.trainer.global_step = 15
    third = numbered(3, None, second.state_dict())
    third.skipped.add(taken[14][-1] + 1, taken[14][-1] + 9)
    taken += [third.samples_of_step(step) for step in range(16, 19)]
    everything = [sample for samples in taken for sample in samples]
    assert everything == third.skipped.take(0, len(everything))
    for data, known in ((second, 15), (third, 18)):
        assert [data.samples_of_step(step) for step in range(1, known + 1)] == taken[:known]
        assert [data.position_at(step) for step in range(known)] == [samples[0] for samples in taken[:known]]


def test_a_checkpoint_that_does_not_say_what_came_before_is_not_guessed_at() -> None:
    data = numbered(1, None, {"consumed_samples": 12, "counted_steps": 3})
    assert data.samples_of_step(4) == [12, 13, 14, 15]
    with pytest.raises(InputError, match="samples of step 3: the checkpoint of step 3 .* set it aside"):
        data.samples_of_step(3)
