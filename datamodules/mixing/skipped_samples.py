"""Ranges of sample numbers excluded from training.

Ranges are of sample numbers and not of optimizer steps, so a run that was killed skips the same samples again, with any
number of ranks. The price is arithmetic around the ranges wherever samples are counted.
"""

from bisect import bisect_right
from collections.abc import Iterable
from typing import Any

from common.errors import InputError

Ranges = list[tuple[int, int]]
"""Half-open, [first, stop), ascending, none touching the next."""


class SkippedSamples:
    """Sample numbers that training skips.

    Args:
        ranges: pairs (first, stop) of sample numbers, in any order; stop is excluded.

    Raises:
        InputError: for a pair that is no range of sample numbers.
    """

    def __init__(self, ranges: Iterable[Any] = ()) -> None:
        self.ranges: Ranges = []
        for pair in ranges:
            self.add(*_checked(pair))

    def add(self, first: int, stop: int) -> None:
        """Skip samples first .. stop - 1 as well."""
        _checked((first, stop))
        joined: Ranges = []
        for begin, end in sorted([*self.ranges, (first, stop)]):
            if joined and begin <= joined[-1][1]:
                joined[-1] = (joined[-1][0], max(joined[-1][1], end))
            else:
                joined.append((begin, end))
        self.ranges = joined

    def after(self, start: int, count: int) -> int:
        """The sample number after `count` taken samples, counted from `start`; never a skipped one.

        Args:
            start: a sample number, skipped or not.
            count: samples taken, at least 0.
        """
        place = start + count
        for first, stop in self.ranges[bisect_right(self.ranges, start, key=lambda pair: pair[1]) :]:
            if place < first:
                break
            place += stop - max(first, start)
        return place

    def take(self, start: int, count: int) -> list[int]:
        """The next `count` sample numbers from `start` on."""
        if not self.ranges or start >= self.ranges[-1][1]:
            return list(range(start, start + count))
        return [self.after(start, number) for number in range(count)]

    def within(self, start: int, stop: int) -> int:
        """Number of skipped samples among start .. stop - 1."""
        return sum(max(min(stop, end) - max(start, first), 0) for first, end in self.ranges)


def _checked(pair: Any) -> tuple[int, int]:
    whole = isinstance(pair, (list, tuple)) and len(pair) == 2 and all(type(number) is int for number in pair)
    if not whole or not 0 <= pair[0] < pair[1]:
        raise InputError(
            f"skipped samples {pair}: must be two whole numbers (first, stop), 0 <= first < stop; the checkpoint or "
            "spikes.jsonl is damaged, restore it"
        )
    return pair[0], pair[1]
