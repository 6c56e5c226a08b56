"""Advantage estimation: GAE, GRPO advantage (group-relative), leave-one-out and batch-normalized, of rewards alone.

An estimator gets a reward per token, and the values of a critic where it needs one; whether a KL penalty was subtracted
from those rewards, and what is done with the advantages, is not its business. Statistics over a batch are over all
tokens of all ranks, by token and never rank by rank: callers hand in how sums are added up.

Shape suffixes: T tokens of all responses, one response after another; A responses, those to one prompt side by side; G
responses to a prompt.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from common.errors import InputError

Reduce = Callable[[Tensor], Tensor]
"""Reduction of a tensor over all ranks."""


def no_reduction(sums: Tensor) -> Tensor:
    """The reduction where there is one rank."""
    return sums


@dataclass(frozen=True)
class TokenRewards:
    """Inputs of an estimator.

    Attributes:
        rewards: float [T], reward of each token; a response's score is on its last one.
        lengths: int64 [A], tokens of every response.
        group_size: responses to each prompt.
        values: [T], a critic's expectation before each token of what is still to come, where there is a critic.
    """

    rewards: Tensor
    lengths: Tensor
    group_size: int = 1
    values: Tensor | None = None


class AdvantageEstimate(NamedTuple):
    """Advantages [T], and the returns [T] that a critic is to learn, where there is one."""

    advantages: Tensor
    returns: Tensor | None = None


class Advantage(ABC):
    """An estimator of advantages."""

    needs_values: ClassVar[bool] = False
    needs_groups: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, rewarded: TokenRewards, reduce: Reduce = no_reduction) -> AdvantageEstimate:
        """Advantage of each token, without gradient."""


@dataclass(frozen=True)
class GAE(Advantage):
    """A_t = sum_k (gamma lambda)^k delta_{t+k}, delta_t = r_t + gamma V_{t+1} - V_t (Schulman et al. 2016, eq. 16).

    The return is A_t + V_t. Nothing follows the last token, also where a response ended for lack of room.

    Args:
        gamma: discount per token; 1 is usual for responses (Ziegler et al. 2019; Ouyang et al. 2022).
        lambda_: 0.95, as there; 1 gives the return less the value.
        whiten: bring advantages to mean 0 and variance 1 over the batch.

    Raises:
        InputError: for a factor that is not in [0, 1].
    """

    needs_values: ClassVar[bool] = True
    gamma: float = 1.0
    lambda_: float = 0.95
    whiten: bool = True

    def __post_init__(self) -> None:
        require_share(gamma=self.gamma, lambda_=self.lambda_)

    def __call__(self, rewarded: TokenRewards, reduce: Reduce = no_reduction) -> AdvantageEstimate:
        values, lengths = rewarded.values, rewarded.lengths
        assert values is not None
        advantages = generalized_advantages(rewarded.rewards, values, lengths, self.gamma, self.lambda_)
        returns = advantages + values
        return AdvantageEstimate(whiten(advantages, reduce) if self.whiten else advantages, returns)


@dataclass(frozen=True)
class GroupRelativeAdvantage(Advantage):
    """GRPO: a response's reward less the mean of those to the same prompt, over their standard deviation (Shao et al.
    2024, section 4.1.2), the same for each of its tokens.

    Args:
        divide_by_std: false leaves the division out, which gives questions that are too easy or too hard no larger
            weight (Dr.GRPO: Liu et al. 2025, section 3.1).
        epsilon: added to the standard deviation; 1e-4 is TRL's. Of equal rewards the advantage is 0 whatever it is.

    Raises:
        InputError: for a negative epsilon.
    """

    needs_groups: ClassVar[bool] = True
    divide_by_std: bool = True
    epsilon: float = 1e-4

    def __post_init__(self) -> None:
        if not 0 <= self.epsilon < math.inf:
            raise InputError(f"advantage.epsilon={self.epsilon}: must be a number, not negative")

    def __call__(self, rewarded: TokenRewards, reduce: Reduce = no_reduction) -> AdvantageEstimate:
        rewards = by_prompt(rewarded)
        advantages = rewards - rewards.mean(1, keepdim=True)
        if self.divide_by_std:
            advantages = advantages / (rewards.std(1, keepdim=True) + self.epsilon)
        return to_tokens(zero_where_equal(advantages, rewards), rewarded)


@dataclass(frozen=True)
class LeaveOneOutAdvantage(Advantage):
    """RLOO: a response's reward less the mean of the other responses' to the same prompt (Ahmadian et al. 2024, section
    3.3; Kool et al. 2019), the same for each of its tokens.

    Args:
        whiten: bring advantages to mean 0 and variance 1 over the batch; not in the paper.
    """

    needs_groups: ClassVar[bool] = True
    whiten: bool = False

    def __call__(self, rewarded: TokenRewards, reduce: Reduce = no_reduction) -> AdvantageEstimate:
        rewards = by_prompt(rewarded)
        others = (rewards.sum(1, keepdim=True) - rewards) / (rewards.shape[1] - 1)
        estimate = to_tokens(zero_where_equal(rewards - others, rewards), rewarded)
        return AdvantageEstimate(whiten(estimate.advantages, reduce)) if self.whiten else estimate


@dataclass(frozen=True)
class BatchNormalizedAdvantage(Advantage):
    """REINFORCE++: the rewards still to come, brought to mean 0 and variance 1 over the whole batch (Hu 2025, section
    3.2): neither a critic nor groups. The KL penalty belongs in the rewards, with k1.

    Args:
        gamma: discount per token.

    Raises:
        InputError: for a discount that is not in [0, 1].
    """

    gamma: float = 1.0

    def __post_init__(self) -> None:
        require_share(gamma=self.gamma)

    def __call__(self, rewarded: TokenRewards, reduce: Reduce = no_reduction) -> AdvantageEstimate:
        return AdvantageEstimate(whiten(discounted_sums(rewarded.rewards, self.gamma, rewarded.lengths), reduce))


def generalized_advantages(
    rewards_T: Tensor, values_T: Tensor, lengths_A: Tensor, gamma: float, lambda_: float
) -> Tensor:
    """GAE of every response by itself, [T], see `GAE`; not whitened."""
    is_last = torch.zeros_like(values_T, dtype=torch.bool)
    is_last[lengths_A.cumsum(0) - 1] = True
    following = values_T.roll(-1).masked_fill(is_last, 0)
    return discounted_sums(rewards_T + gamma * following - values_T, gamma * lambda_, lengths_A)


def discounted_sums(x_T: Tensor, factor: float, lengths_A: Tensor) -> Tensor:
    """sum_k factor^k x_{t+k} up to the end of each response, [T].

    By doubling: what reaches 2 n tokens ahead is what reaches n ahead, here and n tokens on. That is log2(longest)
    additions over all tokens instead of one per token.
    """
    responses, reach, sums = response_of(lengths_A), 1, x_T
    longest = int(lengths_A.max()) if len(lengths_A) else 0
    while reach < longest:
        ahead = sums[reach:] * (responses[reach:] == responses[:-reach])
        sums = torch.cat((sums[:-reach] + factor**reach * ahead, sums[-reach:]))
        reach *= 2
    return sums


def whiten(values_T: Tensor, reduce: Reduce = no_reduction, shift_mean: bool = True) -> Tensor:
    """Variance 1 over all ranks' values, and mean 0 where `shift_mean`; otherwise the mean stays what it was.

    Advantages are shifted; rewards are not, or every response would on average be worth nothing (Ziegler et al. 2019,
    `whiten` of their code: the variance is the unbiased one, 1e-8 is added to it).

    Args:
        values_T: of this rank, any shape; it may be empty here, not everywhere.
        reduce: adds sums up over the ranks.
        shift_mean: see above.
    """
    wide = values_T.double()
    count, total = reduce(torch.stack((wide.new_tensor(wide.numel()), wide.sum())))
    mean = total / count
    variance = reduce((wide - mean).square().sum()) / (count - 1).clamp(min=1)
    whitened = (wide - mean) * (variance + 1e-8).rsqrt()
    return (whitened if shift_mean else whitened + mean).to(values_T.dtype)


def response_of(lengths_A: Tensor) -> Tensor:
    """Number of the response that each token belongs to, int64 [T]."""
    return torch.repeat_interleave(torch.arange(len(lengths_A), device=lengths_A.device), lengths_A)


def sum_by_response(values_T: Tensor, lengths_A: Tensor) -> Tensor:
    """Sum over the tokens of every response, [A]."""
    return values_T.new_zeros(len(lengths_A)).index_add(0, response_of(lengths_A), values_T)


def by_prompt(rewarded: TokenRewards) -> Tensor:
    """Rewards of whole responses, float64 [prompts, G]: differences of large rewards are small."""
    return sum_by_response(rewarded.rewards.double(), rewarded.lengths).view(-1, rewarded.group_size)


def zero_where_equal(advantages: Tensor, rewards: Tensor) -> Tensor:
    """Advantages [prompts, G], 0 where all rewards of a group are equal: a mean of equal numbers may round to another,
    and a standard deviation of almost 0 would make much of the difference.
    """
    return advantages.masked_fill(rewards.amax(1, keepdim=True) == rewards.amin(1, keepdim=True), 0)


def to_tokens(advantages: Tensor, rewarded: TokenRewards) -> AdvantageEstimate:
    """Every token of a response has the response's advantage."""
    return AdvantageEstimate(advantages.to(rewarded.rewards.dtype).flatten()[response_of(rewarded.lengths)])


def equal_groups(scores_A: Tensor, group: int) -> Tensor:
    """Responses to prompts all of whose responses score the same, boolean [A]: they teach nothing relative to each
    other, and DAPO leaves them out (Yu et al. 2025, section 3.2).
    """
    scores = scores_A.view(-1, group)
    return (scores == scores[:, :1]).all(1, keepdim=True).expand_as(scores).flatten()


def require_share(**values: float) -> None:
    """Refuse factors that are not in [0, 1]."""
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise InputError(f"advantage.{name}={value}: must lie in [0, 1]")
