"""The command `plan`: memory, time and cost of a run, from the configuration that `fit` reads.

Nothing of the run is built, so that a laptop plans for a cluster in seconds; what only the machine knows (how fast its
kernels are) comes from configs/hardware and can be compared with a finished run by `--verify`.
"""

import argparse
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from commands.argument_parser import CommandArguments
from commands.plan.overlay import overlay_of, same_step
from commands.plan.setup import checkpoint_steps, saves_asynchronously, setup_of
from commands.plan.tables import format_bytes, over_training_lines, plan_table, search_table
from commands.plan.verify import compare_run, comparison_table, hardware_it_ran_on, read_facts
from common.errors import InputError
from strategies.planner.batch_size_phases import over_batch_sizes
from strategies.planner.hardware import Hardware, read_hardware
from strategies.planner.layout_search import search
from strategies.planner.plan import make_plan
from strategies.planner.scaling_laws import BESIROGLU, HOFFMANN

FOLDER = Path(__file__).parents[2] / "configs/hardware"
LAWS = (HOFFMANN, BESIROGLU)
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
    made.add_argument("--price", type=float, help="of a GPU-hour, in any currency")
    made.add_argument(
        "--mtbf_hours", type=float, help="mean hours between failures of one GPU with its share of the rest"
    )
    made.add_argument("--memory_limit", type=float, help="GB a device; by default all it has")
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
    given, rest = parser().parse_known_args(arguments)
    if given.budget is not None:
        _refuse_beside(f"--budget {given.budget:g}", given, rest, ("budget", "json"))
        compute_optimal(given)
        return
    if given.verify is not None:
        _refuse_beside(
            f"--verify {given.verify}", given, [], ("verify", "json", "hardware", "price", "mtbf_hours", "memory_limit")
        )
        compare_with_run(Path(given.verify), given, rest)
        return
    if not rest:
        raise InputError("plan: give --config FILE as for fit, or --verify RUN, or --budget FLOPS")
    if given.output and not given.search:
        raise InputError(f"--output {given.output}: it is where --search writes its layout, add --search")
    configuration, _ = resolve(["fit", *rest])
    hardware = hardware_of(given, "cpu" if configuration["trainer"].get("accelerator") == "cpu" else "h100")
    if given.search:
        search_layout(given, configuration, hardware)
        return
    setup = setup_of(configuration, hardware, given.devices)
    made = make_plan(setup, hardware, saves_asynchronously(configuration), checkpoint_steps(configuration))
    made = over_batch_sizes(made, setup, hardware)
    if given.json:
        print(json.dumps(made.as_json() | {"hardware": hardware.name, "devices": setup.sizes.world}, indent=1))
    else:
        print(plan_table(setup, hardware, made, LAWS))


def _refuse_beside(said: str, given: argparse.Namespace, rest: Sequence[str], used: Sequence[str]) -> None:
    """Refuse arguments that would have no effect."""
    unused = [f"--{name}" for name, value in vars(given).items() if value not in (None, False) and name not in used]
    if unused or rest:
        raise InputError(f"plan {said}: does not use {' '.join([*unused, *rest])}, leave that out")


def hardware_of(given: argparse.Namespace, otherwise: str) -> Hardware:
    """Hardware named by `--hardware`, or `otherwise`, with the values given on the command line."""
    name = given.hardware or otherwise
    path = Path(name) if name.endswith(".yaml") else FOLDER / f"{name}.yaml"
    limit = None if given.memory_limit is None else given.memory_limit * 1e9
    return read_hardware(path, price=given.price, mtbf_hours=given.mtbf_hours, memory=limit)


def search_layout(given: argparse.Namespace, configuration: dict[str, Any], hardware: Hardware) -> None:
    """Search layouts, print the best, and write the overlay of the fastest."""
    setup = setup_of(configuration, hardware, given.devices, accepted=False)
    setup = same_step(setup, configuration, given.devices)
    found = search(setup, hardware, setup.sizes.world)
    if given.json:
        best = [
            {"layout": c.name(), "step_seconds": c.seconds, "memory": asdict(c.memory), "time": asdict(c.time)}
            | {"overlay": overlay_of(c.setup, configuration, hardware.gpus_per_node)}
            for c in found.best
            if c.time is not None
        ]
        print(json.dumps({"best": best, "tried": found.tried, "refused": found.refused}, indent=1))
    else:
        print(search_table(found, hardware))
    if given.output:
        if not found.best:
            raise InputError(
                f"--output {given.output}: no layout fits {format_bytes(hardware.memory)}, give more --devices or "
                "memory"
            )
        path = Path(given.output)
        path.parent.mkdir(parents=True, exist_ok=True)
        header = f"# Found by plan --search for {setup.sizes.world} x {hardware.name}: {found.best[0].name()}\n"
        overlay = overlay_of(found.best[0].setup, configuration, hardware.gpus_per_node)
        path.write_text(header + yaml.safe_dump(overlay, sort_keys=False), encoding="utf-8")
        if not given.json:
            print(f"written: {path}")


def compare_with_run(run: Path, given: argparse.Namespace, rest: Sequence[str]) -> None:
    """Compare a plan with its run and print both."""
    if rest:
        raise InputError(f"plan --verify {run}: the run's own configuration is read, leave out {' '.join(rest)}")
    facts = read_facts(run)
    hardware = hardware_of(given, "" if given.hardware else hardware_it_ran_on(run, facts, FOLDER))
    found = compare_run(run, hardware)
    if given.json:
        print(json.dumps([asdict(row) | {"difference": row.difference} for row in found], indent=1))
        return
    print(f"{run}: {facts['device']}")
    print(comparison_table(found, facts))


def compute_optimal(given: argparse.Namespace) -> None:
    """Print the compute-optimal model size and tokens of a budget, by published scaling laws."""
    if not 0 < given.budget < math.inf:
        raise InputError(f"--budget {given.budget}: must be a number of FLOPs above 0, as 1e24")
    if given.json:
        found = {}
        for law in LAWS:
            parameters, tokens = law.optimum(given.budget)
            loss = law.loss(parameters, tokens)
            found[law.name] = {"parameters": parameters, "tokens": tokens, "loss": loss}
        print(json.dumps(found, indent=1))
        return
    for law in LAWS:
        print("\n".join(over_training_lines(law, given.budget)))
