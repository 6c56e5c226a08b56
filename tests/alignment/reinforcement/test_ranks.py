"""Two ranks against one process, and a killed run against a whole one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alignment import GroupRelativeAdvantage, PPOUpdates
from alignment.reinforcement.kl import (
    AdaptiveKL,
    FixedKL,
    KLPenalty,
)
from alignment.reinforcement.policy_loss import (
    ClippedPolicyLoss,
)
from tests.helpers.distributed import run_ranks
from tests.helpers.policy_training import UNEQUAL, Length, Logged, assert_same_steps, train

LAYOUTS: dict[str, Any] = {"fsdp2": {}, "replicas": {"data_parallel_replicate_size": 2}, "ddp": "ddp"}


SETTINGS: dict[str, Callable[[], dict[str, Any]]] = {
    "ppo": lambda: {"kl": KLPenalty(AdaptiveKL(0.2, 0.01, 40)), "whiten_rewards": True},
    "on_cpu": lambda: {"reference_on_cpu": True},
    "grpo": lambda: {
        "advantage": GroupRelativeAdvantage(),
        "kl": KLPenalty(FixedKL(0.1), "k3", "loss"),
        "drop_zero_variance_groups": True,
        "policy_loss": ClippedPolicyLoss(aggregation="sequence_mean"),
        "group_size": 4,
        "reward": Length(),
    },
}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Logged]:
    """What one process logged, by settings."""
    folder = str(tmp_path_factory.mktemp("alone"))
    return {name: train(folder, settings=settings(), batch_size=4) for name, settings in SETTINGS.items()}


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("settings", "layout"),
    [("ppo", "fsdp2"), ("ppo", "replicas"), ("ppo", "ddp"), ("grpo", "fsdp2"), ("on_cpu", "fsdp2")],
)
def test_two_ranks_are_one_process(settings: str, layout: str, tmp_path: Path, alone: dict[str, Logged]) -> None:
    """Draws, whitening, token counts, KL divergences, clipping, several updates a batch: all over both ranks'
    tokens."""
    expected = alone[settings]
    ranks = run_ranks(2, train, str(tmp_path), 2, LAYOUTS[layout], SETTINGS[settings](), 2)
    drawn = [ranks[0].drawn[step] | ranks[1].drawn[step] for step in range(4)]
    assert drawn == expected.drawn
    assert settings != "grpo" or min(step["train/kept"] for step in expected.steps) < 1
    for rank in ranks:
        assert_same_steps(rank.steps, expected.steps, 2e-4)
        assert rank.validations[0] == pytest.approx(expected.validations[0], abs=1e-4)
    assert len({len(response) for responses in expected.drawn[0].values() for response in responses}) > 1


@pytest.mark.end_to_end
def test_a_killed_run_goes_on_with_the_same_rollouts_and_losses(tmp_path: Path) -> None:
    more = {"optimization": PPOUpdates(2, 2, 60)}
    whole = train(str(tmp_path), settings=SETTINGS["ppo"]() | more, save=str(tmp_path / "half.ckpt"))
    again = train(str(tmp_path), settings=SETTINGS["ppo"]() | more, resume=str(tmp_path / "half.ckpt"))
    assert again.drawn == whole.drawn[2:]
    for mine, theirs in zip(again.steps, whole.steps[2:], strict=True):
        assert {n: mine[n] for n in mine.keys() - UNEQUAL} == {n: theirs[n] for n in theirs.keys() - UNEQUAL}
    coefficients = [step["train/kl_coefficient"] for step in whole.steps]
    assert len(set(coefficients)) == 4
