"""PPO loss of one micro-batch: clipped policy loss, KL penalty, entropy bonus and value loss.

Actor and critic share a backward pass and nothing else. Counts are over the whole minibatch of all ranks, so the loss
of a mini-batch is the sum over its micro-batches, wherever they were computed.

Shape suffixes: T tokens of the micro-batch's responses; A responses.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from alignment.reinforcement.experience import ExperienceBatch
from alignment.reinforcement.kl import KLPenalty, estimate
from alignment.reinforcement.metrics import DistributedMeans
from alignment.reinforcement.minibatches import Minibatch
from alignment.reinforcement.models import ScoreScale, critic_values
from alignment.reinforcement.policy_loss import (
    ClippedPolicyLoss,
    clipped_value_loss,
    importance_weights,
    is_clipped,
    token_weights,
)
from models.decoder import Decoder, auxiliary_loss
from models.packed_batch import response_states


@dataclass(frozen=True)
class PPOLoss:
    """Loss of policy optimization.

    Attributes:
        policy_loss: clipped policy loss and aggregation.
        kl: KL penalty, used here where it applies to the loss.
        value_clip: see `clipped_value_loss`.
        temperature: at which the responses were drawn: the policy is the tempered one, on both sides of every ratio.
        max_new_tokens: `max_new_tokens`, the constant of `constant_length`.
    """

    policy_loss: ClippedPolicyLoss
    kl: KLPenalty | None
    value_clip: float | None
    temperature: float
    max_new_tokens: int

    def __call__(
        self,
        actor: Decoder,
        critic: Decoder | None,
        experience: ExperienceBatch,
        minibatch: Minibatch,
        microbatch: list[int],
        sums: DistributedMeans,
        score_scale: ScoreScale = ScoreScale(),
    ) -> Tensor:
        """This micro-batch's part of the loss, a scalar.

        Args:
            actor, critic: the models.
            experience: of the whole batch of rollouts.
            minibatch: whose micro-batch it is.
            microbatch: its responses; none on a rank that only takes part in gathering the weights.
            sums: metrics are added to them.
            score_scale: of the critic's output.
        """
        packed = experience.rollouts.pack(microbatch or [0], experience.advantages.device)
        at, counts = packed.source, float(bool(microbatch))
        hidden_TC = response_states(actor, packed) / self.temperature
        new, entropy = actor.output.log_probabilities_and_entropies(hidden_TC, packed.targets)
        if experience.fills_old and microbatch:
            experience.old[at] = new.detach().float()
        old = new.detach() if experience.fills_old else experience.old[at]
        advantages, log_ratio, policy_loss = experience.advantages[at], new - old, self.policy_loss
        losses = policy_loss(log_ratio, advantages)
        if policy_loss.importance_cap is not None:
            losses = losses * importance_weights(old, experience.sampled[at], policy_loss.importance_cap)
        if self.kl is not None and self.kl.apply_to == "loss":
            assert experience.reference is not None
            spent = estimate(self.kl.estimator, new - experience.reference[at])
            losses = losses + self.kl.coefficient * spent
        if policy_loss.entropy_weight:
            losses = losses - policy_loss.entropy_weight * entropy
        counted = (minibatch.tokens, minibatch.responses, self.max_new_tokens)
        loss = counts * (token_weights(policy_loss.aggregation, packed.lengths, *counted) * losses).sum()
        sums.add_part("loss", loss, 1 / len(minibatch.microbatches))
        weights = torch.full_like(old, counts)
        sums.add("entropy", entropy, weights)
        sums.add("clip_fraction", is_clipped(log_ratio, advantages, *policy_loss.bounds), weights)
        # From the policy that drew the responses, whose samples they are.
        sums.add("update_kl", estimate("k3", old - new), weights)
        if critic is not None:
            assert experience.values is not None
            assert experience.returns is not None
            values = critic_values(critic, packed, score_scale)
            errors = clipped_value_loss(values, experience.values[at], experience.returns[at], self.value_clip)
            value_loss = counts * (token_weights("token_mean", packed.lengths, *counted) * errors).sum()
            sums.add_part("critic/loss", value_loss, 1 / len(minibatch.microbatches))
            loss = loss + value_loss
        # By tokens, as the rest: a mean over all micro-batches of all ranks, in which an idle one has no part.
        share = counts * len(at) / minibatch.tokens
        for model in (actor, critic):
            if model is not None and (auxiliary := auxiliary_loss(model)) is not None:
                loss = loss + share * auxiliary
        return loss
