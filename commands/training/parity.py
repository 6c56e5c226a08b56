"""`parity`: a parallel layout against one process, on a scaled-down twin of a configuration.

The twin keeps what a layout can get wrong (axes, schedule, grouped heads, tying, accumulation, clipping, precision) and
shrinks what it cannot (widths, layers, vocabulary), so that it runs in a minute on a laptop's CPU. Both runs are
ordinary `fit` commands; losses and gradient norms are compared by step, then parameters, checkpoint by checkpoint.
"""

import csv
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml

from commands.argument_parser import CommandArguments
from common.compute.cpu_threads import OURS
from common.errors import InputError
from common.run_folder import CHECKPOINTS, METRICS, checkpoint_name
from models.weights.single_file import read_checkpoint
from models.weights.source import WeightSource
from strategies.parallel.mesh import ARGUMENTS

SEQUENCE_LENGTH = 32
HEAD_WIDTH = 8
PROGRAM = [sys.executable, str(Path(__file__).parents[2] / "main.py")]
Resolve = Callable[[list[str]], tuple[dict[str, Any], list[Path]]]


def parity(arguments: list[str], resolve: Resolve) -> None:
    """Compare a layout with one process on a scaled-down twin; exit status 1 where they differ.

    Args:
        arguments: those after the command's name.
        resolve: makes the whole configuration of `fit` from its arguments.
    """
    parser = CommandArguments("parity", "everything else (--config FILE, --key value) is read as fit reads it")
    parser.add_argument("--steps", type=int, default=10, help="optimizer steps (default: 10)")
    parser.add_argument(
        "--tolerance",
        type=float,
        help="of losses and gradient norms, relative above 1; by default 1e-5 in float32, 5e-2 in bfloat16",
    )
    parser.add_argument(
        "--max_axis", type=int, default=2, help="axes of the mesh are cut down to this many processes (default: 2)"
    )
    given, rest = parser.parse_known_args(arguments)
    if not rest:
        raise InputError("parity: give --config FILE as for fit")
    configuration, _ = resolve(["fit", *rest])
    settings = configuration["model"]["init_args"]
    if settings.get("decoder") is None and settings.get("init_from"):
        settings["decoder"] = WeightSource(Path(settings["init_from"])).config
    if not compare(configuration, given.steps, given.tolerance, given.max_axis, PROGRAM):
        sys.exit(1)


class Twin(NamedTuple):
    """A small configuration in its layout, the same in one process, and what was made smaller."""

    spread: dict[str, Any]
    alone: dict[str, Any]
    processes: int
    changes: list[str]


def make_twin(configuration: dict[str, Any], steps: int, max_axis: int = 2) -> Twin:
    """Scale a configuration of `fit` down.

    Args:
        configuration: as `--print_config` gives it.
        steps: optimizer steps.
        max_axis: axes of the mesh larger than this are cut down to it.

    Raises:
        InputError: when its strategy is not one of this project's.
    """
    trainer, model = configuration["trainer"], configuration["model"]
    strategy = trainer.get("strategy")
    if not isinstance(strategy, dict) or not strategy["class_path"].startswith("strategies."):
        raise InputError(
            f"trainer.strategy={strategy}: parity compares strategies.TensorParallelStrategy and "
            "strategies.PipelineParallelStrategy with one process, take one of them"
        )
    layout, changes = dict(strategy.get("init_args") or {}), []
    devices = trainer["devices"] if isinstance(trainer["devices"], int) else 1
    world = devices * trainer.get("num_nodes", 1)
    others = math.prod(layout.get(name, 1) for axis, name in ARGUMENTS.items() if axis != "dp_shard")
    if layout.get(ARGUMENTS["dp_shard"], "auto") == "auto":
        layout[ARGUMENTS["dp_shard"]] = max(world // others, 1)
    for name in ARGUMENTS.values():
        if layout.get(name, 1) > max_axis:
            changes.append(f"{name} {layout[name]} -> {max_axis}")
            layout[name] = max_axis
    processes = math.prod(layout.get(name, 1) for name in ARGUMENTS.values())
    data_parallel = layout.get(ARGUMENTS["dp_shard"], 1) * layout.get(ARGUMENTS["dp_replicate"], 1)
    tensor, stages = (
        layout.get(ARGUMENTS["tp"], 1),
        layout.get(ARGUMENTS["pp"], 1) * (layout.get("stages_per_rank") or 2),
    )

    decoder = dict(model["init_args"]["decoder"])
    groups = decoder["heads"] // decoder["key_value_heads"]
    small = {
        "key_value_heads": tensor,
        "heads": tensor * min(groups, 2),
        "width": tensor * min(groups, 2) * HEAD_WIDTH,
        "head_width": HEAD_WIDTH,
        "feed_forward_width": 24 * tensor,
        "layers": max(2, stages),
        "vocabulary_size": 64 * tensor,
    }
    changes += [f"{name} {decoder.get(name)} -> {value}" for name, value in small.items() if decoder.get(name) != value]
    microbatches = layout.get("microbatches") or 1
    batch = 2 * microbatches
    accumulate = min(trainer.get("accumulate_grad_batches") or 1, 2)
    changes.append(f"batch {batch} windows of {SEQUENCE_LENGTH} random tokens, accumulated {accumulate} times")

    # Weights to begin with would not fit.
    given = {name: value for name, value in model["init_args"].items() if name != "init_from"}
    settings = given | {"decoder": decoder | small}
    settings["schedule"] = {"class_path": "models.Cosine", "init_args": {"warmup_steps": min(2, steps)}}

    def configure(strategy: dict[str, Any], processes: int, batch: int) -> dict[str, Any]:
        data = {"vocabulary_size": small["vocabulary_size"], "sequence_length": SEQUENCE_LENGTH, "batch_size": batch}
        return {
            "seed_everything": configuration.get("seed_everything", 0),
            "trainer": {
                "accelerator": "cpu",
                "devices": processes,
                "strategy": strategy,
                "precision": trainer.get("precision") or "32-true",
                "max_steps": steps,
                "accumulate_grad_batches": accumulate,
                "gradient_clip_val": trainer.get("gradient_clip_val"),
                "val_check_interval": accumulate * steps,
                "check_val_every_n_epoch": None,
                "num_sanity_val_steps": 1,
                "log_every_n_steps": 1,
                "enable_progress_bar": False,
                "enable_model_summary": False,
                "logger": [{"class_path": "callbacks.MetricsTable"}],
                "callbacks": [{"class_path": "callbacks.Checkpoints", "init_args": {"every_steps": 1, "keep": steps}}],
            },
            "model": model | {"init_args": settings},
            "data": {"class_path": "datamodules.RandomTokens", "init_args": data},
        }

    one = {"class_path": "strategies.TensorParallelStrategy"}
    spread = {"class_path": strategy["class_path"], "init_args": layout}
    return Twin(configure(spread, processes, batch), configure(one, 1, batch * data_parallel), processes, changes)


def write_configuration(configuration: dict[str, Any], folder: Path) -> Path:
    """A configuration as a YAML file beside the run it is for."""
    folder.mkdir(parents=True, exist_ok=True)
    configuration["trainer"]["default_root_dir"] = str(folder)
    path = folder / "parity.yaml"
    path.write_text(yaml.safe_dump(configuration), encoding="utf-8")
    return path


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
    """
    if steps < 1:
        raise InputError(f"steps={steps}: must be at least 1")
    twin = make_twin(configuration, steps, max_axis)
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
