"""Asynchronous copies of per-step scalars from device to host, read a step later so that no step waits."""

from typing import Any

import torch
from torch import Tensor


class AsyncScalars:
    """Loss of an optimizer step and number of steps left out so far, on their way to the host.

    Args:
        step: optimizer steps completed with it.
        loss: scalar on the device, in nats per token.
        left_out: scalar on the device, see `models.optimizers.skip_step`.
    """

    def __init__(self, step: int, loss: Tensor, left_out: Tensor) -> None:
        self.step = step
        values = torch.stack((loss.detach().double(), left_out.to(loss.device).double()))
        self._values, self._copied = copy_to_host(values)

    @property
    def arrived(self) -> bool:
        """Whether the values are on the host already, as on a CPU."""
        return self._copied is None

    def values(self) -> tuple[float, float]:
        """Loss and number of steps left out; waits for the copy."""
        if self._copied is not None:
            self._copied.synchronize()
        loss, left_out = self._values.tolist()
        return loss, left_out


def copy_to_host(values: Tensor) -> tuple[Tensor, Any]:
    """Host tensor of the values and the event after which it is filled, None where it is filled already."""
    if values.device.type != "cuda":
        return values, None
    target = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    target.copy_(values, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record()
    return target, copied
