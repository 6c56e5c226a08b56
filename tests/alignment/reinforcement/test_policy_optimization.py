"""Policy optimization in whole runs: steps, updates, early stop, skipped steps, and that it learns."""

import math
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from alignment import GAE, BatchNormalizedAdvantage, GroupRelativeAdvantage, LeaveOneOutAdvantage, PPOUpdates
from alignment.reinforcement.policy_loss import (
    ClippedPolicyLoss,
)
from models.initialization import build_decoder
from models.optimizers.adamw import AdamW
from models.optimizers.skip_step import SpikeSkip
from tests.helpers.policy_training import (
    CONFIG,
    Nothing,
    ppo,
    train,
)


@pytest.mark.end_to_end
def test_a_step_of_the_trainer_is_a_batch_of_rollouts(tmp_path: Path) -> None:
    """However many updates it makes: samples, schedule and counters follow the batches."""
    record = train(str(tmp_path), settings={"optimization": PPOUpdates(3, 2, 1000)})
    assert [sorted(drawn) for drawn in record.drawn] == [[4 * i + n for n in range(4)] for i in range(4)]
    assert [step["train/updates"] for step in record.steps] == [6] * 4
    rates = [step["train/learning_rate"] for step in record.steps]
    expected = [1e-2 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * i / 4))) for i in range(1, 5)]
    assert rates == pytest.approx(expected)
    assert len(record.validations) == 1
    assert record.validations[0]["validation/kl"] > 0


@pytest.mark.end_to_end
def test_bfloat16_drifts_and_is_weighed(tmp_path: Path) -> None:
    settings = {"policy_loss": ClippedPolicyLoss(importance_cap=2.0)}
    record = train(str(tmp_path), settings=settings, options={"precision": "bf16-mixed", "max_steps": 2})
    for step in record.steps:
        assert step["train/drift/smallest_ratio"] <= step["train/drift/ratio"] <= step["train/drift/largest_ratio"]
        assert step["train/drift/ratio"] == pytest.approx(1, abs=0.05)
        assert all(map(math.isfinite, step.values()))


@pytest.mark.end_to_end
def test_a_policy_that_has_gone_far_enough_is_left_alone(tmp_path: Path) -> None:
    """The first update of a batch is always made; here nothing further is."""
    record = train(str(tmp_path), settings={"optimization": PPOUpdates(4, 2, 1000, target_kl=1e-9)})
    assert [step["train/updates"] for step in record.steps] == [1] * 4
    record = train(str(tmp_path), settings={"optimization": PPOUpdates(4, 2, 1000, target_kl=1e9)})
    assert [step["train/updates"] for step in record.steps] == [8] * 4


@pytest.mark.end_to_end
def test_a_batch_that_teaches_nothing_moves_nothing(tmp_path: Path) -> None:
    """Momentum and decay would; the batch still counts as a step, and the schedule goes on."""
    changes = {
        "advantage": GroupRelativeAdvantage(),
        "drop_zero_variance_groups": True,
        "optimizer": AdamW(1e-2, weight_decay=0.1),
        "reward": Nothing(),
        "missing_eos_penalty": 0.0,
        "kl": None,
        "reference": None,
    }
    for updates in (PPOUpdates(2, 2), PPOUpdates(1, 1)):
        module = ppo(**changes, optimization=updates)
        record = train(str(tmp_path), module=module)
        assert [step["train/updates"] for step in record.steps] == [0] * 4
        assert [step["train/kept"] for step in record.steps] == [0] * 4
        assert [sorted(drawn) for drawn in record.drawn] == [[4 * i + n for n in range(4)] for i in range(4)]
        assert record.steps[-1]["train/learning_rate"] < record.steps[0]["train/learning_rate"]
        assert module.trainer.global_step == 4
        fresh = dict(build_decoder(CONFIG, module.initial_seed).named_parameters())
        for name, parameter in cast(Any, module.decoder).named_parameters():
            torch.testing.assert_close(parameter, fresh[name], rtol=0, atol=0)


@pytest.mark.end_to_end
def test_updates_with_a_spiking_gradient_are_left_out(tmp_path: Path) -> None:
    """Of the actor, whatever update of a batch it is; a batch still counts as one step."""
    record = train(
        str(tmp_path), settings={"spike_skip": SpikeSkip(0.1, window=4), "optimization": PPOUpdates(3, 2, 1000)}
    )
    skipped = [step["train/skipped_steps"] for step in record.steps]
    assert skipped == sorted(skipped)
    assert 0 < skipped[-1] < 24
    assert len(record.steps) == 4


@pytest.mark.end_to_end
@pytest.mark.parametrize(
    "settings",
    [
        {"advantage": GAE(), "critic_optimizer": AdamW(3e-2, weight_decay=0.0)},
        {"advantage": GroupRelativeAdvantage(), "kl": None, "reference": None},
        {"advantage": LeaveOneOutAdvantage()},
        {"advantage": BatchNormalizedAdvantage()},
    ],
    ids=["ppo", "grpo", "rloo", "reinforce++"],
)
def test_it_learns_to_say_what_is_rewarded(settings: dict[str, Any], tmp_path: Path) -> None:
    more = {"optimization": PPOUpdates(2, 1), "missing_eos_penalty": 0.0, "group_size": 4, "optimizer": AdamW(2e-2)}
    record = train(str(tmp_path), settings=more | settings, batch_size=8, options={"max_steps": 16})
    rewards = [step["train/reward"] for step in record.steps]
    assert rewards[0] < 0.2
    assert rewards[-1] > 0.6
    assert record.validations[-1]["validation/reward"] > 0.6
