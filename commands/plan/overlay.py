"""Configuration overlay of a layout, as `plan --search` writes it.

`fit` takes it as a further `--config`, so that settings which the layout does not concern stay in their own file. Some
settings count micro-batches, whose number in a step the layout changes: the overlay sets these again.
"""

from dataclasses import replace
from typing import Any

from commands.plan.setup import world_of
from strategies.parallel.mesh import ARGUMENTS, MeshSizes
from strategies.planner.training_setup import TrainingSetup

IN_MICRO_BATCHES = ("val_check_interval", "limit_train_batches")
"""Arguments of the Trainer that count micro-batches where they are whole numbers; others count optimizer steps."""


def same_step(setup: TrainingSetup, configuration: dict[str, Any], devices: int | None) -> TrainingSetup:
    """The run with all windows of a step in one batch, which a search then divides among ranks and micro-batches.

    Args:
        setup: run on the devices to plan for.
        configuration: of `fit`.
        devices: number of devices where the configuration leaves it open.
    """
    trainer = configuration["trainer"]
    strategy = trainer.get("strategy")
    layout = (strategy.get("init_args") or {}) if isinstance(strategy, dict) else {}
    same = 1
    for axis in ("pp", "cp", "tp"):
        same *= layout.get(ARGUMENTS[axis]) or 1
    batches = setup.accumulate * max(1, world_of(trainer, devices) // same)
    return replace(
        setup,
        rows=setup.rows * batches,
        accumulate=1,
        warmup_batches=tuple((size * batches, steps) for size, steps in setup.warmup_batches),
        sizes=MeshSizes(pp=setup.sizes.world),
    )


def overlay_of(setup: TrainingSetup, configuration: dict[str, Any], gpus_per_node: int) -> dict[str, Any]:
    """Overlay of a layout; what counts micro-batches keeps its distance in optimizer steps.

    Args:
        setup: run in this layout.
        configuration: configuration of `fit` that the overlay is for.
        gpus_per_node: GPUs per machine.
    """
    overlay, trainer = setup.overlay(gpus_per_node), configuration["trainer"]
    before = trainer.get("accumulate_grad_batches") or 1
    for name in IN_MICRO_BATCHES:
        requested = trainer.get(name)
        # Fractions are of an epoch.
        if isinstance(requested, int) and requested > 0:
            overlay["trainer"][name] = max(1, round(requested / before)) * setup.accumulate
    if configuration["data"]["init_args"].get("batch_size_warmup") is not None:
        # One that begins with the full size may be larger than the layout's batches.
        overlay["data"]["init_args"].setdefault("batch_size_warmup", None)
    return overlay
