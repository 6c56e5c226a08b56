"""Checkpoint callback: saves the run at an interval of steps and keeps the newest.

Lightning's ModelCheckpoint remembers in its own state which files it wrote, and that state is one file behind after
a kill; this callback looks at the folder instead and has no state. Use ModelCheckpoint beside it to keep the best.
"""

import signal
import time
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Checkpoint

from callbacks.preemption import StopRequest, exit_status
from common.contracts import SettlingCallback
from common.errors import InputError
from common.run_folder import CHECKPOINTS, abandoned_checkpoints, checkpoint_name, checkpoint_step, checkpoints


def log_now(trainer: lightning.Trainer) -> None:
    """Write the step's metrics to every log, on disk: a run killed after its checkpoint never logs that step again.

    Lightning logs after the callbacks of a step, and a logger that is given the same step's metrics twice keeps one.
    """
    connector = trainer._logger_connector
    if trainer.training and connector.should_update_logs:
        connector.log_metrics(connector.metrics["log"])
    for logger in trainer.loggers:
        logger.save()


def align_batch_counts(trainer: lightning.Trainer) -> None:
    """Set Lightning's count of micro-batches to this run's; the checkpoint may have had another number per step."""
    if trainer.num_training_batches == float("inf"):
        counts = trainer.fit_loop.epoch_loop.batch_progress.current
        shift = trainer.global_step * trainer.accumulate_grad_batches - counts.ready
        for name in ("ready", "started", "processed", "completed"):
            setattr(counts, name, getattr(counts, name) + shift)


def set_later_checkpoints_aside(run: Path, step: int) -> None:
    """Rename the checkpoints of a run after a step: they are about to be written again."""
    for path in checkpoints(run):
        if checkpoint_step(path) > step:
            aside = path.with_name(f"{path.name}.abandoned-{time.strftime('%Y%m%d-%H%M%S')}")
            print(f"starting before {path}: it is now {aside.name}")
            path.rename(aside)


class Checkpoints(Checkpoint):
    """Writes `checkpoints/step=N.ckpt` under the run's folder; a signal to stop writes one more and ends the run.

    Args:
        every_steps: optimizer steps between checkpoints; the last step is always saved.
        keep: newest checkpoints kept, and as many of those set aside; older ones are deleted after a new one is whole.

    Raises:
        InputError: when either is below 1.
    """

    def __init__(self, every_steps: int = 1000, keep: int = 2) -> None:
        if every_steps < 1 or keep < 1:
            raise InputError(f"every_steps={every_steps}, keep={keep}: both must be at least 1")
        self.every_steps, self.keep = every_steps, keep
        self._after_validation = False
        self._saved_step: int | None = None
        self._stop_request, self._stopping = StopRequest(), 0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        self._stop_request.install(trainer)
        align_batch_counts(trainer)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        # Gradients accumulated half-way are not part of a checkpoint.
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        self._stopping = self._stop_request.agreed()
        due = trainer.global_step % self.every_steps == 0 and trainer.global_step != self._saved_step
        if self._stopping or due:
            self._settle(trainer, pl_module)
            # A run killed between the checkpoint and the validation of one step would never validate there.
            self._after_validation = trainer.enable_validation and (batch_idx + 1) % trainer.val_check_batch == 0
            if not self._after_validation:
                self.save(trainer)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        if self._after_validation:
            self._after_validation = False
            self.save(trainer)

    def teardown(self, trainer: lightning.Trainer, pl_module: Any, stage: str) -> None:
        self._stop_request.remove()

    def on_train_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        if trainer.global_step != self._saved_step:
            self._settle(trainer, pl_module)
            self.save(trainer)

    def _settle(self, trainer: Any, pl_module: Any) -> None:
        for callback in trainer.callbacks:
            if isinstance(callback, SettlingCallback):
                callback.settle(trainer, pl_module)

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        self._saved_step = checkpoint["global_step"]

    def save(self, trainer: lightning.Trainer) -> None:
        """Write the checkpoint of this step if that is not done, and delete old ones; on all ranks.

        `fast_dev_run` writes none: the next run would continue from it.
        """
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        run = Path(trainer.default_root_dir)
        if trainer.global_step != self._saved_step:
            log_now(trainer)
            trainer.save_checkpoint(run / CHECKPOINTS / checkpoint_name(trainer.global_step), weights_only=False)
        self._saved_step = trainer.global_step
        if trainer.is_global_zero:
            for path in [*checkpoints(run)[: -self.keep], *abandoned_checkpoints(run)[: -self.keep]]:
                trainer.strategy.remove_checkpoint(path)
        if self._stopping:
            if trainer.is_global_zero:
                name = signal.Signals(self._stopping).name
                print(f"stopped by {name} after step {trainer.global_step}, run the same command again to continue")
            # The launcher takes another status of a rank for its failure.
            raise SystemExit(exit_status(self._stopping) if trainer.is_global_zero else 0)
