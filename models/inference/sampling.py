"""Sampling of a token from logits: temperature, top-k, top-p, min-p and repetition penalty.

Each draw uses its own uniform number, a hash of (seed, row, position), instead of the next one of a shared generator: a
row then gives the same tokens beside any other rows, at the price of a hash per token on the host.
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
    """Settings of sampling. Filters apply in the order of these arguments, as in transformers.

    Args:
        repetition_penalty: divisor of the positive logits of tokens that occurred, factor of the negative ones (Keskar
            et al. 2019, section 4.1); 1 is none.
        temperature: divisor of the logits, at least 1e-6 in float32; 0 takes the most likely token.
        top_k: number of most likely tokens to keep (Fan et al. 2018); 0 keeps all.
        top_p: probability of the smallest set of tokens to keep (Holtzman et al. 2020).
        min_p: least probability of a token relative to the most likely one (Nguyen et al. 2024).
        seed: seed of all draws.

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
    """Logits after penalty, temperature and filters, -inf for tokens that are filtered out.

    Args:
        logits_BV: logits of the next token, float32.
        sampling: settings with a temperature above 0.
        seen_BV: boolean, tokens that occurred in each row, for the penalty.
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
    """One token id per row, int64 [B]: inverse of the cumulative distribution at `uniform_B` in [0, 1)."""
    logits_BV = logits_BV.float()
    if sampling.temperature == 0:
        return filtered(logits_BV, Sampling(sampling.repetition_penalty), seen_BV).argmax(-1)
    cumulated = filtered(logits_BV, sampling, seen_BV).softmax(-1).cumsum(-1, dtype=torch.float64)
    total = cumulated[:, -1:]
    place = torch.searchsorted(cumulated, uniform_B.double()[:, None] * total, right=True)
    # The cumulative sum is flat over tokens without probability: at its end, the last token with any is taken.
    return torch.minimum(place, (cumulated < total).sum(-1, keepdim=True)).squeeze(-1)


def uniforms(seed: int, rows: Sequence[int], positions: Sequence[int]) -> Tensor:
    """Uniform number in [0, 1) for each (row, position), float64."""
    numbers = [
        xxhash.xxh3_64_intdigest(f"{row}/{position}".encode(), seed=seed) / 2**64
        for row, position in zip(rows, positions, strict=True)
    ]
    return torch.tensor(numbers, dtype=torch.float64)
