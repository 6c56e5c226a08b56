"""Estimators against loops over tokens in float64, closed forms, and one process against several ranks."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from alignment.reinforcement.advantages import (
    GAE,
    BatchNormalizedAdvantage,
    GroupRelativeAdvantage,
    LeaveOneOutAdvantage,
    TokenRewards,
    discounted_sums,
    equal_groups,
    generalized_advantages,
    whiten,
)
from common.errors import InputError

LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=7)
FACTORS = st.sampled_from([0.0, 0.5, 0.95, 1.0])


def drawn(lengths: list[int], seed: int = 0, group: int = 1) -> TokenRewards:
    generator = torch.Generator().manual_seed(seed)
    rewards, values = (torch.randn(sum(lengths), dtype=torch.float64, generator=generator) for _ in range(2))
    return TokenRewards(rewards, torch.tensor(lengths), group, values)


def naive_advantages(rewarded: TokenRewards, gamma: float, lambda_: float) -> list[float]:
    """The recursion from each response's end."""
    assert rewarded.values is not None
    found, start = [], 0
    for length in rewarded.lengths.tolist():
        rewards, values = (x[start : start + length].tolist() for x in (rewarded.rewards, rewarded.values))
        advantage, own = 0.0, []
        for t in reversed(range(length)):
            following = values[t + 1] if t + 1 < length else 0.0
            advantage = rewards[t] + gamma * following - values[t] + gamma * lambda_ * advantage
            own.append(advantage)
        found += own[::-1]
        start += length
    return found


@settings(max_examples=60, deadline=None)
@given(lengths=LENGTHS, gamma=FACTORS, lambda_=FACTORS, seed=st.integers(0, 99))
def test_generalized_advantages_equal_the_recursion(
    lengths: list[int], gamma: float, lambda_: float, seed: int
) -> None:
    rewarded = drawn(lengths, seed)
    assert rewarded.values is not None
    expected = naive_advantages(rewarded, gamma, lambda_)
    found = generalized_advantages(rewarded.rewards, rewarded.values, rewarded.lengths, gamma, lambda_)
    assert found.tolist() == pytest.approx(expected, abs=1e-12)
    estimate = GAE(gamma, lambda_, whiten=False)(rewarded)
    assert estimate.returns is not None
    torch.testing.assert_close(estimate.returns, found + rewarded.values)
    torch.testing.assert_close(GAE(gamma, lambda_)(rewarded).returns, estimate.returns)


@settings(max_examples=40, deadline=None)
@given(lengths=st.lists(st.integers(1, 70), min_size=1, max_size=4), factor=FACTORS, seed=st.integers(0, 99))
def test_discounted_sums_equal_a_loop(lengths: list[int], factor: float, seed: int) -> None:
    x, expected, start = drawn(lengths, seed).rewards, [], 0
    for length in lengths:
        own = x[start : start + length].tolist()
        expected += [sum(factor**k * own[t + k] for k in range(length - t)) for t in range(length)]
        start += length
    assert discounted_sums(x, factor, torch.tensor(lengths)).tolist() == pytest.approx(expected, abs=1e-10)


def test_without_decay_the_advantage_is_the_return_less_the_value() -> None:
    rewarded = drawn([4, 1, 6])
    assert rewarded.values is not None
    returns = discounted_sums(rewarded.rewards, 1.0, rewarded.lengths)
    estimate = GAE(lambda_=1.0, whiten=False)(rewarded)
    torch.testing.assert_close(estimate.advantages, returns - rewarded.values)
    torch.testing.assert_close(estimate.returns, returns)


def scores(group: int, prompts: int, seed: int = 3) -> tuple[Tensor, TokenRewards]:
    """Whole responses' scores, and the same as rewards on last tokens."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 6, (group * prompts,), generator=generator)
    score = torch.randn(group * prompts, dtype=torch.float64, generator=generator)
    rewards = torch.zeros(int(lengths.sum()), dtype=torch.float64)
    rewards[lengths.cumsum(0) - 1] = score
    return score, TokenRewards(rewards, lengths, group)


@pytest.mark.parametrize(
    "estimator",
    [GroupRelativeAdvantage(), GroupRelativeAdvantage(divide_by_std=False), LeaveOneOutAdvantage()],
    ids=str,
)
def test_groups_are_compared_with_themselves(estimator: Any) -> None:
    score, rewarded = scores(group=4, prompts=3)
    by_hand = []
    for start in range(0, 12, 4):
        group = score[start : start + 4].tolist()
        mean = sum(group) / 4
        std = math.sqrt(sum((x - mean) ** 2 for x in group) / 3)
        for place, x in enumerate(group):
            if isinstance(estimator, LeaveOneOutAdvantage):
                by_hand.append(x - sum(group[:place] + group[place + 1 :]) / 3)
            else:
                by_hand.append((x - mean) / (std + 1e-4) if estimator.divide_by_std else x - mean)
    expected = [x for x, n in zip(by_hand, rewarded.lengths.tolist(), strict=True) for _ in range(n)]
    estimate = estimator(rewarded)
    assert estimate.advantages.tolist() == pytest.approx(expected, abs=1e-10)
    assert estimate.returns is None


def test_a_kl_taken_off_each_token_counts_for_the_whole_answer() -> None:
    """RLOO and GRPO with the KL divergence in the reward compare sums over responses."""
    score, rewarded = scores(group=2, prompts=2)
    spent = torch.rand(len(rewarded.rewards), dtype=torch.float64)
    taken_off = TokenRewards(rewarded.rewards - spent, rewarded.lengths, 2)
    sums = [float(part.sum()) for part in spent.split(rewarded.lengths.tolist())]
    net = [s - x for s, x in zip(score.tolist(), sums, strict=True)]
    first = LeaveOneOutAdvantage()(taken_off).advantages[0].item()
    assert first == pytest.approx(net[0] - net[1])


def test_equal_groups_teach_nothing() -> None:
    score = torch.tensor([1.0, 1.0, 0.0, 1.0, 0.0, 0.0])
    assert equal_groups(score, 2).tolist() == [True, True, False, False, True, True]
    rewarded = TokenRewards(torch.tensor([0.0, 1.0, 1.0]), torch.tensor([2, 1]), 2)
    assert GroupRelativeAdvantage()(rewarded).advantages.tolist() == [0, 0, 0]


def test_reinforce_plus_plus_is_the_whitened_return() -> None:
    rewarded = drawn([3, 5, 2])
    returns = discounted_sums(rewarded.rewards, 1.0, rewarded.lengths)
    expected = (returns - returns.mean()) / returns.std()
    torch.testing.assert_close(BatchNormalizedAdvantage()(rewarded).advantages, expected, rtol=0, atol=1e-7)


@settings(max_examples=30, deadline=None)
@given(cut=st.integers(0, 11), seed=st.integers(0, 99), shift=st.booleans())
def test_statistics_are_over_all_ranks_by_token(cut: int, seed: int, shift: bool) -> None:
    """Two ranks with unequally many tokens whiten as one process does; averaging their own statistics would not."""
    values = drawn([11], seed).rewards * 3 + 5
    parts = [values[:cut], values[cut:]]
    # Each rank's sums go through the reduction in the same order: replay what the others contribute.
    counts = [torch.stack((p.new_tensor(p.numel()), p.sum())) for p in parts]
    mean = values.mean()
    squares = [(p - mean).square().sum() for p in parts]
    together = []
    for part in parts:
        responses = iter([sum(counts), sum(squares)])
        together.append(whiten(part, lambda _, responses=responses: next(responses), shift_mean=shift))
    whole = whiten(values, shift_mean=shift)
    torch.testing.assert_close(torch.cat(together), whole)
    expected = (values - mean) / values.std() + (0 if shift else mean)
    torch.testing.assert_close(whole, expected, rtol=0, atol=1e-6)
    assert whole.mean().item() == pytest.approx(0 if shift else mean.item(), abs=1e-9)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: GAE(gamma=1.1), "gamma=1.1"),
        (lambda: GAE(lambda_=-0.1), "lambda_=-0.1"),
        (lambda: GroupRelativeAdvantage(epsilon=-1.0), "epsilon=-1"),
        (lambda: BatchNormalizedAdvantage(gamma=math.nan), "gamma=nan"),
    ],
)
def test_mistakes_get_one_line(build: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()


@pytest.mark.parametrize("reward", [0.0, 0.1, 66.7, 99.9, 1000.1, -1e-3, 1e30])
@pytest.mark.parametrize("group", [2, 3, 4, 7, 8])
@pytest.mark.parametrize(
    "estimator",
    [
        GroupRelativeAdvantage(),
        GroupRelativeAdvantage(epsilon=0.0),
        GroupRelativeAdvantage(divide_by_std=False),
        LeaveOneOutAdvantage(),
    ],
    ids=str,
)
def test_equal_rewards_teach_nothing_however_they_round(estimator: Any, group: int, reward: float) -> None:
    """A mean in float32 is not always the number that it is the mean of, and its difference is over almost nothing."""
    rewarded = TokenRewards(torch.full((group,), reward), torch.ones(group, dtype=torch.int64), group)
    advantages = estimator(rewarded).advantages
    assert advantages.tolist() == [0] * group
    assert advantages.dtype == torch.float32


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 999), scale=st.sampled_from([1e-6, 1.0, 1e6]), shift=st.sampled_from([0.0, 1000.1]))
def test_advantages_of_a_group_are_those_in_float64(seed: int, scale: float, shift: float) -> None:
    score, _ = scores(group=4, prompts=3, seed=seed)
    narrow = TokenRewards((score * scale + shift).float(), torch.ones(len(score), dtype=torch.int64), 4)
    wide = TokenRewards(narrow.rewards.double(), narrow.lengths, 4)
    for estimator in (GroupRelativeAdvantage(), GroupRelativeAdvantage(epsilon=0.0), LeaveOneOutAdvantage()):
        found = estimator(narrow).advantages
        assert found.isfinite().all()
        torch.testing.assert_close(found, estimator(wide).advantages.float(), rtol=0, atol=0)
