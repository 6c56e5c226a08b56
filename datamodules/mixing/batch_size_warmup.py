"""Batch-size warm-up: micro-batches that begin small and grow to the full size.

Early gradients agree with each other, so few samples show the direction (McCandlish et al. 2018); small batches take
more steps from the same tokens. Every size is a tensor shape of its own, for which compiled code is compiled again.
"""

import itertools
from dataclasses import dataclass

from common.errors import InputError


@dataclass(frozen=True)
class BatchSizeWarmup:
    """Batch-size warm-up, as GPT-3 grew its batch over the first billions of tokens (Brown et al. 2020, section 2.3).

    Args:
        initial: windows in the first micro-batches.
        increment: windows added at each growth; each size lasts equally many steps, as in Megatron-LM.
        steps: optimizer steps until the full size.

    Raises:
        InputError: for a value out of its range.
    """

    initial: int
    increment: int
    steps: int

    def __post_init__(self) -> None:
        if min(self.initial, self.increment, self.steps) < 1:
            raise InputError(
                f"batch_size_warmup: initial={self.initial}, increment={self.increment}, steps={self.steps}: all must "
                "be at least 1"
            )

    def sizes(self, full: int) -> list[int]:
        """Sizes up to `full`, ascending."""
        return [*range(self.initial, full, self.increment), full]

    def size(self, step: int, full: int) -> int:
        """Windows in a micro-batch of optimizer step number `step`."""
        sizes = self.sizes(full)
        return sizes[min(step * (len(sizes) - 1) // self.steps, len(sizes) - 1)]

    def smaller(self, full: int) -> list[tuple[int, int]]:
        """Sizes below `full`, ascending, each with the optimizer steps that it lasts."""
        sizes = self.sizes(full)
        last = len(sizes) - 1
        starts = [-(-number * self.steps // max(1, last)) for number in range(last + 1)]
        return [(size, stop - start) for size, (start, stop) in zip(sizes, itertools.pairwise(starts), strict=False)]
