"""Learning-rate schedules: warm-up with cosine decay, and warmup-stable-decay (WSD).

Pure functions of (step, total steps), so that a resumed run computes them again instead of trusting saved state; the
price is that a schedule cannot react to the loss.
"""

import math
from abc import ABC, abstractmethod

from common.errors import InputError


class Schedule(ABC):
    """Learning-rate schedule: a factor on the peak learning rate at each step.

    Args:
        warmup_steps: steps of linear warm-up from 1 / warmup_steps to 1.
        final_fraction: factor at the last step.
    """

    def __init__(self, warmup_steps: int, final_fraction: float) -> None:
        if warmup_steps < 0:
            raise InputError(f"warmup_steps={warmup_steps}: must not be negative")
        if not 0 <= final_fraction <= 1:
            raise InputError(f"final_fraction={final_fraction}: must lie in [0, 1]")
        self.warmup_steps, self.final_fraction = warmup_steps, final_fraction

    def factor(self, step: int, total_steps: int) -> float:
        """Factor for the update number `step` (from 0) out of `total_steps`."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        progress = (step - self.warmup_steps + 1) / max(total_steps - self.warmup_steps, 1)
        return self.after_warmup(min(progress, 1.0))

    @abstractmethod
    def after_warmup(self, progress: float) -> float:
        """Factor at `progress` in (0, 1] of the steps after warm-up."""


class Cosine(Schedule):
    """Cosine decay from 1 to `final_fraction` (Loshchilov & Hutter 2017); a tenth is Chinchilla's.

    Args:
        warmup_steps, final_fraction: see `Schedule`.
    """

    def __init__(self, warmup_steps: int = 100, final_fraction: float = 0.1) -> None:
        super().__init__(warmup_steps, final_fraction)

    def after_warmup(self, progress: float) -> float:
        """1 at the start, `final_fraction` at the end."""
        return self.final_fraction + (1 - self.final_fraction) * 0.5 * (1 + math.cos(math.pi * progress))


class WarmupStableDecay(Schedule):
    """Warmup-stable-decay (WSD): constant, then linear decay (Hu et al. 2024).

    Args:
        warmup_steps, final_fraction: see `Schedule`.
        decay_fraction: share of the steps after warm-up that decay; 0.2 is that of Hägele et al. (2024).
    """

    def __init__(self, warmup_steps: int = 100, decay_fraction: float = 0.2, final_fraction: float = 0.0) -> None:
        super().__init__(warmup_steps, final_fraction)
        if not 0 < decay_fraction <= 1:
            raise InputError(f"decay_fraction={decay_fraction}: must lie in (0, 1]")
        self.decay_fraction = decay_fraction

    def after_warmup(self, progress: float) -> float:
        """1 until the decay begins, `final_fraction` at the end."""
        return 1 - (1 - self.final_fraction) * max(0.0, 1 - (1 - progress) / self.decay_fraction)
