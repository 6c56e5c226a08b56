"""Comparison of a plan with its run: predicted and measured memory, step time and throughput.

Only the run's own files count (`run.json`, `metrics.csv`, its saved configuration), so that a run of last month on
another machine can be compared with today's formulas.
"""

import argparse
import json
import statistics
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from commands.plan.hardware_choice import FOLDER, hardware_of
from commands.plan.setup import setup_of
from commands.run_facts import read_run_facts
from common.errors import InputError
from common.run_folder import read_config, read_metrics
from strategies.planner.hardware import Hardware
from strategies.planner.peak_memory import rank_memory
from strategies.planner.step_time import model_flops_of_step, step_time


@dataclass(frozen=True)
class Comparison:
    """One quantity, predicted and measured, with its unit."""

    name: str
    unit: str
    predicted: float
    measured: float

    @property
    def difference(self) -> float:
        """Difference of the prediction from the measurement, relative to the measurement."""
        return self.predicted / self.measured - 1


def compare_with_run(run: Path, given: argparse.Namespace) -> None:
    """Compare a plan with its run and print both."""
    facts = read_facts(run)
    hardware = hardware_of(given, "" if given.hardware else hardware_it_ran_on(run, facts, FOLDER))
    found = compare_run(run, hardware)
    if given.json:
        print(json.dumps([asdict(row) | {"difference": row.difference} for row in found], indent=1))
        return
    print(f"{run}: {facts['device']}")
    print(comparison_table(found, facts))


def compare_run(run: Path, hardware: Hardware) -> list[Comparison]:
    """Comparisons of peak memory of every pipeline rank, step time and tokens per second.

    Tensors are compared with tensors: on a CPU those of the first steps and what a process takes beside them, on a GPU
    those its allocator counted. What the allocator reserved is a row of its own there, beside the plan with the
    overhead of the device, which also has what no allocator sees: context and communication.

    Args:
        run: a run's folder.
        hardware: it ran on; its rate of products is taken from the run, where that was measured.

    Raises:
        InputError: when the folder holds no finished run, or one whose memory was not recorded.
    """
    facts = read_facts(run)
    configuration = read_config(run)
    peak = facts["matmul_peak_flops"]
    # The run measured what products reach at best, which no datasheet states.
    hardware = replace(hardware, bf16_flops=peak, float32_flops=peak) if hardware.device == "cpu" else hardware
    whole = setup_of(configuration, hardware, facts["devices"])
    *before, setup = replace(whole, steps=facts["steps"]).phases()
    warmup = sum(phase.steps for phase in before)
    measured = memory_of(facts)
    overhead = hardware.overhead if hardware.device == "cpu" else 0.0
    reserved = facts.get("reserved_memory_bytes") or [None]
    if setup.sizes.world != len(measured):
        raise InputError(f"{run}/run.json: {len(measured)} ranks were measured, the configuration has {setup.sizes}")
    each = len(measured) // setup.sizes.pp
    found = []
    for rank in range(setup.sizes.pp):
        of_rank = f", pipeline rank {rank}" if setup.sizes.pp > 1 else ""
        most = max(measured[rank * each : (rank + 1) * each])
        planned = rank_memory(setup, rank, overhead).total
        found.append(Comparison(f"peak memory{of_rank}", "MB", planned / 1e6, most / 1e6))
        if None not in reserved:
            most = max(reserved[rank * each : (rank + 1) * each])
            planned = rank_memory(setup, rank, hardware.overhead).total
            found.append(Comparison(f"reserved memory{of_rank}", "MB", planned / 1e6, most / 1e6))
    rates = [
        float(value)
        for step, _, name, value in read_metrics(run)
        if name == "throughput/tokens_per_second" and step > warmup
    ]
    if not rates:
        raise InputError(
            f"--verify {run}: it logged no throughput after step {warmup}, when its batches had grown to {setup.rows} "
            "windows: train longer"
        )
    # The first steps allocate, compile and read.
    rate = statistics.median(rates[1:] or rates)
    seconds = step_time(setup, hardware).total
    found.append(Comparison("step time", "s", seconds, setup.step_tokens / rate))
    found.append(Comparison("tokens per second", "", setup.step_tokens / seconds, rate))
    flops = model_flops_of_step(setup)
    share = peak * setup.sizes.world
    found.append(
        Comparison("share of peak", "%", 100 * flops / seconds / share, 100 * flops * rate / setup.step_tokens / share)
    )
    return found


def read_facts(run: Path) -> dict[str, Any]:
    """Facts of a finished run, `run.json`.

    Raises:
        InputError: when the folder holds no finished run, or one whose memory or throughput was not recorded.
    """
    needed = ("peak_memory_bytes", "matmul_peak_flops", "steps", "devices")
    facts = read_run_facts(run, f"--verify {run}", needed)
    if not facts["peak_memory_bytes"] or None in facts["peak_memory_bytes"]:
        raise InputError(f"--verify {run}: its run.json has no peak_memory_bytes, it did not end or ran elsewhere")
    if not any(row[2] == "throughput/tokens_per_second" for row in read_metrics(run)):
        raise InputError(f"--verify {run}: it logged no throughput, train for more than log_every_n_steps steps")
    return facts


def memory_of(facts: dict[str, Any]) -> list[int]:
    """Peak memory of each rank in bytes: of its first steps where freed pages were left out, else of the run."""
    of_first_steps = facts.get("first_steps_memory_bytes") or [None]
    peak: list[int] = facts["peak_memory_bytes"] if None in of_first_steps else of_first_steps
    return peak


def counts_freed_memory(facts: dict[str, Any]) -> bool:
    """Whether the peak of a run includes freed pages that its C library kept."""
    counted = facts.get("device_type") != "cpu" or facts.get("returns_freed_memory", False)
    return not counted and None in (facts.get("first_steps_memory_bytes") or [None])


def hardware_it_ran_on(run: Path, facts: dict[str, Any], folder: Path) -> str:
    """Name of the file of `folder` that describes the device of a run.

    Raises:
        InputError: when none does, or several do.
    """
    if facts.get("device_type") == "cpu":
        return "cpu"
    device = "".join(character for character in facts["device"].lower() if character.isalnum())
    names = sorted(path.stem for path in folder.glob("*.yaml"))
    # "NVIDIA A100-SXM4-40GB" is described by a100_40gb.
    found = [name for name in names if all(part in device for part in name.split("_"))]
    if len(found) != 1:
        raise InputError(
            f"--verify {run}: it ran on {facts['device']}, say which --hardware that is: {', '.join(names)}"
        )
    return found[0]


def comparison_table(found: list[Comparison], facts: dict[str, Any]) -> str:
    """Table of predicted and measured values.

    Args:
        found: see `compare_run`.
        facts: of the run, see `read_facts`.
    """
    lines = [f"  {'':<30}{'predicted':>14}{'measured':>14}{'difference':>12}"]
    lines += [
        f"  {row.name:<30}{row.predicted:>10,.4g} {row.unit:<3}{row.measured:>10,.4g} {row.unit:<3}"
        f"{row.difference:>+11.1%}"
        for row in found
    ]
    if counts_freed_memory(facts):
        lines.append("  memory: with pages that the C library kept; runs of this version count tensors alone on glibc")
    if any(row.name.startswith("reserved") for row in found):
        lines.append("  reserved memory: planned with context and communication, which the allocator does not see")
    return "\n".join(lines)
