"""Finite-loss check: ends a run at the first optimizer step whose loss or gradient norm is NaN or infinite.

Weights that learned from it are lost, and nothing after it is worth its cost. Losses are read a step late, so that no
step waits for the device; what is saved has been judged. `callbacks.SpikeGuard` goes back instead and takes its place.
"""

import math
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor

from callbacks.async_scalars import AsyncScalars
from callbacks.spike_guard import SpikeGuard
from common.contracts import ResumableData, SpikeSkippingModule, attached_data
from common.errors import InputError
from common.run_folder import latest_checkpoint

EVALUATED = ("validation/bits_per_byte", "test/bits_per_byte", "validation/loss", "test/loss")
"""Beginnings of the names of metrics that are numbers wherever there is anything to evaluate."""


class FiniteLoss(lightning.Callback):
    """Stops training where a loss or gradient norm is NaN or infinite, and evaluation that gives none.

    A default of every run (`commands.training.defaults`); `enabled: false` trains on regardless.

    Args:
        enabled: whether to look.

    Raises:
        InputError: at the first such step, naming it and its samples; what was saved before it stays.
    """

    def __init__(self, enabled: bool = True) -> None:
        self.enabled = enabled
        self._pending: list[AsyncScalars] = []
        self._left_out = 0.0

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self._active = self.enabled and not any(isinstance(callback, SpikeGuard) for callback in trainer.callbacks)
        self._pending.clear()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if not self._active or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        found = [value.detach() for name, value in trainer.callback_metrics.items() if _is_loss(name)]
        if not found:
            return
        history = pl_module.norm_history if isinstance(pl_module, SpikeSkippingModule) else None
        total = zero_if_finite(found)
        left_out = total.new_zeros(()) if history is None else history.skipped
        reading = AsyncScalars(trainer.global_step, total, left_out)
        self._pending.append(reading)
        self._judge(trainer, 0 if reading.arrived else 1)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        self._judge(trainer, 0)

    def settle(self, trainer: Any, pl_module: Any) -> None:
        """Judge every step there was, before one is saved."""
        self._judge(trainer, 0)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        self._judge_evaluation(trainer)

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        self._judge_evaluation(trainer)

    def _judge(self, trainer: Any, unread: int) -> None:
        while len(self._pending) > unread:
            reading = self._pending.pop(0)
            total, left_out = reading.values()
            was_left_out, self._left_out = left_out > self._left_out, left_out
            if math.isfinite(total) or was_left_out:
                continue
            run = Path(trainer.default_root_dir)
            data, newest = attached_data(trainer), latest_checkpoint(run)
            samples = data.samples_of_step(reading.step) if isinstance(data, ResumableData) else []
            named = f" (samples {samples[0]} to {samples[-1]})" if samples else ""
            raise InputError(
                f"the loss or gradient norm of step {reading.step}{named} is NaN or infinite, and the weights that "
                "learned from it are lost: lower the learning rate or look at the samples; "
                f"{newest or 'no checkpoint'} is what was saved before, and callbacks.SpikeGuard goes back by itself"
            )

    def _judge_evaluation(self, trainer: Any) -> None:
        if not self._active or trainer.sanity_checking:
            return
        for name, value in trainer.callback_metrics.items():
            if name.startswith(EVALUATED) and not math.isfinite(float(value)):
                raise InputError(
                    f"{name}={float(value)} is NaN or infinite: the weights are lost, take an earlier checkpoint"
                )


def zero_if_finite(values: list[Tensor]) -> Tensor:
    """Scalar that is 0 where all scalars are numbers and NaN where one is not.

    Args:
        values: at least one, on the host or a device. Those on the host are read there: a copy to the device would make
            every step wait.
    """
    on_device = [value for value in values if value.device.type != "cpu"]
    on_host = [value for value in values if value.device.type == "cpu"]
    flag = 0.0 if all(math.isfinite(value) for value in on_host) else math.nan
    if not on_device:
        return torch.tensor(flag)
    return torch.stack([0.0 * value.float() for value in on_device]).sum() + flag


def _is_loss(name: str) -> bool:
    return name.startswith("train/") and ("loss" in name or name.endswith("gradient_norm"))
