"""Facts of a finished run that are missing or damaged."""

from pathlib import Path

import pytest

from commands.plan.scaling_law import read_point
from commands.plan.verify import read_facts
from common.errors import InputError


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
