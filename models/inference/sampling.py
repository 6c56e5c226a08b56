"""From scores to a token: pure functions of one row's scores and one uniform number.

Every draw takes its own number, a hash of (seed, row, position), instead of the next one of a shared generator: a row
then gives the same tokens whoever is decoded beside it, and however often rows are refilled.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import xxhash
from torch import Tensor

from common.errors import InputError


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. Filters apply in the order of these arguments, as in transformers.

    Args:
        repetition_penalty: scores of tokens that occurred are divided by it where positive, multiplied where negative
            (Keskar et al. 2019, section 4.1); 1 is none.
        temperature: 0 takes the most likely token; others divide scores, which float32 holds down to 1e-6.
        top_k: keep the most likely tokens; 0 keeps all (Fan et al. 2018).
        top_p: keep the smallest set that holds this share of the probability (Holtzman et al. 2020).
        min_p: keep tokens at least this likely, relative to the most likely one (Nguyen et al. 2024).
        seed: of all draws.

    Raises:
        InputError: for a value out of its range.
    """

    repetition_penalty: float = 1.0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not (self.temperature == 0 or 1e-6 <= self.temperature < math.inf) or not 0 < self.top_p <= 1:
            raise InputError(
                f"temperature={self.temperature}, top_p={self.top_p}: need temperature 0 or from 1e-6 on, and "
                "0 < top_p <= 1"
            )
        if self.top_k < 0 or not 0 <= self.min_p < 1 or not 0 < self.repetition_penalty < math.inf:
            raise InputError(
                f"top_k={self.top_k}, min_p={self.min_p}, repetition_penalty={self.repetition_penalty}: need "
                "top_k >= 0, 0 <= min_p < 1 and a penalty above 0"
            )


def filtered(logits_BV: Tensor, sampling: Sampling, seen_BV: Tensor | None = None) -> Tensor:
    """Scores after penalty, temperature and filters, -inf for what may not be drawn.

    Args:
        logits_BV: scores of the next token, float32.
        sampling: with a temperature above 0.
        seen_BV: which tokens occurred in each row, for the penalty.
    """
    if seen_BV is not None:
        penalty = sampling.repetition_penalty
        punished = torch.where(logits_BV > 0, logits_BV / penalty, logits_BV * penalty)
        logits_BV = torch.where(seen_BV, punished, logits_BV)
    logits_BV = logits_BV / sampling.temperature
    if 0 < sampling.top_k < logits_BV.shape[-1]:
        least = logits_BV.topk(sampling.top_k).values[:, -1:]
        logits_BV = logits_BV.masked_fill(logits_BV < least, -torch.inf)
    if sampling.top_p < 1:
        probabilities, order = logits_BV.softmax(-1).sort(descending=True, stable=True)
        # A token goes when those before it already hold the share: the first one always stays.
        gone = probabilities.cumsum(-1) - probabilities >= sampling.top_p
        logits_BV = logits_BV.masked_fill(torch.zeros_like(gone).scatter(-1, order, gone), -torch.inf)
    if sampling.min_p > 0:
        probabilities = logits_BV.softmax(-1)
        least = sampling.min_p * probabilities.amax(-1, keepdim=True)
        logits_BV = logits_BV.masked_fill(probabilities < least, -torch.inf)
    return logits_BV


def draw(logits_BV: Tensor, sampling: Sampling, uniform_B: Tensor, seen_BV: Tensor | None = None) -> Tensor:
    """One token id a row, int64 [B], by inverting the distribution function at `uniform_B` in [0, 1)."""
    logits_BV = logits_BV.float()
    if sampling.temperature == 0:
        return filtered(logits_BV, Sampling(sampling.repetition_penalty), seen_BV).argmax(-1)
    cumulated = filtered(logits_BV, sampling, seen_BV).softmax(-1).cumsum(-1, dtype=torch.float64)
    total = cumulated[:, -1:]
    place = torch.searchsorted(cumulated, uniform_B.double()[:, None] * total, right=True)
    # The sum is flat over what has no probability: at its end, the last token with any is taken.
    return torch.minimum(place, (cumulated < total).sum(-1, keepdim=True)).squeeze(-1)


def uniforms(seed: int, rows: Sequence[int], positions: Sequence[int]) -> Tensor:
    """A number in [0, 1) for each (row, position), float64."""
    numbers = [
        xxhash.xxh3_64_intdigest(f"{row}/{position}".encode(), seed=seed) / 2**64
        for row, position in zip(rows, positions, strict=True)
    ]
    return torch.tensor(numbers, dtype=torch.float64)
