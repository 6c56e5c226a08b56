"""Laws recovered from runs made of known ones."""

import math

import pytest

from common.errors import InputError
from strategies.planner.scaling_law_fit import Point, fit_scaling_law, isoflops, power_law, resampled_laws
from strategies.planner.scaling_laws import BESIROGLU, HOFFMANN, ScalingLaw, over_training
from tests.helpers.planner import KNOWN, runs


def test_known_coefficients_are_recovered() -> None:
    law = fit_scaling_law(runs(KNOWN))
    for name in ("e", "a", "alpha", "b", "beta"):
        assert getattr(law, name) == pytest.approx(getattr(KNOWN, name), rel=0.02), name


def test_exponents_survive_noise_and_an_outlier() -> None:
    points = runs(KNOWN, noise=1e-3)
    points[7] = Point(points[7].parameters, points[7].tokens, points[7].loss * 1.2)
    law = fit_scaling_law(points)
    share, known = (x.beta / (x.alpha + x.beta) for x in (law, KNOWN))
    assert share == pytest.approx(known, abs=0.05)
    assert law.e == pytest.approx(KNOWN.e, rel=0.05)


def test_resampling_tells_how_far_a_law_can_be_trusted() -> None:
    exact, noisy = runs(KNOWN), runs(KNOWN, noise=1e-2)
    first, second = (law.exponent for law in resampled_laws(exact, fit_scaling_law(exact), count=2))
    assert first == pytest.approx(KNOWN.exponent, abs=1e-5)
    assert second == pytest.approx(first, abs=1e-5)
    found = [law.exponent for law in resampled_laws(noisy, fit_scaling_law(noisy), count=8)]
    assert min(found) < KNOWN.exponent < max(found)
    assert 0.02 < max(found) - min(found) < 0.3


def test_parabolas_find_the_optimum() -> None:
    curves = isoflops(runs(KNOWN))
    assert [round(math.log10(curve.flops)) for curve in curves] == [18, 19, 20, 21]
    for curve in curves:
        best, _ = KNOWN.optimum(curve.flops)
        assert curve.parameters == pytest.approx(best, rel=0.25)
        assert curve.loss == pytest.approx(KNOWN.loss(*KNOWN.optimum(curve.flops)), rel=0.01)
    _, power = power_law([c.flops for c in curves], [c.parameters for c in curves])
    assert power == pytest.approx(KNOWN.beta / (KNOWN.alpha + KNOWN.beta), abs=0.03)


def test_groups_without_a_minimum_are_left_out() -> None:
    falling = [Point(n, 1e18 / 6 / n, 4 - 0.1 * math.log10(n)) for n in (1e6, 1e7, 1e8)]
    assert isoflops(falling) == []


def test_too_few_runs_are_refused() -> None:
    with pytest.raises(InputError, match="3 runs of 3 sizes and 3 lengths"):
        fit_scaling_law([Point(n, 1e9 / n, 3.0) for n in (1e6, 2e6, 3e6)])
    with pytest.raises(InputError, match="1 sizes"):
        fit_scaling_law([Point(1e6, d * 1e6, 3.0) for d in range(1, 9)])


@pytest.mark.parametrize("law", [HOFFMANN, BESIROGLU])
def test_smaller_models_cost_more_and_reach_the_same(law: ScalingLaw) -> None:
    rows = over_training(law, 1e23)
    best = law.loss(*law.optimum(1e23))
    assert rows[0].flops == 1
    assert [row.flops for row in rows] == sorted(row.flops for row in rows)
    for row in rows:
        assert law.loss(row.parameters, row.tokens) == pytest.approx(best)
    assert law.tokens_for(1e6, best) == math.inf
