"""Named means: weighted by value, logged under their stage, and no part of a checkpoint."""

from typing import Any

import pytest
import torch

from alignment.named_means import NamedMeans, StepMeans


class Log:
    """Keeps what a module would log."""

    def __init__(self) -> None:
        self.found: dict[str, float] = {}

    def log(self, name: str, metric: Any) -> None:
        self.found[name] = float(metric.compute())

    def log_dict(self, values: dict[str, Any], sync_dist: bool) -> None:
        assert sync_dist
        self.found |= {name: float(value) for name, value in values.items()}


def test_every_value_counts_once_whatever_batch_it_came_in() -> None:
    means, log = NamedMeans(), Log()
    means.add("reward", torch.tensor([1.0, 2.0, 3.0]))
    means.add("reward", torch.tensor([10.0]))
    means.add("kl_per_token", torch.tensor([1.0, 3.0]), torch.tensor([1.0, 0.0]))
    means.log_to(log, "validation")
    assert log.found == {"validation/reward": 4.0, "validation/kl_per_token": 1.0}
    assert means.state_dict() == {}


def test_a_step_is_the_sum_of_its_micro_batches_shares_and_the_next_begins_at_zero() -> None:
    means, log = StepMeans(), Log()
    weight = torch.tensor([2.0, 4.0], requires_grad=True)
    means.add("margin", weight, 0.5)
    means.add("margin", torch.tensor([5, 7]), 0.5)
    means.log_to(log)
    assert log.found == {"train/margin": pytest.approx(4.5)}
    means.add("margin", torch.tensor([1.0]), 1.0)
    means.log_to(log)
    assert log.found == {"train/margin": 1.0}
