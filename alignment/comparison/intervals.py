"""Confidence intervals of model comparisons: win rates and means over prompts.

Models respond to the same prompts, so that the difficulty of a prompt cancels; the unit that counts is the prompt,
however many responses it got. Intervals are of the prompts drawn, not of the training runs, which differ by more.
"""

from typing import NamedTuple

import torch
from torch import Tensor

Z95 = 1.959964
"""Standard normal quantile of a two-sided 95 % interval."""


class Interval(NamedTuple):
    """An estimate with the ends of its 95 % interval."""

    value: float
    low: float
    high: float


def wins(scores_PS: Tensor, other_PS: Tensor) -> Tensor:
    """Share of pairs of responses to each prompt in which the first model's scores higher; a tie is half a win.

    Args:
        scores_PS, other_PS: scores of S responses to each of P prompts; the numbers of responses may differ.

    Returns:
        Float64 [P].
    """
    pairs = scores_PS.double()[:, :, None] - other_PS.double()[:, None, :]
    return ((pairs > 0).double() + (pairs == 0).double() / 2).mean((1, 2))


def wilson(shares_P: Tensor) -> Interval:
    """Mean of numbers in [0, 1] with Wilson's interval (1927): within [0, 1], and wide where few are seen.

    Args:
        shares_P: of each prompt. What lies between 0 and 1 varies less than the binomial that is assumed: the interval
            is then too wide, never too narrow.
    """
    count, share = len(shares_P), float(shares_P.double().mean())
    center = (share + Z95**2 / (2 * count)) / (1 + Z95**2 / count)
    half = Z95 / (1 + Z95**2 / count) * (share * (1 - share) / count + Z95**2 / (4 * count**2)) ** 0.5
    return Interval(share, max(center - half, 0.0), min(center + half, 1.0))


def bootstrap(values_P: Tensor, resamples: int = 2000, seed: int = 0) -> Interval:
    """Mean with the percentile interval of resampled prompts (Efron 1979).

    Args:
        values_P: of each prompt.
        resamples: draws of P prompts with replacement.
        seed: of the draws.
    """
    values = values_P.double()
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(values), (resamples, len(values)), generator=generator)
    low, high = values[drawn].mean(1).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Interval(float(values.mean()), low, high)
