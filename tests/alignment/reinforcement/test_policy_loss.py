"""Losses against loops in float64 and against autograd's own gradients, estimators against sums over a distribution."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from alignment.reinforcement.kl import (
    ESTIMATORS,
    AdaptiveKL,
    FixedKL,
    KLPenalty,
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


def drawn(count: int, seed: int, parts: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(count, dtype=torch.float64, generator=generator) for _ in range(parts)]


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
            weights = token_weights(mine, torch.tensor(part), sum(lengths), len(lengths), longest=6)
            found += float((weights * losses[start : start + sum(part)]).sum())
            start += sum(part)
        assert found == pytest.approx(value, abs=1e-6), aggregation


def test_estimators_have_the_divergence_as_their_mean_where_they_are_unbiased() -> None:
    p, q = (x.softmax(-1) for x in drawn(7, 5))
    log_ratio = p.log() - q.log()
    kl = float((p * log_ratio).sum())
    for estimator in ("k1", "k3"):
        assert float((p * estimate(estimator, log_ratio)).sum()) == pytest.approx(kl)
    assert (estimate("k3", log_ratio) >= 0).all()
    assert estimate("k2", log_ratio).tolist() == pytest.approx([x * x / 2 for x in log_ratio.tolist()])


def test_estimators_differ_in_gradient_and_not_only_in_value() -> None:
    """Sampled from p: k1 in the loss pulls nowhere, k2 towards KL(p || q), k3 towards KL(q || p)."""
    scores, others = drawn(7, 6)
    scores.requires_grad_()
    log_q = others.log_softmax(-1)
    gradients = {}
    for estimator in ESTIMATORS:
        log_p = scores.log_softmax(-1)
        expectation = (log_p.detach().exp() * estimate(estimator, log_p - log_q)).sum()
        (gradients[estimator],) = torch.autograd.grad(expectation, scores)
    log_p = scores.log_softmax(-1)
    (forward,) = torch.autograd.grad((log_p.exp() * (log_p - log_q)).sum(), scores, retain_graph=True)
    (backward,) = torch.autograd.grad((log_q.exp() * (log_q - log_p)).sum(), scores)
    torch.testing.assert_close(gradients["k1"], torch.zeros_like(scores), rtol=0, atol=1e-12)
    torch.testing.assert_close(gradients["k2"], forward)
    torch.testing.assert_close(gradients["k3"], backward)
    with pytest.raises(InputError, match="no gradient on average"):
        KLPenalty(FixedKL(), estimator="k1", apply_to="loss")


def test_the_adaptive_controller_follows_its_target() -> None:
    controller = AdaptiveKL(initial=0.2, target=6.0, horizon=1000)
    controller.update(6.6, 500)  # a tenth above the target, half a horizon
    assert controller.coefficient == pytest.approx(0.2 * 1.05)
    controller.update(600.0, 500)  # by a fifth at most
    assert controller.coefficient == pytest.approx(0.2 * 1.05 * 1.1)
    controller.update(0.0, 1000)
    assert controller.coefficient == pytest.approx(0.2 * 1.05 * 1.1 * 0.8)
    few = AdaptiveKL(initial=0.2, target=6.0, horizon=100)
    few.update(0.0, 1000)  # a batch beyond the horizon: it must not become a prize for going away
    assert few.coefficient == pytest.approx(0.2 * 0.8)
    again = AdaptiveKL()
    again.load_state_dict(controller.state_dict())
    assert again.coefficient == controller.coefficient
    fixed = FixedKL(0.1)
    fixed.update(100.0, 1000)
    assert fixed.coefficient == 0.1
    assert fixed.state_dict() == {}


@pytest.mark.parametrize("n", [1, 2, 4, 16])
def test_the_divergence_of_the_best_of_n_is_what_many_equally_likely_answers_have(n: int) -> None:
    """Of m answers of distinct scores, number i is the best with probability (i / m)^n - ((i - 1) / m)^n."""
    m = 20_000
    edges = (torch.arange(m + 1, dtype=torch.float64) / m) ** n
    best = edges.diff()
    exact = float((best * (best * m).log()).nansum())
    assert best_of_n_kl(n) == pytest.approx(exact, abs=2e-3)
    assert exact <= best_of_n_kl(n) + 1e-9


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
