"""Comparison of a twin's two runs: losses and gradient norms by step, then parameters, checkpoint by checkpoint.

Both runs are ordinary `fit` commands in processes of their own, so that what is compared is what a user runs.
"""

import csv
import math
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch

from commands.training.twin import make_twin, write_configuration
from common.compute.cpu_threads import OURS
from common.errors import InputError
from common.run_folder import CHECKPOINTS, METRICS, checkpoint_name
from models.weights.single_file import read_checkpoint


def first_difference(spread: Path, alone: Path, tolerance: float) -> str | None:
    """Name and size of the first parameter, in the model's order, that differs between two checkpoints.

    Differences are relative to the largest value of the parameter.
    """
    there, here = (read_checkpoint(path)["state_dict"] for path in (spread, alone))
    for name, expected in natural_order(here).items():
        if name not in there:
            return f"{name} is missing"
        difference = (there[name].double() - expected.double()).abs().max() / expected.double().abs().max().clamp(1e-12)
        if difference > tolerance:
            return f"{name} by {difference:.2e} of its largest value"
    return None


def largest_difference(left: list[float], right: list[float]) -> float:
    """Largest difference of two series, relative where the value is above 1."""
    if len(left) != len(right):
        return math.inf
    differences = [abs(a - b) / max(1.0, abs(b)) for a, b in zip(left, right, strict=True)]
    return max((math.inf if math.isnan(d) else d for d in differences), default=0.0)


def natural_order(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Parameters as the model applies them: embedding, blocks by number, then norm and output."""

    def key(name: str) -> tuple[int, int, str]:
        parts = name.split(".")
        if "layers" in parts:
            return 1, int(parts[parts.index("layers") + 1]), name
        return (0 if "tok_embeddings" in parts else 2), 0, name

    return {name: state_dict[name] for name in sorted(state_dict, key=key)}


def run(configuration: dict[str, Any], folder: Path, command: list[str]) -> dict[str, list[float]]:
    """Series of what a run logged, by name.

    Raises:
        InputError: with its last line when the run fails.
    """
    path = write_configuration(configuration, folder)
    launched = (OURS, "MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "RANK", "WORLD_SIZE")
    environment = {name: value for name, value in os.environ.items() if name not in launched} | {"OMP_NUM_THREADS": "1"}
    finished = subprocess.run(
        [*command, "fit", "--config", str(path)], env=environment, capture_output=True, text=True, check=False
    )
    if finished.returncode:
        reasons = [line for line in finished.stderr.splitlines() if line.startswith("error: ")]
        last = reasons[0].removeprefix("error: ") if reasons else finished.stderr.strip().splitlines()[-1]
        raise InputError(f"the twin with {configuration['trainer']['strategy']} does not run: {last}")
    series: dict[str, list[float]] = {}
    with (folder / METRICS).open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            series.setdefault(row["name"], []).append(float(row["value"]))
    return series


def compare(
    configuration: dict[str, Any], steps: int, tolerance: float | None, max_axis: int, command: list[str]
) -> bool:
    """Run the twin of a configuration both ways and print what each computed.

    Args:
        configuration: as `--print_config` gives it.
        steps: optimizer steps.
        tolerance: see `largest_difference`; by default 1e-5, with a bfloat16 precision 5e-2.
        max_axis: see `make_twin`.
        command: starts the command line in another process.

    Returns:
        Whether all losses and gradient norms agree.

    Raises:
        InputError: for a configuration of one process, and where a twin does not run.
    """
    twin = make_twin(configuration, steps, max_axis)
    if twin.processes == 1:
        raise InputError(
            "trainer.strategy: the configuration trains in one process, and parity compares a layout with that: add "
            "one, such as --config configs/layouts/tp2.yaml"
        )
    rounded = "bf16" in str(twin.alone["trainer"]["precision"])
    allowed = (5e-2 if rounded else 1e-5) if tolerance is None else tolerance
    print(f"a twin of {twin.processes} processes and one process, {twin.alone['trainer']['precision']}:")
    for change in twin.changes:
        print(f"  {change}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        there = run(twin.spread, folder / "spread", command)
        here = run(twin.alone, folder / "alone", command)
        names = ("train/loss", "train/gradient_norm", "validation/bits_per_byte/all")
        print(f"\n{'step':>5}{'loss':>12}{'one process':>13}{'gradient norm':>16}{'one process':>13}")
        for step in range(steps):
            row = [series[name][step] for name in names[:2] for series in (there, here)]
            print(f"{step + 1:>5}{row[0]:>12.6f}{row[1]:>13.6f}{row[2]:>16.6f}{row[3]:>13.6f}")
        worst = {name: largest_difference(there[name], here[name]) for name in names}
        print("\nlargest difference (relative above 1)")
        for metric, value in worst.items():
            print(f"  {metric:<30}{value:.1e}")
        same = max(worst.values()) <= allowed
        if not same:
            print(f"they differ: {_where(folder, steps, allowed)}")
    print(f"{'the same' if same else 'NOT the same'} within {allowed:.0e}")
    return same


def _where(folder: Path, steps: int, tolerance: float) -> str:
    for step in range(1, steps + 1):
        spread, alone = (folder / way / CHECKPOINTS / checkpoint_name(step) for way in ("spread", "alone"))
        found = first_difference(spread, alone, tolerance)
        if found:
            return f"after step {step} the first parameter that differs is {found}"
    return "no parameter differs by more than the tolerance, the losses are computed differently"
