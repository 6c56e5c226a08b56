"""Hardware of a plan: a name in configs/hardware or a file, with what the command line changes of it."""

import argparse
from pathlib import Path

from strategies.planner.hardware import Hardware, read_hardware

FOLDER = Path(__file__).parents[2] / "configs/hardware"


def hardware_of(given: argparse.Namespace, otherwise: str) -> Hardware:
    """Hardware named by `--hardware`, or `otherwise`, with the values given on the command line."""
    name = given.hardware or otherwise
    path = Path(name) if name.endswith(".yaml") else FOLDER / f"{name}.yaml"
    limit = None if given.memory_limit is None else given.memory_limit * 1e9
    return read_hardware(path, price=given.price, mtbf_hours=given.mtbf_hours, memory=limit)
