"""Best-of-n sampling and rejection sampling: what a reward gives without training.

It costs n responses per prompt at every use; its KL divergence from the policy is known without a sample, so that it is
the yardstick for how much reward a nat should buy (Gao et al. 2022; Touvron et al. 2023, Llama 2, section 3.2.3).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from alignment.reinforcement.engines.base import Decoding, RolloutEngine
from alignment.reinforcement.kl import best_of_n_kl
from alignment.reinforcement.rollout_worker import responses_for_rewards
from alignment.reinforcement.rollouts import roll_out
from alignment.rewards.base import Response, Reward
from alignment.rewards.scoring import scores_of
from common.errors import InputError
from models.decoder import Decoder
from models.inference.sampling import Sampling


@dataclass(frozen=True)
class Best:
    """The best response to each prompt.

    Attributes:
        responses: one per prompt.
        scores: float32 [prompts], of these responses.
        mean: float32 [prompts], of all responses that were drawn to each prompt.
        kl: upper bound in nats on how far the best responses' distribution is from the policy's.
    """

    responses: list[Response]
    scores: Tensor
    mean: Tensor
    kl: float


def best_of_n(scores_A: Tensor, n: int) -> Tensor:
    """Places of the best of every n neighboring responses, the first of equals, int64 [prompts].

    Raises:
        InputError: where the responses are no multiple of n.
    """
    if n < 1 or len(scores_A) % n:
        raise InputError(f"n={n}: {len(scores_A)} responses are not a multiple of it, draw n to each prompt")
    by_prompt = scores_A.view(-1, n)
    is_best = (by_prompt == by_prompt.amax(1, keepdim=True)).int()
    return is_best.argmax(1) + torch.arange(len(by_prompt), device=scores_A.device) * n


def rejection_sampling(
    engine: RolloutEngine,
    policy: Decoder,
    reward: Reward,
    prompts: Sequence[Sequence[int]],
    rows: Sequence[Mapping[str, Any]],
    tokenizer: Any,
    *,
    n: int,
    max_new_tokens: int,
    sampling: Sampling,
    stop: Collection[int],
) -> Best:
    """Draw n responses to every prompt and keep the one that the reward likes best.

    Args:
        engine, policy: who decodes, and with which weights.
        reward: prepared.
        prompts, rows: token ids, and the row of data behind each.
        tokenizer: decodes responses for the reward.
        n: responses to each prompt.
        max_new_tokens, sampling, stop: see `models.inference.generation.generate`.

    Raises:
        InputError: for n below 1.
    """
    kl = best_of_n_kl(n)
    decoding = Decoding(max_new_tokens, sampling, stop)
    rollouts = roll_out(engine, policy, prompts, range(len(prompts)), n, decoding)
    responses = responses_for_rewards(rollouts, rows, tokenizer)
    scores = scores_of(reward, responses, "reward")
    best = best_of_n(scores, n)
    return Best([responses[place] for place in best.tolist()], scores[best], scores.view(-1, n).mean(1), kl)
