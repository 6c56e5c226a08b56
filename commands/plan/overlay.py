"""The overlay that `plan --search` writes: a layout in the words of `fit`, with what the layout changes the meaning of.

`fit` takes it as a further `--config`, so that everything the layout has nothing to do with stays where it was said.
"""

from dataclasses import replace
from typing import Any

from commands.plan.setup import world_of
from strategies.parallel.mesh import ARGUMENTS, MeshSizes
from strategies.planner.training_setup import TrainingSetup

IN_MICRO_BATCHES = ("val_check_interval", "limit_train_batches")
"""Of the Trainer's arguments, where they are whole numbers; others count optimizer steps or batches of evaluation."""


def same_step(setup: TrainingSetup, configuration: dict[str, Any], devices: int | None) -> TrainingSetup:
    """The run with all windows of a step in one batch: those of the configuration's layout on its own devices, to be
    dealt out anew.

    Args:
        setup: the run on the devices that it is to have.
        configuration: of `fit`.
        devices: all there are, where the configuration leaves that open.
    """
    trainer = configuration["trainer"]
    strategy = trainer.get("strategy")
    layout = (strategy.get("init_args") or {}) if isinstance(strategy, dict) else {}
    same = 1
    for axis in ("pp", "cp", "tp"):
        same *= layout.get(ARGUMENTS[axis]) or 1
    dealt = setup.accumulate * max(1, world_of(trainer, devices) // same)
    return replace(
        setup,
        rows=setup.rows * dealt,
        accumulate=1,
        warmup_batches=tuple((size * dealt, steps) for size, steps in setup.warmup_batches),
        sizes=MeshSizes(pp=setup.sizes.world),
    )


def overlay_of(setup: TrainingSetup, configuration: dict[str, Any], gpus_per_node: int) -> dict[str, Any]:
    """A layout for `fit`, with what counts micro-batches as many optimizer steps apart as before.

    Args:
        setup: the run in this layout.
        configuration: of `fit`, that the overlay is for.
        gpus_per_node: GPUs of a machine.
    """
    overlay, trainer = setup.overlay(gpus_per_node), configuration["trainer"]
    before = trainer.get("accumulate_grad_batches") or 1
    for name in IN_MICRO_BATCHES:
        asked = trainer.get(name)
        # Fractions are of an epoch.
        if isinstance(asked, int) and asked > 0:
            overlay["trainer"][name] = max(1, round(asked / before)) * setup.accumulate
    if configuration["data"]["init_args"].get("batch_size_warmup") is not None:
        # One that begins with the full size may be larger than the layout's batches.
        overlay["data"]["init_args"].setdefault("batch_size_warmup", None)
    return overlay
