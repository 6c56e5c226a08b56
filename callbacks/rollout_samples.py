"""Rollout samples: responses of the policy during training with their rewards; they show why the numbers move."""

from typing import Any

import lightning

from callbacks.samples import write_samples
from common.errors import InputError


class RolloutSamples(lightning.Callback):
    """Appends responses of a batch of rollouts to `samples.jsonl`, with reward, monitored reward, KL and how
    they ended, and logs them to W&B as a table.

    Args:
        every_steps: batches of rollouts between them; the first one is always written.
        responses: of a batch, the first ones of the first rank.

    Raises:
        InputError: when either is below 1.
    """

    def __init__(self, every_steps: int = 50, responses: int = 8) -> None:
        if every_steps < 1 or responses < 1:
            raise InputError(f"every_steps={every_steps}, responses={responses}: both must be at least 1")
        self.every_steps, self.responses = every_steps, responses

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        step = trainer.global_step
        if trainer.is_global_zero and (step % self.every_steps == 0 or step == 1):
            write_samples(trainer, [{"step": step, **row} for row in pl_module.latest_responses(self.responses)])
