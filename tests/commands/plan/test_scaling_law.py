"""The command `scaling_law`: a law of finished runs."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from callbacks.metrics_table import write_metrics
from commands.plan.scaling_law import read_point, scaling_law
from commands.plan.setup import setup_of
from common.errors import InputError
from strategies.planner.hardware import read_hardware
from tests.helpers.corpus import ROOT
from tests.helpers.planner import KNOWN, runs, small


def test_a_law_of_finished_runs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Folders as runs leave them, with the losses of a known law."""
    made = small(tmp_path)
    for number, point in enumerate(runs(KNOWN)):
        folder = tmp_path / f"run-{number}"
        folder.mkdir()
        chosen = json.loads(json.dumps(made))
        # The width gives the size, the steps the length; tokens of a step are 256.
        width = max(8, round(math.sqrt(point.parameters / 4e10)) * 8)
        chosen["model"]["init_args"]["decoder"] |= {"width": width, "layers": 1 + number % 3, "heads": 1,
                                                    "key_value_heads": 1, "head_width": 8}  # fmt: skip
        from models.flops import matmul_parameters

        chosen["trainer"]["max_steps"] = steps = 50 + 37 * (number % 5) + 400 * (number // 5)
        size = matmul_parameters(setup_of(chosen, read_hardware(ROOT / "configs/hardware/cpu.yaml")).config)
        (folder / "config.yaml").write_text(yaml.safe_dump(chosen))
        (folder / "run.json").write_text(json.dumps({"steps": steps, "devices": 1}))
        loss = KNOWN.loss(size, steps * 256)
        write_metrics(folder, [(step, "0", "train/loss", repr(loss)) for step in (steps - 1, steps)])
    picture = tmp_path / "law.png"
    scaling_law(str(tmp_path / "run-*"), output=str(picture), resamples=2)
    assert "20 runs" in capsys.readouterr().out
    assert picture.read_bytes()[:4] == b"\x89PNG"
    # Named twice, it is still one run.
    scaling_law([str(tmp_path / "run-*"), str(tmp_path / "run-1")], output=str(picture), resamples=0)
    assert "20 runs" in capsys.readouterr().out
    with pytest.raises(InputError, match="no folder matches"):
        scaling_law([str(tmp_path / "none-*")])
    for wrong, rule in (
        ({"tolerance": -1.0}, "lie in"),
        ({"resamples": -1}, "negative"),
        ({"output": "law.foo"}, "png"),
    ):
        with pytest.raises(InputError, match=rule):
            scaling_law([str(tmp_path / "run-*")], **wrong)


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
