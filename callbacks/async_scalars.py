"""Numbers of a step on their way from the device: asked for at once, read later, so that no step waits for its own."""

from typing import Any

import torch
from torch import Tensor


class AsyncScalars:
    """The loss of an optimizer step, and how many steps were left out up to it.

    Args:
        step: optimizer steps completed with it.
        loss: a scalar on the device, in nats a token.
        left_out: a scalar, see `models.optimizers.skip_step`.
    """

    def __init__(self, step: int, loss: Tensor, left_out: Tensor) -> None:
        self.step = step
        values = torch.stack((loss.detach().double(), left_out.to(loss.device).double()))
        self._values, self._copied = copy_to_host(values)

    @property
    def arrived(self) -> bool:
        """Whether there was no way to go, as on a CPU."""
        return self._copied is None

    def values(self) -> tuple[float, float]:
        """Loss and number of steps left out; waits for them."""
        if self._copied is not None:
            self._copied.synchronize()
        loss, left_out = self._values.tolist()
        return loss, left_out


def copy_to_host(values: Tensor) -> tuple[Tensor, Any]:
    """Where values will be on the host and the event after which they are there, None where they are there already."""
    if values.device.type != "cuda":
        return values, None
    target = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    target.copy_(values, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record()
    return target, copied
