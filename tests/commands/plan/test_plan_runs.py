"""What is read from a finished run: by `plan --verify` and by `scaling_law`."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from callbacks.metrics_table import write_metrics
from commands.plan.verify import Comparison, compare_run, read_facts
from commands.scaling_law import read_point
from common.errors import InputError
from strategies.planner.hardware import read_hardware
from tests.commands.plan.test_plan import small
from tests.conftest import ROOT


@pytest.mark.parametrize("devices", [2, "auto", -1])
def test_tokens_of_a_run_by_what_it_saw(devices: Any, tmp_path: Path) -> None:
    """10 steps of 2 ranks x 2 windows of 128 tokens, but for the first 4, of half as many."""
    made = small(tmp_path, "fsdp2", devices=devices, max_steps=10)
    made["data"]["init_args"]["batch_size_warmup"] = {"initial": 1, "increment": 1, "steps": 4}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(made))
    (tmp_path / "run.json").write_text(json.dumps({"steps": 10, "devices": 2}))
    write_metrics(tmp_path, [(9, "0", "train/loss", "3.0")])
    assert read_point(tmp_path, "train/loss").tokens == (4 * 2 + 6 * 4) * 128
    (tmp_path / "run.json").write_text(json.dumps({"steps": 10}))
    with pytest.raises(InputError, match=r"run\.json has no devices"):
        read_point(tmp_path, "train/loss")


@pytest.mark.parametrize(
    ("content", "refusal"),
    [
        ('{"steps": 1, ', "its run.json is damaged"),
        ("[]", "its run.json is damaged"),
        ('{"devices": 1, "peak_memory_bytes": [1], "matmul_peak_flops": 1.0}', "its run.json has no steps"),
    ],
)
def test_damaged_facts_get_one_line(tmp_path: Path, content: str, refusal: str) -> None:
    for name in ("config.yaml", "metrics.csv"):
        (tmp_path / name).touch()
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(InputError, match=refusal):
        read_facts(tmp_path)
    with pytest.raises(InputError, match=refusal):
        read_point(tmp_path, "train/loss")


def test_a_run_is_held_against_the_batches_it_reached(tmp_path: Path) -> None:
    """4 steps of one window, then two: memory and rates are those of the last size, whatever `auto` was."""
    made = small(tmp_path, devices="auto", max_steps=10)
    plain = {row.name: row.predicted for row in _held_against(tmp_path, made, 6)}
    made["data"]["init_args"]["batch_size_warmup"] = {"initial": 1, "increment": 1, "steps": 4}
    for steps, rate in ((6, 200.0), (3, 100.0)):
        found = {row.name: row for row in _held_against(tmp_path, made, steps)}
        assert found["tokens a second"].measured == rate
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
