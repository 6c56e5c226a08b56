"""Clipped policy loss, value loss and the aggregation over tokens: pure functions.

A loss here has no mean: tokens are weighed by `token_weights`, whose counts are over all ranks, so that a loss cut into
microbatches and spread over ranks adds up to the one of the whole batch.

Shape suffixes: T tokens of all responses, one response after another; A responses.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from alignment.reinforcement.advantages import Reduce, no_reduction, response_of
from common.errors import InputError

Aggregation = Literal["token_mean", "sequence_mean", "sequence_sum", "constant_length"]


@dataclass(frozen=True)
class ClippedPolicyLoss:
    """PPO's objective and what is added to it.

    Args:
        clip: the ratio to the policy that drew the tokens counts from 1 - clip (Schulman et al. 2017: 0.2).
        clip_high: up to 1 + clip_high; null takes `clip`. DAPO's 0.28 lets unlikely tokens grow (Yu et al. 2025,
            section 3.1).
        aggregation: `token_mean` over all tokens of the batch (PPO; DAPO, section 3.3); `sequence_mean`, the mean over
            responses of their means (GRPO); `sequence_sum`, the mean over responses of their sums (REINFORCE, RLOO:
            Ahmadian et al. 2024, eq. 8); `constant_length`, the mean over responses of their sums divided by the
            longest response there could be (Dr.GRPO: Liu et al. 2025, section 3.1).
        importance_cap: weigh tokens by trainer's over sampler's probability, at most this (truncated importance
            sampling: Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL training", 2);
            null for no weights.
        entropy_weight: of the mean entropy, subtracted from the loss.

    Raises:
        InputError: for a value out of its range.
    """

    clip: float = 0.2
    clip_high: float | None = None
    aggregation: Aggregation = "token_mean"
    importance_cap: float | None = None
    entropy_weight: float = 0.0

    def __post_init__(self) -> None:
        high = self.clip if self.clip_high is None else self.clip_high
        if not 0 < self.clip < 1 or not 0 < high < math.inf:
            raise InputError(f"policy_loss.clip={self.clip}, clip_high={high}: need 0 < clip < 1 and clip_high above 0")
        if self.importance_cap is not None and not self.importance_cap >= 1:
            raise InputError(
                f"policy_loss.importance_cap={self.importance_cap}: must be at least 1, the weight where trainer and "
                "sampler agree, or null"
            )
        if not 0 <= self.entropy_weight < math.inf:
            raise InputError(f"policy_loss.entropy_weight={self.entropy_weight}: must be a number, not negative")

    def __call__(self, log_ratio_T: Tensor, advantages_T: Tensor) -> Tensor:
        """Loss of each token, [T]."""
        return clipped_surrogate(log_ratio_T, advantages_T, *self.bounds)

    @property
    def bounds(self) -> tuple[float, float]:
        """Largest decrease and increase of the ratio."""
        return self.clip, self.clip if self.clip_high is None else self.clip_high


def clipped_surrogate(log_ratio_T: Tensor, advantages_T: Tensor, low: float, high: float) -> Tensor:
    """-min(r A, clip(r, 1 - low, 1 + high) A), r = exp(log_ratio) (Schulman et al. 2017, eq. 7), [T]."""
    ratio_T = log_ratio_T.exp()
    return torch.maximum(-advantages_T * ratio_T, -advantages_T * ratio_T.clamp(1 - low, 1 + high))


def is_clipped(log_ratio_T: Tensor, advantages_T: Tensor, low: float, high: float) -> Tensor:
    """Tokens whose loss has no gradient because they moved far enough already, boolean [T]."""
    ratio_T = log_ratio_T.exp()
    return ((advantages_T > 0) & (ratio_T > 1 + high)) | ((advantages_T < 0) & (ratio_T < 1 - low))


def clipped_value_loss(values_T: Tensor, old_values_T: Tensor, returns_T: Tensor, clip: float | None) -> Tensor:
    """max((V - R)^2, (clip(V, V_old - clip, V_old + clip) - R)^2) / 2, [T]: a critic moves no further than `clip` a
    batch (OpenAI's baselines; Stiennon et al. 2020 take 0.2). Null clips nothing.
    """
    loss_T = (values_T - returns_T).square()
    if clip is not None:
        near_T = old_values_T + (values_T - old_values_T).clamp(-clip, clip)
        loss_T = torch.maximum(loss_T, (near_T - returns_T).square())
    return loss_T / 2


def token_weights(
    aggregation: Aggregation, lengths_A: Tensor, tokens: Tensor | float, responses: Tensor | float, max_new_tokens: int
) -> Tensor:
    """Weight of each token's loss in the sum, float32 [T].

    Args:
        aggregation: see `ClippedPolicyLoss`.
        lengths_A: tokens of this part's responses, int64.
        tokens, responses: numbers of both in the whole minibatch, over all ranks.
        max_new_tokens: most tokens of a response.
    """
    each = torch.ones_like(lengths_A, dtype=torch.float32)
    if aggregation == "token_mean":
        weights_A = each / tokens
    elif aggregation == "sequence_mean":
        weights_A = each / lengths_A / responses
    elif aggregation == "sequence_sum":
        weights_A = each / responses
    else:
        weights_A = each / max_new_tokens / responses
    return weights_A[response_of(lengths_A)]


def importance_weights(trainer_T: Tensor, sampler_T: Tensor, cap: float) -> Tensor:
    """min(pi_trainer / pi_sampler, cap) from their log-probabilities of each token, [T], without gradient: the two
    differ in rounding, and where they do, tokens were not drawn from the policy that learns (Yao et al. 2025).
    """
    return (trainer_T - sampler_T).detach().exp().clamp(max=cap)


def explained_variance(values_T: Tensor, returns_T: Tensor, reduce: Reduce = no_reduction) -> Tensor:
    """1 - Var(R - V) / Var(R) over all ranks' tokens, float64 scalar; 0 is a critic that knows the mean, 1 one that
    knows all. NaN where returns do not vary.
    """
    returns, errors = returns_T.double(), (returns_T - values_T).double()
    sums = torch.stack((returns.new_tensor(returns.numel()), returns.sum(), errors.sum()))
    count, *totals = reduce(sums)
    squares = [(x - total / count).square().sum() for x, total in zip((returns, errors), totals, strict=True)]
    of_returns, of_errors = reduce(torch.stack(squares))
    return torch.where(of_returns > 0, 1 - of_errors / of_returns, torch.nan)
