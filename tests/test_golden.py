"""Ten steps from text to losses, held against recorded values: any change of the numbers is noticed."""

from pathlib import Path

import pytest

from common.run_folder import read_metrics
from main import main
from tests.helpers.corpus import Configure

GOLDEN = [6.251915, 6.22808, 6.220119, 6.176888, 6.116947, 6.011523, 5.896752, 5.873526, 5.804179, 5.774833]
"""Losses of the first 10 float32 steps of the tiny configuration; another CPU agrees to 1e-4."""


@pytest.mark.end_to_end
def test_losses_of_the_first_ten_steps(configure: Configure, tmp_path: Path) -> None:
    main(["fit", "--config", str(configure(trainer__max_steps=10))])
    rows = read_metrics(tmp_path / "run")
    losses = [float(value) for _, _, name, value in rows if name == "train/loss"]
    assert len(losses) == 10
    assert max(abs(a - b) for a, b in zip(losses, GOLDEN, strict=True)) < 1e-4, f"{losses}"
