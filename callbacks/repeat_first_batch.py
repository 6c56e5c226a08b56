"""Overfitting on one batch: a check that a model can learn at all.

The batch is replaced where Lightning hands it to the model, so that data, order of samples and checkpoints know nothing
of it; `trainer.overfit_batches` would need loaders that end.
"""

from typing import Any

import lightning

from common.errors import InputError


class RepeatFirstBatch(lightning.Callback):
    """Callback that puts the first training batch in the place of every later one."""

    def __init__(self) -> None:
        self._first: dict[str, Any] | None = None

    def on_train_batch_start(self, trainer: lightning.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if not isinstance(batch, dict):
            raise InputError(
                f"callbacks.RepeatFirstBatch: a batch is a {type(batch).__name__}, it repeats dictionaries"
            )
        if self._first is None:
            self._first = dict(batch)
        batch.clear()
        batch.update(self._first)
