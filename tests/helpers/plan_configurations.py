"""Configurations to plan, for tests."""

import copy
from pathlib import Path
from typing import Any

import yaml

from commands.training.defaults import TRAINER, merge_defaults
from strategies.planner.hardware import read_hardware
from tests.conftest import ROOT
from tests.strategies.planner.test_measured_memory import LAYOUTS, configuration

H100 = read_hardware(ROOT / "configs/hardware/h100.yaml")
SIZES = ("8b", "70b", "405b", "1t")


def size_configuration(name: str) -> dict[str, Any]:
    """A configuration of a size with the defaults of the command line, without the seconds that its parser takes."""
    found: dict[str, Any] = yaml.safe_load((ROOT / f"configs/pretrain/{name}.yaml").read_text())
    own = found["trainer"]
    for added in [key for key in own if key.endswith("+")]:
        kept = added.removesuffix("+")
        own[kept] = merge_defaults([*copy.deepcopy(TRAINER[kept]), *own.pop(added)])
    found["trainer"] = copy.deepcopy(TRAINER) | own
    return found


def small(tmp_path: Path, layout: str = "single", **trainer: Any) -> dict[str, Any]:
    world, strategy, arguments = LAYOUTS[layout]
    made = configuration(tmp_path, world, strategy, arguments)
    made["trainer"] |= trainer
    return made
