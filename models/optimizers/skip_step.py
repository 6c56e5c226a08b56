"""Skip-step: optimizer steps with an outlier gradient norm are skipped, decided on the device (OLMo 2).

Reading a norm back to decide would make each step wait for its own backward pass; instead the decision goes to the
optimizer as a flag in device memory, the one that float16's loss scaling uses, and the optimizer keeps weights and
moments. The price is the batch of a skipped step; the logged norms show which one it was.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from common.errors import InputError


@dataclass(frozen=True)
class SpikeSkip:
    """Rule of skipped steps: a gradient norm that is not finite, or far above the last ones.

    Args:
        deviations: standard deviations above the mean of the window; 6 is OLMo-core's (OLMo 2, section 3.1).
        window: norms in the window, 128 in OLMo-core; the rule applies once it is half full.

    Raises:
        InputError: for a value out of its range.
    """

    deviations: float = 6.0
    window: int = 128

    def __post_init__(self) -> None:
        if not self.deviations > 0 or self.window < 4:
            raise InputError(
                f"spike_skip.deviations={self.deviations}, spike_skip.window={self.window}: need deviations above 0 "
                "and a window of at least 4"
            )


class NormHistory:
    """Window of the last gradient norms, NaN where there is none yet.

    Args:
        settings: rule of skipped steps.
    """

    def __init__(self, settings: SpikeSkip) -> None:
        self.settings = settings
        self.norms = torch.full((settings.window,), torch.nan)
        self.skipped = torch.zeros(())

    def is_spike(self, norm: Tensor) -> Tensor:
        """Whether to skip the step with this gradient norm, a boolean scalar on its device.

        The window keeps the limit that a spike exceeded: one spike does not hide the next, and norms that stay high are
        accepted after a while.
        """
        history = self.norms.to(norm.device, non_blocking=True)
        known = history.isfinite()
        count = known.sum()
        mean = history.where(known, 0).sum() / count.clamp(min=1)
        variance = (history - mean).square().where(known, 0).sum() / count.clamp(min=1)
        limit = mean + self.settings.deviations * variance.sqrt()
        limit = limit.where(count >= self.settings.window // 2, torch.inf)
        spike = ~((norm <= limit) & norm.isfinite())
        remembered = torch.minimum(norm, limit).where(norm.isfinite(), torch.nan)
        self.norms = torch.cat((history[1:], remembered[None]))
        self.skipped = self.skipped.to(norm.device, non_blocking=True) + spike
        return spike

    def state_dict(self) -> dict[str, Any]:
        """Norms and the count of skipped steps."""
        return {"norms": self.norms.cpu(), "skipped": self.skipped.cpu()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from the last norms of a checkpoint, as many as fit."""
        window = self.settings.window
        padded = torch.cat((torch.full((window,), torch.nan), state_dict["norms"]))
        self.norms, self.skipped = padded[-window:], state_dict["skipped"]
