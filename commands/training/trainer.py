"""Lightning's Trainer; `fit` resumes from the newest checkpoint by default.

A run that was killed is started again by the same command; the price is that a run from the initial weights in a
folder that holds one has to be asked for with `resume: false`.
"""

import contextlib
from pathlib import Path
from typing import Any

import lightning

from common.errors import InputError
from common.run_folder import checkpoint_step, checkpoints, latest_checkpoint
from common.run_lock import run_lock


class Trainer(lightning.Trainer):
    """Lightning's Trainer whose `fit` continues from the newest checkpoint in the run's folder."""

    @property
    def newest_checkpoint(self) -> Path | None:
        """The last complete checkpoint in the run's folder."""
        return latest_checkpoint(Path(self.default_root_dir))

    def fit(
        self,
        model: Any,
        train_dataloaders: Any = None,
        val_dataloaders: Any = None,
        datamodule: Any = None,
        ckpt_path: str | Path | None = None,
        weights_only: bool | None = True,
        resume: bool = True,
    ) -> None:
        """Train, continuing from the newest checkpoint in the run's folder.

        Args:
            model: the LightningModule.
            train_dataloaders: loaders in place of a datamodule.
            val_dataloaders: likewise.
            datamodule: the LightningDataModule.
            ckpt_path: checkpoint to continue from instead.
            weights_only: checkpoints are read without running code; nothing else is supported.
            resume: false for a run from the initial weights, whose folder must then be empty.

        Raises:
            InputError: for a checkpoint that is not there, a folder that another process trains in, and a run from the
                initial weights in a folder that holds a checkpoint.
        """
        # The first process decides for all: it is there before the others are started.
        with run_lock(Path(self.default_root_dir)) if self.is_global_zero else contextlib.nullcontext():
            self._fit(model, train_dataloaders, val_dataloaders, datamodule, ckpt_path, weights_only, resume)

    def _fit(
        self,
        model: Any,
        train_dataloaders: Any,
        val_dataloaders: Any,
        datamodule: Any,
        ckpt_path: str | Path | None,
        weights_only: bool | None,
        resume: bool,
    ) -> None:
        newest = self.newest_checkpoint
        if ckpt_path is not None and not Path(ckpt_path).exists():
            raise InputError(f"ckpt_path={ckpt_path} does not exist: correct it, or leave it out for the newest")
        if ckpt_path is None and newest is not None:
            if not resume:
                raise InputError(f"resume=false, but {newest} exists: move it away or set trainer.default_root_dir")
            ckpt_path = newest
            if self.is_global_zero:
                for path in checkpoints(Path(self.default_root_dir)):
                    if checkpoint_step(path) > checkpoint_step(newest):
                        print(f"{path} is empty and no checkpoint", flush=True)
                print(f"continuing from {newest}", flush=True)
        step = checkpoint_step(Path(ckpt_path)) if ckpt_path else 0
        if 0 < self.max_steps <= step and self.is_global_zero:
            print(f"already trained to step {step}: raise trainer.max_steps to train further")
        # A layout is checked against the data before processes are started; Lightning attaches the data after.
        self.datamodule = datamodule
        super().fit(model, train_dataloaders, val_dataloaders, datamodule, ckpt_path, weights_only)

    def require_checkpoint(self, path: str | None) -> str:
        """`path`, or the newest checkpoint of the run.

        Raises:
            InputError: when the run has none.
        """
        found = path or self.newest_checkpoint
        if found is None:
            raise InputError(
                f"no checkpoint in {self.default_root_dir}/checkpoints: train first (fit), or give --ckpt_path"
            )
        return str(found)
