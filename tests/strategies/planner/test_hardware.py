"""Files of configs/hardware: what cannot be is refused, by name."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from commands.plan.command import plan
from common.errors import InputError
from tests.helpers.corpus import ROOT
from tests.helpers.planner import small


@pytest.mark.parametrize("changes", [
    {"network_bandwidth": 0}, {"storage_bandwidth": 0}, {"link_bandwidth": 0}, {"memory_bandwidth": 0},
    {"bf16_flops": 0}, {"gpus_per_node": 0}, {"gpus_per_node": 7.5}, {"mtbf_hours": 0}, {"matmul_share": 0},
    {"price": "much"}, {"network_bandwidth": None}, {"latency_link": -1.0}, {"link_share": 1.5},
    {"tensor_dispatch": -1}, {"tensor_dispatch": float("inf")}, {"tensor_dispatch": "fast"},
])  # fmt: skip
def test_hardware_that_cannot_be(changes: dict[str, Any], tmp_path: Path) -> None:
    path, (name, value) = tmp_path / "h100.yaml", *changes.items()
    loaded = yaml.safe_load((ROOT / "configs/hardware/h100.yaml").read_text())
    part = next(part for part in ("datasheet", "measured", "operation") if name in loaded[part])
    loaded[part][name] = value
    path.write_text(yaml.safe_dump(loaded))
    with pytest.raises(InputError) as raised:
        plan(["--config", "X", "--hardware", str(path)], lambda _: (small(tmp_path), []))
    assert "\n" not in str(raised.value)
    assert str(value) in str(raised.value)


def test_hardware_without_8_bit_units(tmp_path: Path) -> None:
    loaded = yaml.safe_load((ROOT / "configs/hardware/h100.yaml").read_text())
    loaded["datasheet"]["float8_flops"] = loaded["operation"]["price"] = loaded["measured"]["latency_link"] = 0
    (tmp_path / "h100.yaml").write_text(yaml.safe_dump(loaded))
    plan(["--config", "X", "--hardware", str(tmp_path / "h100.yaml")], lambda _: (small(tmp_path), []))


def test_files_that_say_too_little_or_too_much(tmp_path: Path) -> None:
    text = (ROOT / "configs/hardware/h100.yaml").read_text()
    path = tmp_path / "h100.yaml"
    for content, refusal in (
        ("", "it has no datasheet"),
        ("- 1", "it has no datasheet"),
        (text.replace("measured:", "guessed:"), "it has no measured"),
        (text.replace("  tensor_dispatch: 0\n", ""), "no tensor_dispatch in it, add it"),
        (
            text.replace("  tensor_dispatch: 0\n", "  tensor_dispatch: 0\n  luck: 1\n"),
            "luck is nothing that a plan reads",
        ),
        (text.replace("device: cuda", "device: tpu"), "device=tpu must be cuda or cpu"),
        ("{", "hardware="),
    ):
        path.write_text(content)
        with pytest.raises(InputError, match=refusal) as raised:
            plan(["--config", "X", "--hardware", str(path)], lambda _: (small(tmp_path), []))
        assert "\n" not in str(raised.value)
