"""Evaluation of a policy on validation prompts: rewards, lengths, repetition and exact KL from the reference.

One response per prompt: the mean over prompts has the least variance for the tokens it costs.
"""

from typing import Any

import torch
from torch import Tensor

from alignment.reinforcement.advantages import sum_by_response
from alignment.reinforcement.metrics import repetition
from alignment.reinforcement.minibatches import ChunkedForward
from alignment.reinforcement.models import ActorCriticModels
from alignment.reinforcement.rollout_worker import ScoredResponses
from alignment.reinforcement.rollouts import Rollouts


def response_metrics(rollouts: Rollouts, scored: ScoredResponses) -> dict[str, Tensor]:
    """Metrics of each response by name, [A]."""
    found = {
        "reward": scored.scores,
        "length": rollouts.lengths.float(),
        "stopped": rollouts.stopped.float(),
        "repetition": torch.tensor([repetition(response.tokens) for response in scored.responses]),
    }
    return found if scored.monitored_reward is None else found | {"monitored_reward": scored.monitored_reward}


def kl_metrics(
    rollouts: Rollouts, models: ActorCriticModels, forward: ChunkedForward, temperature: float
) -> tuple[Tensor, Tensor]:
    """Exact KL(policy || reference) in nats, of each token [T] and summed over each response [A], on the CPU."""
    kl_T = forward(lambda packed: models.kl_from_reference(packed, temperature)).cpu()
    return kl_T, sum_by_response(kl_T, rollouts.lengths)


def prediction_rows(samples: list[int], scored: ScoredResponses) -> dict[str, list[Any]]:
    """Columns `sample`, `response` and `reward` of the samples that are not padding."""
    each = zip(samples, scored.responses, scored.scores.tolist(), strict=True)
    real = [(sample, response.text, score) for sample, response, score in each if sample >= 0]
    return {name: [row[place] for row in real] for place, name in enumerate(("sample", "response", "reward"))}
