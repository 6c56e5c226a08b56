"""Reward shaping against rewards by hand: which token a score, a penalty and the KL divergence belong to."""

from typing import Any

import pytest
import torch
from torch import Tensor

from alignment import GAE, BatchNormalizedAdvantage, GroupRelativeAdvantage, LeaveOneOutAdvantage, PPOUpdates
from alignment.reinforcement.experience import (
    RewardShaping,
    token_rewards,
)
from alignment.reinforcement.kl import (
    FixedKL,
    KLPenalty,
    estimate,
)
from alignment.reinforcement.minibatches import split_minibatches
from alignment.reinforcement.rollouts import Rollouts
from tests.helpers.policy_training import EOS
from tests.helpers.rollouts import CPU, rollouts_of


def test_a_score_belongs_to_the_stop_token_itself() -> None:
    """Not to what comes after it, which is masked away (a known bug); the last token where there is none."""
    rollouts = rollouts_of(([4, 5, EOS], "stop"), ([6, 7], "length"), ([EOS], "stop"))
    rewards = token_rewards(torch.tensor([1.0, 2.0, 3.0]), rollouts.lengths)
    packed = rollouts.pack([0, 1, 2], CPU)
    placed = [(int(token), float(reward)) for token, reward in zip(packed.targets, rewards, strict=True) if reward]
    assert placed == [(EOS, 1.0), (7, 2.0), (EOS, 3.0)]
    scoring = RewardShaping(
        GAE(0.0, 0.0, whiten=False), None, 0.0, whiten_rewards=False, drop_zero_variance_groups=False
    )
    advantages, _, _ = scoring(rollouts, torch.tensor([1.0, 2.0, 3.0]), None, torch.full((6,), 0.5), lambda x: x)
    assert advantages.tolist() == [-0.5, -0.5, 0.5, -0.5, 1.5, 2.5]


def test_a_response_without_a_stop_token_costs_whatever_its_prompt_holds() -> None:
    rollouts = rollouts_of(([4, 5, EOS], "stop"), ([6, 7], "length"))
    scoring = RewardShaping(
        GroupRelativeAdvantage(divide_by_std=False), None, 1.0, whiten_rewards=False, drop_zero_variance_groups=False
    )
    together = Rollouts(rollouts.prompts, rollouts.responses, [0, 0], 2)
    advantages, returns, kept = scoring(together, torch.tensor([0.5, 0.5]), None, None, lambda x: x)
    assert advantages.tolist() == [0.5, 0.5, 0.5, -0.5, -0.5]
    assert returns is None
    assert kept.tolist() == [True, True]


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_kl_is_taken_off_every_tokens_reward(estimator: Any) -> None:
    rollouts, log_ratio = rollouts_of(([4, 5, EOS], "stop"), ([6, 7], "length")), torch.randn(5)
    penalty = KLPenalty(FixedKL(0.3), estimator)
    scoring = RewardShaping(
        BatchNormalizedAdvantage(), penalty, 0.0, whiten_rewards=False, drop_zero_variance_groups=False
    )
    seen: list[Tensor] = []

    class Watched(BatchNormalizedAdvantage):
        def __call__(self, rewarded: Any, reduce: Any = None) -> Any:
            seen.append(rewarded.rewards)
            return super().__call__(rewarded, reduce)

    scoring = RewardShaping(Watched(), penalty, 0.0, whiten_rewards=False, drop_zero_variance_groups=False)
    scoring(rollouts, torch.tensor([1.0, 2.0]), log_ratio, None, lambda x: x)
    expected = torch.tensor([0, 0, 1.0, 0, 2.0]) - 0.3 * estimate(estimator, log_ratio)
    torch.testing.assert_close(seen[0], expected)
    whitened = RewardShaping(Watched(), penalty, 0.0, whiten_rewards=True, drop_zero_variance_groups=False)
    whitened(rollouts, torch.tensor([1.0, 2.0]), log_ratio, None, lambda x: x)
    assert seen[1].mean().item() == pytest.approx(expected.mean().item(), abs=1e-5)
    assert seen[1].std().item() == pytest.approx(1, abs=1e-5)


def test_prompts_whose_responses_score_alike_are_left_out() -> None:
    rollouts = rollouts_of(*[([4, EOS], "stop")] * 4, group=2)
    scoring = RewardShaping(LeaveOneOutAdvantage(), None, 0.0, whiten_rewards=False, drop_zero_variance_groups=True)
    _, _, kept = scoring(rollouts, torch.tensor([1.0, 1.0, 0.0, 1.0]), None, None, lambda x: x)
    assert kept.tolist() == [False, False, True, True]
    (minibatch,) = split_minibatches(rollouts, kept, PPOUpdates(1, 1), 0, 0, lambda x: x, lambda x: x)
    assert sorted(minibatch.microbatches[0]) == [2, 3]
    assert (minibatch.tokens, minibatch.responses) == (4, 2)
