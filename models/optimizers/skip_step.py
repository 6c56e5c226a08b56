"""Steps whose gradient is out of all proportion are left out, decided on the device.

Reading a norm back to decide would make every step wait for its own backward pass; instead the decision goes to the
optimizer as a flag in the device's memory, the same that float16's loss scaling uses, and the optimizer leaves weights
and moments as they were. The batch is lost and the run is not; which batch it was, the log of the norms tells.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from common.errors import InputError


@dataclass(frozen=True)
class SpikeSkip:
    """When a step is left out: always for a gradient that is no number, and for a norm far above the last ones.

    Args:
        deviations: standard deviations above the mean of the window; 6 is OLMo-core's (OLMo 2, section 3.1).
        window: norms remembered, 128 as there; judged from half of it on.

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
    """The last norms, a number that is none where there is none yet.

    Args:
        settings: what counts as a spike.
    """

    def __init__(self, settings: SpikeSkip) -> None:
        self.settings = settings
        self.norms = torch.full((settings.window,), torch.nan)
        self.skipped = torch.zeros(())

    def is_spike(self, norm: Tensor) -> Tensor:
        """Whether the step with this gradient norm is to be left out; boolean scalar on its device.

        What is remembered of a spike is the limit it exceeded: one of them does not hide the next, and norms that have
        risen for good are accepted after a while.
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
        """Norms and the number of steps left out."""
        return {"norms": self.norms.cpu(), "skipped": self.skipped.cpu()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue a run; its last norms are taken, as many as fit."""
        window = self.settings.window
        padded = torch.cat((torch.full((window,), torch.nan), state_dict["norms"]))
        self.norms, self.skipped = padded[-window:], state_dict["skipped"]
