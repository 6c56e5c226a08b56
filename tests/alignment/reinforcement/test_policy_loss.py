"""Policy and value losses against loops in float64 and against autograd's own gradients."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.reinforcement.kl import (
    ESTIMATORS,
    AdaptiveKL,
    FixedKL,
    best_of_n_kl,
    estimate,
)
from alignment.reinforcement.policy_loss import (
    ClippedPolicyLoss,
    clipped_surrogate,
    clipped_value_loss,
    explained_variance,
    importance_weights,
    is_clipped,
    token_weights,
)
from common.errors import InputError
from tests.helpers.rollouts import drawn


@settings(max_examples=40, deadline=None)
@given(count=st.integers(1, 12), seed=st.integers(0, 999), low=st.floats(0.05, 0.5), high=st.floats(0.05, 0.5))
def test_the_surrogate_equals_its_definition(count: int, seed: int, low: float, high: float) -> None:
    log_ratio, advantages = drawn(count, seed)
    expected, clipped = [], []
    for x, a in zip((log_ratio * 0.5).tolist(), advantages.tolist(), strict=True):
        ratio = math.exp(x)
        bounded = min(max(ratio, 1 - low), 1 + high)
        expected.append(-min(ratio * a, bounded * a))
        clipped.append(bounded * a < ratio * a)
    found = clipped_surrogate(log_ratio * 0.5, advantages, low, high)
    assert found.tolist() == pytest.approx(expected, abs=1e-12)
    assert is_clipped(log_ratio * 0.5, advantages, low, high).tolist() == clipped


def test_the_gradient_stops_where_it_is_clipped_and_only_there() -> None:
    """A token may always come back: a ratio above the bound with a negative advantage is still pulled down."""
    log_ratio = torch.tensor([0.5, 0.5, -0.5, -0.5, 0.0], dtype=torch.float64, requires_grad=True)
    advantages = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0], dtype=torch.float64)
    clipped_surrogate(log_ratio, advantages, 0.2, 0.2).sum().backward()
    assert log_ratio.grad is not None
    expected = [0.0, math.exp(0.5), -math.exp(-0.5), 0.0, -1.0]
    assert log_ratio.grad.tolist() == pytest.approx(expected)
    off_bounds = torch.tensor([0.7, -0.4, 0.1, -0.05], dtype=torch.float64, requires_grad=True)
    for loss in (
        lambda x: clipped_surrogate(x, advantages[:4], 0.2, 0.28),
        lambda x: clipped_value_loss(x, advantages[:4] * 0.1, advantages[:4] * 0.3, 0.2),
        *(lambda x, k=k: estimate(k, x) for k in ESTIMATORS),
    ):
        assert torch.autograd.gradcheck(loss, off_bounds)


def test_an_upper_bound_of_its_own_lets_unlikely_tokens_grow() -> None:
    log_ratio, advantage = torch.tensor([math.log(1.25)]), torch.tensor([1.0])
    assert ClippedPolicyLoss()(log_ratio, advantage).item() == pytest.approx(-1.2)
    assert ClippedPolicyLoss(clip_high=0.28)(log_ratio, advantage).item() == pytest.approx(-1.25)
    assert ClippedPolicyLoss(clip_high=0.28)(-log_ratio * 2, -advantage).item() == pytest.approx(0.8)


@settings(max_examples=40, deadline=None)
@given(count=st.integers(1, 12), seed=st.integers(0, 999), clip=st.sampled_from([None, 0.1, 0.2, 1.0]))
def test_the_value_loss_equals_its_definition(count: int, seed: int, clip: float | None) -> None:
    values, old, returns = drawn(count, seed, 3)
    expected = []
    for v, o, r in zip(values.tolist(), old.tolist(), returns.tolist(), strict=True):
        plain = (v - r) ** 2
        near = v if clip is None else min(max(v, o - clip), o + clip)
        expected.append(max(plain, (near - r) ** 2) / 2)
    assert clipped_value_loss(values, old, returns, clip).tolist() == pytest.approx(expected, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(lengths=st.lists(st.integers(1, 6), min_size=2, max_size=8), seed=st.integers(0, 99), data=st.data())
def test_aggregations_equal_their_definitions_however_the_batch_is_cut(
    lengths: list[int], seed: int, data: st.DataObject
) -> None:
    (losses,) = drawn(sum(lengths), seed, 1)
    by_response = [part.tolist() for part in losses.split(lengths)]
    means = [sum(part) / len(part) for part in by_response]
    expected = {
        "token_mean": sum(map(sum, by_response)) / sum(lengths),
        "sequence_mean": sum(means) / len(means),
        "constant_length": sum(sum(part) / 6 for part in by_response) / len(lengths),
    }
    cut = data.draw(st.integers(1, len(lengths) - 1))
    for aggregation, value in expected.items():
        found, start = 0.0, 0
        for part in (lengths[:cut], lengths[cut:]):
            mine: Any = aggregation
            weights = token_weights(mine, torch.tensor(part), sum(lengths), len(lengths), max_new_tokens=6)
            found += float((weights * losses[start : start + sum(part)]).sum())
            start += sum(part)
        assert found == pytest.approx(value, abs=1e-6), aggregation


def test_importance_weights_are_cut_off_above_and_carry_no_gradient() -> None:
    trainer = torch.tensor([-1.0, -1.0, -3.0], requires_grad=True)
    weights = importance_weights(trainer, torch.tensor([-1.0, -3.0, -1.0]), cap=2.0)
    assert weights.tolist() == pytest.approx([1.0, 2.0, math.exp(-2)])
    assert not weights.requires_grad


def test_explained_variance_of_known_critics() -> None:
    returns, noise = drawn(50, 1)
    assert explained_variance(returns + 3, returns).item() == pytest.approx(1)
    assert explained_variance(torch.full_like(returns, 7), returns).item() == pytest.approx(0)
    errors = noise - noise.mean()
    expected = 1 - float(errors.var() / returns.var())
    assert explained_variance(returns + noise, returns).item() == pytest.approx(expected)
    assert math.isnan(explained_variance(noise, torch.ones_like(noise)).item())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ClippedPolicyLoss(clip=0.0), "clip=0.0"),
        (lambda: ClippedPolicyLoss(clip_high=-1.0), "clip_high=-1.0"),
        (lambda: ClippedPolicyLoss(importance_cap=0.5), "importance_cap=0.5"),
        (lambda: ClippedPolicyLoss(entropy_weight=-1.0), "entropy_weight=-1.0"),
        (lambda: FixedKL(-0.1), "coefficient=-0.1"),
        (lambda: AdaptiveKL(target=0.0), "target=0.0"),
        (lambda: best_of_n_kl(0), "n=0"),
    ],
)
def test_mistakes_get_one_line(build: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()
