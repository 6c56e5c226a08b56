"""Experience of a batch of rollouts: scores, log-probabilities, values and advantages, before anything is learned.

All of it is computed once per batch with a forward pass of each model; the updates that follow need the policy and the
critic alone, at the price of keeping a few numbers per token.

Shape suffixes: T tokens of all responses, one response after another; A responses.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from alignment.reinforcement.advantages import Advantage, Reduce, TokenRewards, equal_groups, no_reduction, whiten
from alignment.reinforcement.kl import KLPenalty, estimate
from alignment.reinforcement.minibatches import ChunkedForward
from alignment.reinforcement.models import ActorCriticModels
from alignment.reinforcement.rollout_worker import ScoredResponses
from alignment.reinforcement.rollouts import Rollouts
from alignment.rewards.base import Response


@dataclass(frozen=True)
class ExperienceBatch:
    """A batch of rollouts and all that updates need of it.

    Attributes:
        rollouts: responses as sampled.
        responses: the same as rewards see them.
        scores: float32 [A], by the reward, before anything is subtracted.
        monitored_reward: float32 [A], by the monitored reward, where there is one.
        sampled: float32 [T], log-probabilities of the sampler.
        old: float32 [T], log-probabilities of the trainer before the first update; NaN until then where `fills_old`.
        fills_old: whether there is one update only, which computes `old` itself.
        reference: [T], log-probabilities of the reference, where there is one.
        log_ratio: [T], policy's minus reference's before the first update, where there is a reference.
        values: [T], of the critic, where there is one.
        advantages: [T].
        returns: [T], targets of the critic, where there is one.
        kept: boolean [A], responses that are learned from.
    """

    rollouts: Rollouts
    responses: list[Response]
    scores: Tensor
    monitored_reward: Tensor | None
    sampled: Tensor
    old: Tensor
    fills_old: bool
    reference: Tensor | None
    log_ratio: Tensor | None
    values: Tensor | None
    advantages: Tensor
    returns: Tensor | None
    kept: Tensor


@dataclass(frozen=True)
class RewardShaping:
    """Reward shaping: from scores of responses to rewards and advantages of tokens.

    Args:
        advantage: the estimator.
        kl: KL penalty; None for none.
        missing_eos_penalty: subtracted from the score of a response that ended for lack of room. The stop token is
            looked for in the response, not in its prompt, which may be full of them.
        whiten_rewards: scale token rewards to variance 1 over the batch, their mean left alone.
        drop_zero_variance_groups: learn nothing from prompts whose responses all score the same.
    """

    advantage: Advantage
    kl: KLPenalty | None
    missing_eos_penalty: float
    whiten_rewards: bool
    drop_zero_variance_groups: bool

    @property
    def has_kl_in_reward(self) -> bool:
        """Whether the KL penalty is subtracted from the rewards."""
        return self.kl is not None and self.kl.apply_to == "reward"

    def __call__(
        self, rollouts: Rollouts, scores_A: Tensor, log_ratio_T: Tensor | None, values_T: Tensor | None, reduce: Reduce
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Advantages [T], returns [T] or None, and responses that are learned from, boolean [A].

        Args:
            rollouts: the responses.
            scores_A: scores by the reward.
            log_ratio_T: policy's minus reference's log-probability of each token, where there is a reference.
            values_T: values by the critic, where there is one.
            reduce: sum over ranks.
        """
        lengths = rollouts.lengths.to(scores_A.device)
        scores_A = scores_A - self.missing_eos_penalty * (~rollouts.stopped.to(scores_A.device))
        rewards = token_rewards(scores_A, lengths)
        if self.has_kl_in_reward:
            assert self.kl is not None
            assert log_ratio_T is not None
            rewards = rewards - self.kl.coefficient * estimate(self.kl.estimator, log_ratio_T)
        if self.whiten_rewards:
            rewards = whiten(rewards, reduce, shift_mean=False)
        estimated = self.advantage(TokenRewards(rewards, lengths, rollouts.group_size, values_T), reduce)
        kept = torch.ones_like(scores_A, dtype=torch.bool)
        if self.drop_zero_variance_groups:
            kept = ~equal_groups(scores_A, rollouts.group_size)
        return estimated.advantages, estimated.returns, kept


def token_rewards(scores_A: Tensor, lengths_A: Tensor) -> Tensor:
    """Rewards by token: a response's score on its last token, the stop token if it has one, 0 on the others, [T]."""
    rewards = scores_A.new_zeros(int(lengths_A.sum()))
    rewards[lengths_A.cumsum(0) - 1] = scores_A
    return rewards


def build_experience(
    rollouts: Rollouts,
    scored: ScoredResponses,
    models: ActorCriticModels,
    shaping: RewardShaping,
    forward: ChunkedForward,
    temperature: float,
    is_single_update: bool,
    sum_over_ranks: Reduce = no_reduction,
) -> ExperienceBatch:
    """Experience of a batch of rollouts: one forward pass of each model, then rewards and advantages.

    Args:
        rollouts: the responses.
        scored: the same with their scores.
        models: actor, critic and reference.
        shaping: from scores to advantages.
        forward: forward passes over the responses.
        temperature: at which they were sampled: the policy is the tempered one, on both sides of every ratio.
        is_single_update: whether one update is made; it then computes the log-probabilities before it itself, unless
            the reward needs them.
        sum_over_ranks: sum over ranks.
    """
    scores, sampled = scored.scores.to(forward.device), rollouts.log_probabilities.to(forward.device)
    fills_old = is_single_update and not shaping.has_kl_in_reward
    old = torch.full_like(sampled, torch.nan)
    if not fills_old:
        old = forward(lambda packed: models.log_probabilities(packed, temperature))
    reference = log_ratio = values = None
    if models.has_reference:
        reference = forward(lambda packed: models.reference_log_probabilities(packed, temperature))
        log_ratio = (sampled if fills_old else old) - reference
    if models.critic is not None:
        values = forward(models.values)
    advantages, returns, kept = shaping(rollouts, scores, log_ratio, values, sum_over_ranks)
    return ExperienceBatch(
        rollouts=rollouts,
        responses=scored.responses,
        scores=scores,
        monitored_reward=scored.monitored_reward,
        sampled=sampled,
        old=old,
        fills_old=fills_old,
        reference=reference,
        log_ratio=log_ratio,
        values=values,
        advantages=advantages,
        returns=returns,
        kept=kept,
    )
