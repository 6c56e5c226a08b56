"""The command `fit --dry-run`: layout, parameters, memory and schedule of a run, checked on the meta device.

The strategies build each rank without allocating it and count its parameters, which is slower than the plan's formulas
and proves them for this configuration; memory and time are those of the plan.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from commands.plan.hardware_choice import FOLDER
from commands.plan.setup import checkpoint_steps, saves_asynchronously, setup_of
from commands.plan.units import format_bytes, format_count, format_duration
from common.errors import InputError
from models.flops import parameters
from strategies.planner.batch_size_phases import over_batch_sizes
from strategies.planner.hardware import read_hardware
from strategies.planner.meta_ranks import View, views
from strategies.planner.peak_memory import rank_memory
from strategies.planner.plan import make_plan
from strategies.planner.schedule_simulation import in_flight


def dry_run(arguments: list[str], resolve: Callable[[list[str]], tuple[dict[str, Any], list[Path]]]) -> None:
    """Check a configuration of `fit` without its GPUs; exit status 1 where it does not fit the memory.

    Args:
        arguments: `fit` and its arguments; `--hardware NAME` names a file of configs/hardware.
        resolve: function from arguments to the whole configuration.

    Raises:
        InputError: for what the strategies refuse.
    """
    name, rest = _hardware(arguments)
    configuration, _ = resolve(rest)
    if name is None:
        name = "cpu" if configuration["trainer"].get("accelerator") == "cpu" else "h100"
        print(f"hardware: {name} is assumed, --hardware names another")
    hardware = read_hardware(Path(name) if name.endswith(".yaml") else FOLDER / f"{name}.yaml")
    began = time.monotonic()
    setup = setup_of(configuration, hardware)
    found = list(views(setup))
    wrong = [view for view in found if view.built != view.planned]
    whole = _whole(found, setup.sizes.tp, setup.config.layers)
    print(f"{setup.sizes.world} ranks: {setup.sizes}; {format_count(parameters(setup.config), 4)} parameters")
    print(f"  {'stage ranks':<13}{'blocks':<18}{'parameters held':>17}{'in flight':>11}{'memory':>12}")
    for view in (view for view in found if view.shard_rank == 0):
        memory = rank_memory(setup, view.pp_rank, hardware.overhead)
        flying = "-"
        if setup.sizes.pp > 1:
            layout = (setup.schedule, setup.sizes.pp, setup.stages_per_rank, setup.microbatches)
            flying = str(max(map(sum, in_flight(*layout, view.pp_rank))))
        print(
            f"  {f'pp {view.pp_rank}':<13}{_ranges(view.blocks):<18}{view.built:>17,}{flying:>11}"
            f"{format_bytes(memory.total):>12}"
        )
    if wrong or not whole:
        view = (wrong or found)[0]
        raise RuntimeError(
            f"the plan counts {view.planned} parameters on pipeline rank {view.pp_rank}, shard {view.shard_rank}, and "
            f"the strategies made {view.built}: the formulas of strategies/planner/parameter_counts.py are out of date"
        )
    plan = make_plan(setup, hardware, saves_asynchronously(configuration), checkpoint_steps(configuration))
    plan = over_batch_sizes(plan, setup, hardware)
    step = f"step {format_duration(plan.time.total)}, {plan.utilization:.1%} MFU"
    if setup.sizes.pp > 1:
        step += f"; {setup.schedule} of {setup.microbatches} micro-batches, bubble {plan.time.bubble:.1%}"
    print(f"{step}; {plan.days:.1f} days")
    verdict = "fits" if plan.fits else "DOES NOT FIT"
    print(
        f"worst rank {format_bytes(plan.memory.total)} of {format_bytes(plan.limit)} ({hardware.name}): {verdict}; "
        f"built and checked in {time.monotonic() - began:.1f} s"
    )
    if not plan.fits:
        sys.exit(1)


def _hardware(arguments: list[str]) -> tuple[str | None, list[str]]:
    name, rest, left = None, [], iter(arguments)
    for argument in left:
        option, equals, value = argument.partition("=")
        if option != "--hardware":
            rest.append(argument)
            continue
        name = value if equals else next(left, "")
        if not name:
            raise InputError("--hardware: name a file of configs/hardware")
    return name, rest


def _whole(found: list[View], tp: int, layers: int) -> bool:
    """Whether every block is on exactly one rank of the pipeline."""
    blocks = sorted(block for view in found if view.shard_rank == 0 for block in view.blocks)
    return blocks == list(range(layers))


def _ranges(numbers: tuple[int, ...]) -> str:
    """Numbers as ranges, such as 0-7, 64-71."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], number]
        else:
            parts.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)
