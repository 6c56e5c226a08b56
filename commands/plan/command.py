"""The command `plan`: memory, time and cost of a run, from the configuration that `fit` reads.

Nothing of the run is built, so that a laptop plans for a cluster in seconds; what only the machine knows (how fast its
kernels are) comes from configs/hardware and can be compared with a finished run by `--verify`.
"""

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from commands.argument_parser import CommandArguments
from commands.plan.budget import compute_optimal
from common.errors import InputError

NUMBERS = {"price": True, "mtbf_hours": False, "memory_limit": False, "budget": False}
"""Options that are numbers, and whether they may be 0."""
Resolve = Callable[[list[str]], tuple[dict[str, Any], list[Path]]]


def parser() -> CommandArguments:
    """Parser of the arguments that are not those of `fit`."""
    made = CommandArguments(
        "plan", "everything else (--config FILE, --config OVERLAY, --key value) is read as fit reads it"
    )
    made.add_argument(
        "--hardware",
        help="name in configs/hardware or a file; by default cpu or h100, by accelerator, or what RUN ran on",
    )
    made.add_argument("--devices", type=int, help="number of GPUs in place of trainer.devices x trainer.num_nodes")
    made.add_argument("--price", type=float, help="price of a GPU-hour, in any currency")
    made.add_argument(
        "--mtbf_hours", type=float, help="mean hours between failures of one GPU with its share of the rest"
    )
    made.add_argument("--memory_limit", type=float, help="GB per device; by default all it has")
    made.add_argument("--search", action="store_true", help="find the fastest layout that fits")
    made.add_argument("--output", help="with --search: where to write the overlay that fit takes as a second --config")
    made.add_argument("--verify", metavar="RUN", help="compare the plan with the finished run in this folder")
    made.add_argument(
        "--budget",
        type=float,
        metavar="FLOPS",
        help="optimal model size and tokens for these FLOPs; needs no --config",
    )
    made.add_argument("--json", action="store_true", help="print JSON")
    return made


def plan(arguments: list[str], resolve: Resolve) -> None:
    """Plan a run, search a layout, compare a plan with a run, or give the optimum of a budget.

    Args:
        arguments: arguments after the command's name.
        resolve: function from the arguments of `fit` to its whole configuration.

    Raises:
        InputError: for what cannot be planned.
    """
    given, rest = parser().parse_with_fit(arguments)
    for name, may_be_zero in NUMBERS.items():
        value = getattr(given, name)
        if value is not None and not (math.isfinite(value) and (value > 0 or (may_be_zero and value == 0))):
            raise InputError(f"--{name} {value:g}: must be {'at least' if may_be_zero else 'above'} 0 and finite")
    if given.budget is not None:
        _refuse_beside(f"--budget {given.budget:g}", given, rest, ("budget", "json"))
        compute_optimal(given.budget, given.json)
        return
    if given.verify is not None:
        _refuse_beside(
            f"--verify {given.verify}", given, [], ("verify", "json", "hardware", "price", "mtbf_hours", "memory_limit")
        )
        if rest:
            raise InputError(
                f"plan --verify {given.verify}: the run's own configuration is read, leave out {' '.join(rest)}"
            )
        if not Path(given.verify).exists():
            raise InputError(f"--verify={given.verify} does not exist: train that run first, or name another")
        from commands.plan.verify import compare_with_run

        compare_with_run(Path(given.verify), given)
        return
    if not rest:
        raise InputError("plan: give --config FILE as for fit, or --verify RUN, or --budget FLOPS")
    if given.output and not given.search:
        raise InputError(f"--output {given.output}: it is where --search writes its layout, add --search")
    configuration, _ = resolve(["fit", *rest])
    from commands.plan.planning import plan_run

    plan_run(given, configuration)


def _refuse_beside(said: str, given: argparse.Namespace, rest: Sequence[str], used: Sequence[str]) -> None:
    """Refuse arguments that would have no effect."""
    unused = [f"--{name}" for name, value in vars(given).items() if value not in (None, False) and name not in used]
    if unused or rest:
        raise InputError(f"plan {said}: {' '.join([*unused, *rest])} has no effect here, remove it")
