"""Plan of a run, and the search for its layout: what `plan --config` prints.

A module of its own because it imports the strategies, which `plan --help` and `plan --budget` need not wait for.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from commands.plan.budget import LAWS
from commands.plan.hardware_choice import hardware_of
from commands.plan.overlay import overlay_of, same_step
from commands.plan.setup import checkpoint_steps, saves_asynchronously, setup_of
from commands.plan.tables import plan_table, search_table
from commands.plan.units import format_bytes
from common.errors import InputError
from strategies.planner.batch_size_phases import over_batch_sizes
from strategies.planner.hardware import Hardware
from strategies.planner.layout_search import search
from strategies.planner.plan import make_plan


def plan_run(given: argparse.Namespace, configuration: dict[str, Any]) -> None:
    """Print the plan of a run, or with `--search` the fastest layouts.

    Args:
        given: options of `plan`.
        configuration: of `fit`.

    Raises:
        InputError: for what no formula covers.
    """
    name = "cpu" if configuration["trainer"].get("accelerator") == "cpu" else "h100"
    hardware = hardware_of(given, name)
    if given.hardware is None and not given.json:
        print(f"hardware: {name} is assumed, --hardware names another")
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
