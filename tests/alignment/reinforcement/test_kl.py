"""KL estimators against sums over a distribution, controllers, and the bound of best of n."""

import pytest
import torch

from alignment.reinforcement.kl import (
    ESTIMATORS,
    AdaptiveKL,
    FixedKL,
    KLPenalty,
    best_of_n_kl,
    estimate,
)
from common.errors import InputError
from tests.helpers.rollouts import drawn


def test_estimators_have_the_kl_as_their_mean_where_they_are_unbiased() -> None:
    p, q = (x.softmax(-1) for x in drawn(7, 5))
    log_ratio = p.log() - q.log()
    kl = float((p * log_ratio).sum())
    for estimator in ("k1", "k3"):
        assert float((p * estimate(estimator, log_ratio)).sum()) == pytest.approx(kl)
    assert (estimate("k3", log_ratio) >= 0).all()
    assert estimate("k2", log_ratio).tolist() == pytest.approx([x * x / 2 for x in log_ratio.tolist()])


def test_estimators_differ_in_gradient_and_not_only_in_value() -> None:
    """Sampled from p: k1 in the loss pulls nowhere, k2 toward KL(p || q), k3 toward KL(q || p)."""
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
def test_the_kl_of_the_best_of_n_is_what_many_equally_likely_responses_have(n: int) -> None:
    """Of m responses of distinct scores, number i is the best with probability (i / m)^n - ((i - 1) / m)^n."""
    m = 20_000
    edges = (torch.arange(m + 1, dtype=torch.float64) / m) ** n
    best = edges.diff()
    exact = float((best * (best * m).log()).nansum())
    assert best_of_n_kl(n) == pytest.approx(exact, abs=2e-3)
    assert exact <= best_of_n_kl(n) + 1e-9
