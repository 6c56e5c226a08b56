"""Configurations to plan, for tests."""

from pathlib import Path
from typing import Any

import yaml

from strategies.planner.hardware import read_hardware
from tests.conftest import ROOT
from tests.strategies.planner.test_measured_memory import LAYOUTS, configuration

H100 = read_hardware(ROOT / "configs/hardware/h100.yaml")
SIZES = ("8b", "70b", "405b", "1t")


def size_configuration(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / f"configs/pretrain/{name}.yaml").read_text())
    return found


def small(tmp_path: Path, layout: str = "single", **trainer: Any) -> dict[str, Any]:
    world, strategy, arguments = LAYOUTS[layout]
    made = configuration(tmp_path, world, strategy, arguments)
    made["trainer"] |= trainer
    return made
