"""Batches grow evenly to their full size."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from datamodules.mixing.batch_size_warmup import BatchSizeWarmup


@given(full=st.integers(1, 40), initial=st.integers(1, 40), increment=st.integers(1, 9), steps=st.integers(1, 90))
def test_batches_grow_evenly_to_their_full_size(full: int, initial: int, increment: int, steps: int) -> None:
    warmup = BatchSizeWarmup(min(initial, full), increment, steps)
    sizes = [warmup.size(step, full) for step in range(steps + 3)]
    assert sizes[steps:] == [full] * 3
    assert sorted(sizes) == sizes
    assert set(sizes) <= set(warmup.sizes(full))
    if full > initial:
        assert sizes[0] == initial
    counts = Counter(sizes[:steps])
    assert max(counts.values()) - min(counts.values()) <= 1 or full == min(initial, full)
