"""Every loss of the family against its closed form, and its gradient."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from alignment import DPO, IPO, KTO, ORPO, ConservativeDPO, LengthNormalizedDPO, RobustDPO, SimPO
from alignment.preferences.losses import Pairs, PreferenceLoss, bradley_terry, expected_loss, log1mexp
from common.errors import InputError


def pairs(chosen: Any, rejected: Any, **changes: Any) -> Pairs:
    """Log-probabilities against a reference of -20 for both, in responses of 4 and 5 tokens."""
    c, r = (torch.as_tensor(x, dtype=torch.float64).reshape(-1) for x in (chosen, rejected))
    reference = torch.full_like(c.detach(), -20.0)
    values: dict[str, Any] = {
        "chosen_length": torch.full_like(reference, 4), "rejected_length": torch.full_like(reference, 5),
        "reference_chosen": reference, "reference_rejected": reference.clone(),
        "kl": torch.tensor(0.5, dtype=torch.float64),
    }  # fmt: skip
    return Pairs(c, r, **(values | changes))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def odds(x: float) -> float:
    return x - math.log(1 - math.exp(x))


# Log-ratios of 6 and -4: a margin of 10.
@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (DPO(beta=0.1), 0.3132617),
        (ConservativeDPO(beta=0.1, label_smoothing=0.25), -0.75 * math.log(sigmoid(1)) - 0.25 * math.log(sigmoid(-1))),
        (
            RobustDPO(beta=0.1, label_smoothing=0.25),
            (-0.75 * math.log(sigmoid(1)) + 0.25 * math.log(sigmoid(-1))) / 0.5,
        ),
        (IPO(beta=0.1), 25.0),
        (LengthNormalizedDPO(beta=5), -math.log(sigmoid(5 * (6 / 4 + 4 / 5)))),
        (SimPO(beta=2, gamma=1), -math.log(sigmoid(2 * (-14 / 4 + 24 / 5) - 1))),
        (ORPO(weight=0.1), 14 / 4 - 0.1 * math.log(sigmoid(odds(-14 / 4) - odds(-24 / 5)))),
        (KTO(beta=0.1), ((1 - sigmoid(0.1 * 5.5)) + (1 - sigmoid(0.1 * 4.5))) / 2),
        (
            KTO(beta=0.1, chosen_weight=2, rejected_weight=3),
            (2 * (1 - sigmoid(0.1 * 5.5)) + 3 * (1 - sigmoid(0.1 * 4.5))) / 2,
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, PreferenceLoss) else "",
)
def test_values_equal_closed_forms(loss: PreferenceLoss, expected: float) -> None:
    assert loss(pairs(-14.0, -24.0)).item() == pytest.approx(expected, abs=1e-7)


def test_a_policy_equal_to_its_reference_has_no_margin() -> None:
    same = pairs(-20.0, -20.0)
    for loss in (DPO(), ConservativeDPO()):
        assert loss(same).item() == math.log(2)
        assert loss.margin(same).item() == 0
    assert IPO(beta=0.5)(same).item() == 1.0


ALL = [DPO(), ConservativeDPO(), RobustDPO(), IPO(), LengthNormalizedDPO(), SimPO(), ORPO(), KTO()]


@pytest.mark.parametrize("loss", ALL, ids=lambda loss: type(loss).__name__)
def test_gradients(loss: PreferenceLoss) -> None:
    chosen = torch.tensor([-14.0, -3.0, -22.0], dtype=torch.float64, requires_grad=True)
    rejected = torch.tensor([-24.0, -2.0, -21.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda c, r: loss(pairs(c, r)), (chosen, rejected))
    # A better chosen response never costs more.
    (slope,) = torch.autograd.grad(loss(pairs(chosen, rejected)).sum(), chosen)
    assert (slope < 0).all() or isinstance(loss, IPO | RobustDPO | ConservativeDPO)


@pytest.mark.parametrize("loss", ALL, ids=lambda loss: type(loss).__name__)
def test_pairs_do_not_touch_each_other(loss: PreferenceLoss) -> None:
    together = loss(pairs([-14.0, -3.0], [-24.0, -2.0]))
    alone = torch.cat([loss(pairs(-14.0, -24.0)), loss(pairs(-3.0, -2.0))])
    assert torch.equal(together, alone)


def test_bradley_terry() -> None:
    two, zero = torch.tensor(2.0), torch.tensor(0.0)
    assert bradley_terry(two, zero).item() == pytest.approx(0.1269280, abs=1e-6)
    assert bradley_terry(two, zero, margin=2.0).item() == pytest.approx(math.log(2), abs=1e-6)
    assert bradley_terry(two, zero, center_rewards=0.01).item() == pytest.approx(0.1669280, abs=1e-6)


def test_soft_labels_of_bradley_terry_equal_a_cross_entropy_by_hand() -> None:
    generator = torch.Generator().manual_seed(0)
    chosen, rejected = torch.randn(2, 50, generator=generator, dtype=torch.float64) * 3
    probability = torch.rand(50, generator=generator, dtype=torch.float64)
    found = bradley_terry(chosen, rejected, margin=0.3, center_rewards=0.01, probability=probability)
    for c, r, p, loss in zip(*(x.tolist() for x in (chosen, rejected, probability, found)), strict=True):
        by_hand = -p * math.log(sigmoid(c - r - 0.3)) - (1 - p) * math.log(sigmoid(r - c - 0.3)) + 0.01 * (c + r) ** 2
        assert loss == pytest.approx(by_hand, abs=1e-12)
    # It is least where the model is as sure as the label.
    p = torch.tensor([0.7], dtype=torch.float64)
    score = torch.logit(p).requires_grad_()
    bradley_terry(score, torch.zeros_like(score), probability=p).sum().backward()
    assert score.grad is not None
    assert score.grad.abs().item() < 1e-12
    # A label without doubt is a hard one, to the bit.
    sure = bradley_terry(chosen, rejected, probability=torch.ones_like(chosen))
    assert torch.equal(sure, bradley_terry(chosen, rejected))


@pytest.mark.parametrize("loss", ALL, ids=lambda loss: type(loss).__name__)
def test_soft_labels_give_the_expected_loss(loss: PreferenceLoss) -> None:
    chosen, rejected = [-14.0, -3.0, -22.0, -9.0], [-24.0, -2.0, -21.0, -8.0]
    probability = torch.tensor([0.9, 0.5, 1.0, 0.0], dtype=torch.float64)
    soft = expected_loss(loss, pairs(chosen, rejected, probability=probability))
    for number, p in enumerate(probability.tolist()):
        hard = loss(pairs(chosen[number], rejected[number])).item()
        lengths = {"chosen_length": torch.tensor([5.0]), "rejected_length": torch.tensor([4.0])}
        other = loss(pairs(rejected[number], chosen[number], **lengths)).item()
        assert soft[number].item() == pytest.approx(p * hard + (1 - p) * other, abs=1e-12)
    if type(loss) is DPO:
        smoothed = ConservativeDPO(label_smoothing=0.1)(pairs(chosen[0], rejected[0])).item()
        assert soft[0].item() == pytest.approx(smoothed, abs=1e-12)
    leaf = torch.tensor(chosen, dtype=torch.float64, requires_grad=True)
    made = pairs(leaf, rejected, probability=probability)
    assert torch.autograd.gradcheck(lambda c: expected_loss(loss, Pairs(c, *list(vars(made).values())[1:])), (leaf,))


def test_log_of_one_minus_exp_is_exact_near_both_ends() -> None:
    x = torch.tensor([-1e-12, -1e-5, -0.5, -1.0, -30.0, -700.0], dtype=torch.float64)
    expected = [math.log(-math.expm1(value)) if value > -1 else math.log1p(-math.exp(value)) for value in x.tolist()]
    torch.testing.assert_close(log1mexp(x), torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0)


def test_impossible_parameters_are_refused() -> None:
    for make in (
        lambda: DPO(beta=0),
        lambda: RobustDPO(label_smoothing=0.5),
        lambda: ORPO(weight=math.inf),
        lambda: SimPO(gamma=-5),
    ):
        with pytest.raises(InputError):
            make()


def test_extreme_log_probabilities_stay_finite() -> None:
    extreme: Tensor = torch.tensor([-1e4, -1e-6], dtype=torch.float32)
    made = pairs(extreme, extreme.flip(0))
    for loss in ALL:
        single = {name: value.float() for name, value in vars(made).items() if value is not None}
        leaves = {name: single[name].requires_grad_() for name in ("chosen", "rejected")}
        values = loss(Pairs(**single))
        values.sum().backward()
        assert values.dtype == torch.float32
        assert values.isfinite().all(), type(loss).__name__
        assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in leaves.values())
