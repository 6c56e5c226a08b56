"""Metrics of rollouts: means over parts, signs of reward hacking, alarms."""

import math
from pathlib import Path

import pytest
import torch

from alignment import Alarms
from alignment.reinforcement.metrics import DistributedMeans, correlation, extremes, repetition
from tests.helpers.policy_training import Length, train
from tests.helpers.rollouts import CPU


def test_sums_are_means_over_all_that_was_added() -> None:
    sums, others = DistributedMeans(CPU), DistributedMeans(CPU)
    sums.add("a", torch.tensor([1.0, 3.0]), torch.tensor([1.0, 0.0]))
    others.add("a", torch.tensor([5.0]))
    sums.include(others)
    sums.add("nothing", torch.zeros(0))
    for microbatch in (0.25, 0.75):
        sums.add_part("part", torch.tensor(microbatch), 0.5)
    means = sums.means()
    assert means["a"] == 3
    assert means["part"] == 1
    assert math.isnan(means["nothing"])


def test_signs_of_cheating() -> None:
    assert repetition([1, 2, 3]) == 0
    assert repetition([1, 2] * 6) == pytest.approx(1 - 2 / 9)
    x = torch.randn(30, dtype=torch.float64)
    y = x + torch.randn(30, dtype=torch.float64)
    assert correlation(x, y) == pytest.approx(torch.corrcoef(torch.stack((x, y)))[0, 1].item())
    assert correlation(x, torch.ones(30)) == 0
    assert extremes(torch.tensor([2.0, -1.0])) == (-1, 2)
    ringing = Alarms(0.8, 0.3, 0.5).ringing(0.9, 0.1, 0.4)
    assert ringing == {"alarms/length_correlation": 1, "alarms/repetition": 0, "alarms/unfinished": 1}


@pytest.mark.end_to_end
def test_length_that_is_rewarded_rings(tmp_path: Path) -> None:
    record = train(str(tmp_path), settings={"reward": Length()}, options={"max_steps": 1})
    assert record.steps[0]["alarms/length_correlation"] == 1
    assert record.steps[0]["train/length_correlation"] == pytest.approx(1)
