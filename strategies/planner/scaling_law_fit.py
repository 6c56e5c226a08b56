"""Scaling-law fit: coefficients of a law, their spread and IsoFLOP parabolas, from finished runs.

The loss and the optimizer of Hoffmann et al. (2022, appendix D.3), from fewer beginnings and with sums where they took
means (Besiroglu et al. 2024, section 4), so that a law of a dozen runs takes seconds. Six runs are the fewest for five
coefficients; how far a law of so few is to be trusted, `resampled_laws` says.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from common.errors import InputError
from strategies.planner.scaling_laws import ScalingLaw

FEWEST = 6
"""Runs below which five coefficients are not to be had."""


@dataclass(frozen=True)
class Point:
    """A finished run: parameters, tokens, nats per token on validation or training text."""

    parameters: float
    tokens: float
    loss: float

    @property
    def flops(self) -> float:
        """6 N D."""
        return 6 * self.parameters * self.tokens


def fit_scaling_law(points: Sequence[Point], name: str = "these runs", delta: float = 1e-3) -> ScalingLaw:
    """The five coefficients of least Huber loss of log L against log-sum-exp(a - alpha log N, b - beta log D, e), by
    L-BFGS from a grid of beginnings (Hoffmann et al. 2022, appendix D.3; sums and not means of the losses, whose scale
    ended the optimizer early, Besiroglu et al. 2024, section 4).

    Args:
        points: finished runs.
        name: of the law.
        delta: where the loss turns from square to absolute, 1e-3 there.

    Raises:
        InputError: for fewer than six runs, or all of one size or length.
    """
    require_enough([point.parameters for point in points], [point.tokens for point in points])
    n, d, losses = _logarithms(points)
    best: tuple[float, torch.Tensor] | None = None
    # The paper begins from 4,500 places on a grid in the same range; these eight found the same minimum in the tests.
    for alpha, beta, e in itertools.product((0.3, 0.6), (0.3, 0.6), (0.0, 0.7)):
        excess = max(float(losses.exp().min()) - math.exp(e), 0.05)
        begin = [math.log(excess / 2) + alpha * float(n.mean()), math.log(excess / 2) + beta * float(d.mean()), e]
        fitted, value = _minimize(torch.tensor([*begin, alpha, beta], dtype=torch.float64), n, d, losses, delta)
        if math.isfinite(value) and (best is None or value < best[0]):
            best = (value, fitted)
    assert best is not None
    return _law(name, best[1])


def resampled_laws(points: Sequence[Point], law: ScalingLaw, count: int = 100, delta: float = 1e-3) -> list[ScalingLaw]:
    """Laws of as many runs drawn with replacement, time and again: how far the coefficients are to be trusted
    (Besiroglu et al. 2024, section 3). Each fit begins from the law of all runs.

    Args:
        points: finished runs. law: fitted to them.
        count: of drawings; those with fewer than three sizes or lengths, or without a finite fit, are left out.
        delta: as in `fit_scaling_law`.
    """
    begin = torch.tensor([math.log(law.a), math.log(law.b), math.log(law.e), law.alpha, law.beta], dtype=torch.float64)
    generator, found = torch.Generator().manual_seed(0), []
    for _ in tqdm(range(count), desc="resampling the runs", leave=False):
        drawn = [points[i] for i in torch.randint(len(points), (len(points),), generator=generator).tolist()]
        if min(len({p.parameters for p in drawn}), len({p.tokens for p in drawn})) >= 3:
            fitted, value = _minimize(begin, *_logarithms(drawn), delta)
            if math.isfinite(value) and bool(fitted.exp().isfinite().all()):
                found.append(_law(law.name, fitted))
    return found


def _logarithms(points: Sequence[Point]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of parameters, tokens and losses."""
    n, d, losses = (
        torch.tensor([getattr(p, key) for p in points], dtype=torch.float64).log()
        for key in ("parameters", "tokens", "loss")
    )
    return n, d, losses


def _law(name: str, fitted: torch.Tensor) -> ScalingLaw:
    a, b, e, alpha, beta = fitted.tolist()
    return ScalingLaw(name, math.exp(e), math.exp(a), alpha, math.exp(b), beta)


def require_enough(sizes: Sequence[Any], lengths: Sequence[Any]) -> None:
    """Refuse runs that do not determine a law.

    Args:
        sizes: of every run's model. lengths: of every run.

    Raises:
        InputError: for fewer than six runs, or of fewer than three sizes or lengths.
    """
    if len(sizes) < FEWEST or len(set(sizes)) < 3 or len(set(lengths)) < 3:
        raise InputError(
            f"{len(sizes)} runs of {len(set(sizes))} sizes and {len(set(lengths))} lengths: a scaling law has five "
            f"coefficients, give at least {FEWEST} runs of three sizes and three lengths"
        )


def _minimize(
    begin: torch.Tensor, n: torch.Tensor, d: torch.Tensor, losses: torch.Tensor, delta: float
) -> tuple[torch.Tensor, float]:
    value = begin.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [value], max_iter=300, tolerance_grad=1e-12, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def objective() -> torch.Tensor:
        a, b, e, alpha, beta = value
        predicted = torch.logsumexp(torch.stack((a - alpha * n, b - beta * d, e.expand_as(n))), dim=0)
        return torch.nn.functional.huber_loss(predicted, losses, reduction="sum", delta=delta)

    def closure() -> float:
        optimizer.zero_grad()
        loss = objective()
        loss.backward()
        return float(loss.detach())

    optimizer.step(closure)
    with torch.no_grad():
        return value.detach(), float(objective())


@dataclass(frozen=True)
class IsoFlop:
    """Runs of about the same compute, and the parabola through them.

    Attributes:
        flops: mean of the runs.
        points: the runs.
        coefficients: of (log10 N)^2, log10 N and 1.
        parameters, loss: at the parabola's minimum.
    """

    flops: float
    points: tuple[Point, ...]
    coefficients: tuple[float, float, float]
    parameters: float
    loss: float


def isoflops(points: Sequence[Point], tolerance: float = 0.1) -> list[IsoFlop]:
    """Parabolas of the loss over log N for runs of equal compute (Hoffmann et al. 2022, section 3.2), where they have a
    minimum between their runs; groups of fewer than three sizes are left out.

    Args:
        points: finished runs.
        tolerance: on the compute of a group, relative to its smallest.
    """
    found = []
    for group in equal_compute(points, tolerance):
        x, y = np.log10([p.parameters for p in group]), np.array([p.loss for p in group])
        square, linear, constant = (float(value) for value in np.polyfit(x, y, 2))
        lowest = -linear / (2 * square) if square > 0 else math.inf
        if x.min() <= lowest <= x.max():
            loss = square * lowest**2 + linear * lowest + constant
            flops = float(np.mean([p.flops for p in group]))
            found.append(IsoFlop(flops, tuple(group), (square, linear, constant), 10**lowest, loss))
    return found


def equal_compute(points: Sequence[Point], tolerance: float = 0.1) -> list[list[Point]]:
    """Groups of at least three sizes, whose compute is above the smallest's by no more than the tolerance."""
    groups: list[list[Point]] = []
    for point in sorted(points, key=lambda p: p.flops):
        if groups and point.flops <= groups[-1][0].flops * (1 + tolerance):
            groups[-1].append(point)
        else:
            groups.append([point])
    return [group for group in groups if len({p.parameters for p in group}) >= 3]


def power_law(xs: Sequence[float], ys: Sequence[float]) -> tuple[float, float]:
    """k and p of y = k x^p, by least squares of the logarithms: how the optimum grows with compute."""
    slope, constant = np.polyfit(np.log(xs), np.log(ys), 1)
    return float(np.exp(constant)), float(slope)
