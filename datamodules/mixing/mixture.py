"""Data mixture: source and window of a sample number, a pure function for any number of ranks, workers or restarts.

Shuffling a list and remembering a position needs state that is saved, sharded and trusted. Here source and window
follow from the number of a sample by arithmetic, so one integer is all there is to restore. The price is that the
mixture's weights are rounded to 1/4096.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import xxhash

from common.errors import InputError

BLOCK = 4096
"""Samples in a block: every block holds the sources in the exact proportion of their weights."""


def permute(index: int, length: int, seed: int) -> int:
    """Position of `index` in a pseudo-random permutation of range(length), without holding the permutation.

    A four-round Feistel network over the next even power of two, walked until it lands inside (Black & Rogaway 2002,
    "cycle walking"; fewer than four steps on average).
    """
    half_bits = max((length - 1).bit_length() + 1, 2) // 2
    mask = (1 << half_bits) - 1
    while True:
        left, right = index >> half_bits, index & mask
        for round_number in range(4):
            mixed = xxhash.xxh3_64_intdigest(right.to_bytes(8, "little"), seed=(seed + round_number) & (2**64 - 1))
            left, right = right, left ^ (mixed & mask)
        index = left << half_bits | right
        if index < length:
            return index


@dataclass(frozen=True)
class Segment:
    """Segment of the sample order with one set of weights.

    Attributes:
        first: first sample number of the segment.
        slots: samples of each source in a block, int64 [sources], 4,096 in all.
        before: windows of each source consumed by earlier samples, int64 [sources].
        seed: seed of the order within blocks.
    """

    first: int
    slots: np.ndarray
    before: np.ndarray
    seed: int


class Mixture:
    """Source and window of each sample of an endless, weighted stream.

    Every source runs through its windows in a new pseudo-random order each epoch, sources interleave in the
    proportion of their weights within every block of 4,096 samples. Weights may change at a sample: a new block begins
    there, and every source continues with the window that comes next.

    Args:
        sizes: number of windows of each source.
        weights: share of samples from each source, any positive scale.
        seed: seed of all orders.

    Raises:
        InputError: for a weight that is not positive or rounds to nothing, or a source without a window.
    """

    def __init__(self, sizes: Mapping[str, int], weights: Mapping[str, float], seed: int) -> None:
        self.names, self.sizes, self.seed = list(sizes), dict(sizes), seed
        for name in self.names:
            if not sizes[name]:
                raise InputError(
                    f"source {name} holds no whole window of training tokens after curation: "
                    "lower sequence_length, add text or leave the source out"
                )
        self._segments: list[Segment] = []
        self._blocks: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}
        self.change(0, slots_of(weights, self.names))

    def change(self, first: int, slots: np.ndarray) -> None:
        """Change the mixture from sample number `first` on; earlier changes after that sample are dropped.

        Args:
            first: sample number at which the first block of the new mixture begins.
            slots: samples of each source in a block, int64 [sources], from `slots_of`; 0 leaves a source out.
        """
        self._segments = [segment for segment in self._segments if segment.first < first]
        before = self._consumed(first) if self._segments else np.zeros(len(self.names), dtype=np.int64)
        seed = xxhash.xxh3_64_intdigest(f"from {first}".encode(), seed=self.seed) if first else self.seed
        self._segments.append(Segment(first, slots, before, seed))
        self._blocks.clear()

    def locate(self, sample: int) -> tuple[str, int, int]:
        """Source, epoch of that source, and window of a sample."""
        segment, block, slot = self._place(sample)
        source, before = self._block(segment, block)
        chosen = int(source[slot])
        name = self.names[chosen]
        rank = int(segment.before[chosen]) + block * int(segment.slots[chosen]) + int(before[slot])
        epoch, position = divmod(rank, self.sizes[name])
        key = xxhash.xxh3_64_intdigest(f"{name}/{epoch}".encode(), seed=self.seed)
        return name, epoch, permute(position, self.sizes[name], key)

    def consumed(self, sample: int) -> dict[str, int]:
        """Windows of each source in samples 0 .. `sample` - 1, repetitions included."""
        return dict(zip(self.names, self._consumed(sample).tolist(), strict=True))

    def _consumed(self, sample: int) -> np.ndarray:
        segment, block, slot = self._place(sample)
        partly = np.bincount(self._block(segment, block)[0][:slot], minlength=len(self.names))
        return segment.before + block * segment.slots + partly

    def _place(self, sample: int) -> tuple[Segment, int, int]:
        """The segment of a sample, its block there and its slot in that."""
        segment = self._segments[bisect_right(self._segments, sample, key=lambda segment: segment.first) - 1]
        return segment, *divmod(sample - segment.first, BLOCK)

    def _block(self, segment: Segment, block: int) -> tuple[np.ndarray, np.ndarray]:
        """Source of each slot of a block, and how many slots before it in the block have the same source."""
        key = (segment.first, block)
        if key not in self._blocks:
            generator = np.random.Generator(np.random.Philox(key=[segment.seed, block]))
            source = generator.permutation(np.repeat(np.arange(len(self.names)), segment.slots))
            before = np.empty(BLOCK, dtype=np.int64)
            for index in range(len(self.names)):
                here = source == index
                before[here] = np.arange(here.sum())
            self._blocks = {key: (source, before)}
        return self._blocks[key]


def slots_of(weights: Mapping[str, float], names: Sequence[str]) -> np.ndarray:
    """Samples of each source in a block, int64, 4,096 in all: rounded by largest remainder.

    Raises:
        InputError: for a weight that is not positive or rounds to nothing.
    """
    total = sum(weights[name] for name in names)
    for name in names:
        if not weights[name] > 0 or weights[name] / total < 1 / BLOCK:
            raise InputError(
                f"sources.{name}.weight={weights[name]}: must be at least 1/{BLOCK} of the sum of weights, "
                "or leave the source out"
            )
    exact = np.array([weights[name] for name in names]) / total * BLOCK
    slots = np.floor(exact).astype(np.int64)
    order = np.argsort(slots - exact, kind="stable")
    slots[order[: BLOCK - slots.sum()]] += 1
    return slots


class EvaluationOrder:
    """Fixed order for evaluation: up to `max_windows` windows of each source, evenly spaced.

    Args:
        sizes: windows in each source.
        max_windows: windows taken from each, or None for all.
    """

    def __init__(self, sizes: Mapping[str, int], max_windows: int | None) -> None:
        self._taken = [
            [(name, int(window)) for window in np.linspace(0, size - 1, min(size, max_windows or size)).round()]
            for name, size in sizes.items()
        ]
        self._order = [pair for taken in self._taken for pair in taken]

    def samples_by_source(self) -> list[list[int]]:
        """Sample numbers of each source."""
        ends = np.cumsum([0, *(len(taken) for taken in self._taken)]).tolist()
        return [list(range(start, end)) for start, end in pairwise(ends)]

    def locate(self, sample: int) -> tuple[str, int, int]:
        """Source, epoch (always 0) and window of a sample."""
        name, window = self._order[sample]
        return name, 0, window
