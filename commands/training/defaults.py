"""Defaults of every run: what a configuration need not say.

A configuration of `fit` says what differs from these. A list in YAML replaces a default list, as everywhere:

    trainer:
      callbacks: []          # none at all
      callbacks+:            # the defaults and these
        - class_path: callbacks.Throughput
        - class_path: callbacks.Checkpoints
          init_args: {every_steps: 100}

With `+` a class that is a default takes that one's place, whole with its arguments, so that the checkpoints above are
written every 100 steps and by nothing else. `Checkpoints` and `Report` always come last: they keep and show what the
other callbacks measured.
At Weights & Biases all runs are in the project `llm`, each by the name of its run folder; another project takes

    trainer:
      logger+:
        - class_path: lightning.pytorch.loggers.WandbLogger
          init_args: {project: mine, offline: true}
"""

from typing import Any

LAST = ("callbacks.Checkpoints", "callbacks.Report")
"""Callbacks that come after all others, in this order."""
CALLBACKS = ("callbacks.StepProgress", "callbacks.FiniteLoss", *LAST)
SWITCHES = {"callbacks.StepProgress": "enable_progress_bar", "callbacks.Checkpoints": "enable_checkpointing"}
"""Default callbacks that a switch of the Trainer leaves out, which Lightning would refuse beside it."""
WANDB = "lightning.pytorch.loggers.WandbLogger"
LOGGERS: list[dict[str, Any]] = [
    {"class_path": "callbacks.MetricsTable"},
    # Nothing leaves the machine; offline: false uploads, after `wandb login`.
    {"class_path": WANDB, "init_args": {"project": "llm", "offline": True}},
]
TRAINER: dict[str, Any] = {
    "accelerator": "auto",
    "precision": "bf16-mixed",
    "strategy": {"class_path": "strategies.TensorParallelStrategy"},
    "plugins": [{"class_path": "strategies.AtomicCheckpointIO"}],
    "logger": LOGGERS,
    "callbacks": [{"class_path": name} for name in CALLBACKS],
    # Runs are counted in steps; an epoch of pretraining data never ends.
    "check_val_every_n_epoch": None,
    # Validation costs minutes on large data, and a mistake in it shows at the first one anyway.
    "num_sanity_val_steps": 0,
    # Lightning's table counts parameters on the meta device as zero.
    "enable_model_summary": False,
    # The data distributes samples over ranks itself; Lightning's sampler would shuffle them.
    "use_distributed_sampler": False,
}
"""Arguments of the Trainer."""


def parser_defaults() -> dict[str, Any]:
    """The defaults by the names of the command line."""
    return {f"trainer.{name}": value for name, value in TRAINER.items()}


def merge_defaults(callbacks: Any) -> Any:
    """A list of callbacks or loggers in which a default class occurs once, the last one given, in the order above.

    Args:
        callbacks: entries with `class_path`; anything else is returned as it is.
    """
    if not isinstance(callbacks, list):
        return callbacks
    defaults = {*CALLBACKS, *(logger["class_path"] for logger in LOGGERS)}
    merged: list[Any] = []
    for entry in callbacks:
        name = _class_path(entry)
        place = next((i for i, other in enumerate(merged) if name in defaults and _class_path(other) == name), None)
        if place is None:
            merged.append(entry)
        else:
            merged[place] = entry
    return sorted(merged, key=lambda entry: LAST.index(_class_path(entry)) + 1 if _class_path(entry) in LAST else 0)


def is_switched_off(callback: Any, trainer: Any) -> bool:
    """Whether a callback is what one of the Trainer's own switches turns off.

    Args:
        callback: entry with `class_path`.
        trainer: arguments of the Trainer.
    """
    switch = SWITCHES.get(_class_path(callback))
    return switch is not None and trainer.get(switch) is False


def _class_path(entry: Any) -> str:
    """`callbacks.Report` for `callbacks.report.Report` too, which is the same class."""
    path = str(entry.get("class_path", "")) if hasattr(entry, "get") else type(entry).__name__
    package, _, name = path.partition(".")
    return f"{package}.{name.rpartition('.')[-1]}" if package == "callbacks" else path
