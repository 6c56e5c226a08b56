"""Checks of the Trainer's arguments before anything is built: values that Lightning takes and that go wrong here."""

from datetime import timedelta
from typing import Any

import torch
from lightning.pytorch.accelerators import AcceleratorRegistry
from lightning.pytorch.strategies import StrategyRegistry

from commands.mistakes import did_you_mean
from common.errors import InputError
from datamodules.resumable import ResumableDataModule


def check_trainer(trainer: Any, trains: bool) -> None:
    """Refuse arguments of the Trainer that would train nothing, or fail hours later.

    Args:
        trainer: namespace of `trainer` in a configuration.
        trains: whether the command is `fit`.

    Raises:
        InputError: for the first of them.
    """
    strategies = {"auto", *StrategyRegistry.available_strategies()}
    if isinstance(strategy := trainer.get("strategy"), str) and strategy not in strategies:
        hint = did_you_mean(strategy, strategies) or ", take auto"
        raise InputError(f"trainer.strategy={strategy}: no strategy is called so{hint}")
    if str(devices := trainer.get("devices")) in ("0", "[]"):
        raise InputError(f"trainer.devices={devices}: must be at least 1, or auto for all")
    if (steps := trainer.get("max_steps")) is not None and steps < -1:
        raise InputError(f"trainer.max_steps={steps}: must be at least 1, or -1 for no limit")
    if isinstance(accelerator := trainer.get("accelerator"), str):
        known = ["auto", "gpu", *AcceleratorRegistry.available_accelerators()]
        if accelerator not in known:
            hint = did_you_mean(accelerator, known) or f", take one of {', '.join(known)}"
            raise InputError(f"trainer.accelerator={accelerator}: no accelerator is called so{hint}")
        # The class and not an instance, which needs the device's own libraries.
        classes = [AcceleratorRegistry[accelerator]["accelerator"]] if accelerator in AcceleratorRegistry else []
        there = torch.accelerator.is_available() if accelerator == "gpu" else all(one.is_available() for one in classes)
        if not there:
            raise InputError(f"trainer.accelerator={accelerator}: this machine has none, take auto or cpu")
    for name in ("accumulate_grad_batches", "log_every_n_steps"):
        value = trainer.get(name)
        if value is not None and value < 1:
            raise InputError(f"trainer.{name}={value}: must be at least 1")
    interval = trainer.get("val_check_interval")
    if isinstance(interval, str | timedelta | dict):
        raise InputError(
            f"trainer.val_check_interval={interval}: give a number of micro-batches, a time is not resumed exactly"
        )
    if interval is not None and interval <= 0:
        raise InputError(
            f"trainer.val_check_interval={interval}: must be above 0; for no validation set trainer.limit_val_batches=0"
        )
    if trainer.get("overfit_batches"):
        raise InputError(
            f"trainer.overfit_batches={trainer.overfit_batches}: samples are numbered and not drawn by a loader, add "
            "--config configs/debug/overfit.yaml"
        )
    if trains and trainer.get("limit_train_batches") == 0:
        raise InputError("trainer.limit_train_batches=0 trains nothing: leave it out, or take `llm validate`")


def check_epochs(trainer: Any, data: Any) -> None:
    """Refuse epochs for data whose order of samples never ends.

    Lightning would cut it into epochs by batches, and a run continued at such a cut trains one step of the next epoch
    and stops.

    Args:
        trainer: namespace of `trainer` in a configuration of `fit`.
        data: the data module; only a `ResumableDataModule` is endless.

    Raises:
        InputError: for a limit in epochs, and for a number of batches of an epoch.
    """
    if not isinstance(data, ResumableDataModule) or trainer.get("fast_dev_run"):
        return
    found = {name: trainer.get(name) for name in ("max_epochs", "min_epochs", "limit_train_batches")}
    for name, value in found.items():
        if value not in ((None, 1.0) if name == "limit_train_batches" else (None, -1)):
            raise InputError(
                f"trainer.{name}={value}: the order of samples never ends, there are no epochs to count; set "
                "trainer.max_steps"
            )
