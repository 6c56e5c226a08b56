"""What is known of rollouts before anything is learned from them: scores, and what each model says of every token.

All of it is computed once a batch, in pieces that fit a budget of tokens, with a forward pass of each model that has a
say; the updates that follow need nothing but the policy and the critic.

Shape suffixes: T tokens of all answers, one answer after another; A answers.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from alignment.reinforcement.advantages import Advantage, Reduce, TokenRewards, equal_groups, no_reduction, whiten
from alignment.reinforcement.kl import KLPenalty, estimate
from alignment.reinforcement.minibatches import split_microbatches
from alignment.reinforcement.rollouts import PackedRollouts, Rollouts
from alignment.rewards.base import Response, Reward
from common.errors import InputError
from models.decoder import Decoder
from models.losses import token_log_probabilities


@dataclass(frozen=True)
class ExperienceBatch:
    """A batch of rollouts and all that updates need of it.

    Attributes:
        rollouts: the answers.
        answers: the same as rewards see them.
        scores: float32 [A], what the reward says of each answer, before anything is taken off.
        monitored_reward: float32 [A], what a reward says that is only watched, where there is one.
        sampled: float32 [T], log-probabilities as the sampler knew them.
        old: float32 [T], as the trainer knows them before the first update; NaN until then where `fills_old`.
        fills_old: whether there is one update only, which computes them itself.
        reference: [T], of the reference, where there is one.
        log_ratio: [T], policy's over reference's probability before the first update, where there is a reference.
        values: [T], of the critic, where there is one.
        advantages: [T].
        returns: [T], what the critic is to learn.
        kept: boolean [A], answers that are learned from.
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
    """From scores to advantages.

    Args:
        advantage: the estimator.
        kl: what going away from the reference costs; null for nothing.
        missing_eos_penalty: taken off the score of an answer that ended for lack of room. It is the answer that is
            asked for a stop token, not its prompt, which may be full of them.
        whiten_rewards: bring rewards a token to variance 1 over the batch, their mean left alone.
        drop_zero_variance_groups: learn nothing from prompts whose answers all score the same.
    """

    advantage: Advantage
    kl: KLPenalty | None
    missing_eos_penalty: float
    whiten_rewards: bool
    drop_zero_variance_groups: bool

    @property
    def has_kl_in_reward(self) -> bool:
        """Whether the divergence is taken off the rewards."""
        return self.kl is not None and self.kl.apply_to == "reward"

    def __call__(
        self, rollouts: Rollouts, scores_A: Tensor, log_ratio_T: Tensor | None, values_T: Tensor | None, reduce: Reduce
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Advantages [T], returns [T] or None, and which answers are learned from, boolean [A].

        Args:
            rollouts: the answers.
            scores_A: of the reward.
            log_ratio_T: policy's over reference's probability of each token, where there is a reference.
            values_T: of the critic, where there is one.
            reduce: adds sums up over the ranks.
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
        estimated = self.advantage(TokenRewards(rewards, lengths, rollouts.group, values_T), reduce)
        kept = torch.ones_like(scores_A, dtype=torch.bool)
        if self.drop_zero_variance_groups:
            kept = ~equal_groups(scores_A, rollouts.group)
        return estimated.advantages, estimated.returns, kept


def token_rewards(scores_A: Tensor, lengths_A: Tensor) -> Tensor:
    """Each answer's score on its last token, the stop token itself where one was drawn, 0 on the others, [T]."""
    rewards = scores_A.new_zeros(int(lengths_A.sum()))
    rewards[lengths_A.cumsum(0) - 1] = scores_A
    return rewards


class ChunkedForward:
    """Forward passes over all answers, piece by piece; every rank makes equally many.

    Args:
        rollouts: the answers.
        budget: tokens of a piece.
        device: of the models.
        most: takes the largest of all ranks' counts.
    """

    def __init__(self, rollouts: Rollouts, budget: int, device: torch.device, most: Reduce = no_reduction) -> None:
        shortest = min(range(len(rollouts)), key=lambda number: rollouts.size([number]))
        parts = split_microbatches(rollouts, range(len(rollouts)), budget)
        # A rank that has nothing left to compute still takes part in gathering the weights.
        idle = [[shortest]] * (int(most(torch.tensor(len(parts), device=device))) - len(parts))
        self.packed = [rollouts.pack(microbatch, device) for microbatch in [*parts, *idle]]
        self.tokens = int(rollouts.lengths.sum())
        self.device = device

    @torch.no_grad()
    def __call__(self, model: Callable[[PackedRollouts], Tensor]) -> Tensor:
        """What `model` says of the tokens of each piece, for all of them, float32 [T]."""
        found = torch.zeros(self.tokens, device=self.device)
        for packed in self.packed:
            found[packed.source] = model(packed).to(found)
        return found


def log_probabilities(decoder: Decoder, packed: PackedRollouts, temperature: float) -> Tensor:
    """log pi(token) at the temperature of every token of the answers, [T]; logits are made a chunk at a time."""
    return token_log_probabilities(packed.hidden(decoder) / temperature, decoder.output.weight, packed.targets)


def critic_values(critic: Decoder, packed: PackedRollouts) -> Tensor:
    """What the critic expects to come, before each token of the answers is drawn, float32 [T]."""
    hidden = packed.hidden(critic)
    return F.linear(hidden, critic.output.weight.to(hidden.dtype)).squeeze(-1).float()


def responses_for_rewards(rollouts: Rollouts, rows: Sequence[Mapping[str, Any]], tokenizer: Any) -> list[Response]:
    """The answers as rewards see them.

    Args:
        rollouts: the answers.
        rows: of the data, one a prompt.
        tokenizer: decodes them.
    """
    found = []
    for number, (prompt, response) in enumerate(zip(rollouts.prompts, rollouts.responses, strict=True)):
        text = tokenizer.decode(response.tokens[:-1] if response.finish == "stop" else response.tokens)
        found.append(Response(prompt, response.tokens, text, response.finish, rows[number // rollouts.group]))
    return found


def scores_of(reward: Reward, responses: Sequence[Response], name: str) -> Tensor:
    """What a reward says, float32 [A].

    Raises:
        InputError: where that is no number.
    """
    scores = reward(responses).float().cpu()
    if scores.shape != (len(responses),) or not scores.isfinite().all():
        wrong = scores.tolist() if scores.shape != (len(responses),) else scores[~scores.isfinite()].tolist()[0]
        raise InputError(
            f"{name}={type(reward).__name__} says {wrong} of {len(responses)} answers: it must give each one number"
        )
    return scores
