"""Comparison of a plan with its run."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from callbacks.metrics_table import write_metrics
from commands.plan.command import plan
from commands.plan.hardware_choice import FOLDER
from commands.plan.setup import setup_of
from commands.plan.verify import Comparison, compare_run, hardware_it_ran_on
from common.errors import InputError
from strategies.planner.hardware import read_hardware
from strategies.planner.peak_memory import rank_memory
from tests.helpers.corpus import ROOT
from tests.helpers.planner import small


def finished_run(folder: Path, facts: dict[str, Any]) -> Path:
    """What a run leaves behind that was planned by `small`."""
    (folder / "run.json").write_text(json.dumps({"matmul_peak_flops": 5e14, "devices": 1, "steps": 2} | facts))
    (folder / "config.yaml").write_text(yaml.safe_dump(small(folder)))
    rates = [[step, "0", "throughput/tokens_per_second", "1e5"] for step in (1, 2)]
    write_metrics(folder, rates)
    return folder


def test_a_gpus_tensors_are_held_against_tensors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As written by an H100: its 3 GB beside tensors are in nothing that its allocator counts."""
    h100 = read_hardware(FOLDER / "h100.yaml")
    tensors = rank_memory(setup_of(small(tmp_path), h100)).total
    measured = {"peak_memory_bytes": [tensors], "reserved_memory_bytes": [tensors + 0.5e9]}
    run = finished_run(tmp_path, {"device": "NVIDIA H100 80GB HBM3", "device_type": "cuda"} | measured)
    found = {row.name: row for row in compare_run(run, h100)}
    assert found["peak memory"].difference == pytest.approx(0)
    assert found["reserved memory"].measured == pytest.approx((tensors + 0.5e9) / 1e6)
    assert found["reserved memory"].predicted == pytest.approx((tensors + 3e9) / 1e6)
    plan(["--verify", str(run)], lambda _: ({}, []))
    printed = capsys.readouterr().out
    assert "reserved memory" in printed
    assert "the C library" not in printed


def test_a_cpus_first_steps_are_held_against_tensors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = {"device": "AMD EPYC x 2 (AVX2)", "device_type": "cpu", "peak_memory_bytes": [900e6]}
    cpu = read_hardware(FOLDER / "cpu.yaml")
    for further, expected in (({}, 900), ({"first_steps_memory_bytes": [700e6]}, 700)):
        run = finished_run(tmp_path, facts | further)
        found = {row.name: row for row in compare_run(run, cpu)}
        assert found["peak memory"].measured == expected
        assert "reserved memory" not in found
        plan(["--verify", str(run)], lambda _: ({}, []))
        assert ("pages that the C library kept" in capsys.readouterr().out) == (not further)


@pytest.mark.parametrize(
    ("device", "kind", "expected"),
    [
        ("AMD EPYC x 2 (AVX2)", "cpu", "cpu"),
        ("NVIDIA H100 80GB HBM3", "cuda", "h100"),
        ("NVIDIA A100-SXM4-40GB", "cuda", "a100_40gb"),
        ("NVIDIA A100 80GB PCIe", "cuda", "a100_80gb"),
        ("NVIDIA L4", "cuda", None),
    ],
)
def test_a_run_is_held_against_what_it_ran_on(device: str, kind: str, expected: str | None) -> None:
    facts = {"device": device, "device_type": kind}
    if expected is not None:
        assert hardware_it_ran_on(Path("run"), facts, FOLDER) == expected
        return
    with pytest.raises(InputError, match="it ran on NVIDIA L4, say which --hardware that is"):
        hardware_it_ran_on(Path("run"), facts, FOLDER)


def test_a_run_is_held_against_the_batches_it_reached(tmp_path: Path) -> None:
    """4 steps of one window, then two: memory and rates are those of the last size, whatever `auto` was."""
    made = small(tmp_path, devices="auto", max_steps=10)
    plain = {row.name: row.predicted for row in _held_against(tmp_path, made, 6)}
    made["data"]["init_args"]["batch_size_warmup"] = {"initial": 1, "increment": 1, "steps": 4}
    for steps, rate in ((6, 200.0), (3, 100.0)):
        found = {row.name: row for row in _held_against(tmp_path, made, steps)}
        assert found["tokens per second"].measured == rate
        assert (found["peak memory"].predicted == plain["peak memory"]) == (steps == 6)
    with pytest.raises(InputError, match="no throughput after step 4, when its batches had grown to 2 windows"):
        _held_against(tmp_path, made, 6, logged=4)


def _held_against(run: Path, made: dict[str, Any], steps: int, logged: int = 10) -> list[Comparison]:
    facts = {"steps": steps, "devices": 1, "matmul_peak_flops": 1e10, "peak_memory_bytes": [10**9]}
    (run / "config.yaml").write_text(yaml.safe_dump(made))
    (run / "run.json").write_text(json.dumps(facts))
    rates = [(step, 100.0 if step <= 4 else 200.0) for step in range(1, min(steps, logged) + 1)]
    (run / "metrics.csv").unlink(missing_ok=True)
    write_metrics(run, [(s, "0", "throughput/tokens_per_second", repr(rate)) for s, rate in rates])
    return compare_run(run, read_hardware(ROOT / "configs/hardware/cpu.yaml"))
