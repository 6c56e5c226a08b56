"""Batches of sample numbers do not depend on the number of ranks."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.mixing.samplers import DistributedBatchSampler


@settings(max_examples=20, deadline=None)
@given(start=st.integers(0, 1000), ranks=st.sampled_from([1, 2, 4]), steps=st.integers(1, 5))
def test_a_global_batch_holds_the_same_samples_for_any_number_of_ranks(start: int, ranks: int, steps: int) -> None:
    sizes = [4, 8, 8, 12, 16][:steps]
    drawn: list[list[int]] = [[] for _ in range(steps)]
    for rank in range(ranks):
        batches = DistributedBatchSampler(lambda: start, lambda: iter(size // ranks for size in sizes), rank, ranks)
        for samples, batch in zip(drawn, batches, strict=True):
            samples += batch
    ends = list(itertools.accumulate(sizes, initial=start))
    assert [sorted(batch) for batch in drawn] == [list(range(*pair)) for pair in itertools.pairwise(ends)]
