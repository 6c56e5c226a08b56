"""Rollout worker: samples responses to prompts and scores them with rewards.

It runs in the trainer's process, with the trainer's weights, one step after another. Workers in processes of their own
would generate while the trainer learns, for responses of an older policy.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from alignment.reinforcement.engines.base import Decoding, RolloutEngine
from alignment.reinforcement.engines.decoder import DecoderEngine
from alignment.reinforcement.rollouts import Rollouts, roll_out, unsharded_policy
from alignment.rewards.base import Response, Reward, check_rows
from common.contracts import PromptSource
from common.errors import InputError
from models.decoder import Decoder
from models.inference.sampling import Sampling
from models.language_model import Batch


class ScoredResponses(NamedTuple):
    """Responses as rewards see them, with their scores."""

    responses: list[Response]
    scores: Tensor
    """Float32 [A], by the reward, before anything is subtracted."""
    monitored_reward: Tensor | None
    """Float32 [A], by the reward that is only monitored, where there is one."""


class RolloutWorker:
    """Generation and scoring of rollouts.

    Args:
        reward: reward that is learned from.
        monitored_reward: reward that is only monitored, or None.
        engine: engine that decodes; None takes `DecoderEngine`.
        max_new_tokens: tokens of a response at most.
        sampling: sampling of the policy that learns.
        validation_sampling: sampling in validation; None takes `sampling`.
        stop: names of control tokens that end a response, beside the tokenizer's end of text.

    Raises:
        InputError: for sampling that is not the policy's own.
    """

    def __init__(
        self,
        reward: Reward,
        monitored_reward: Reward | None = None,
        engine: RolloutEngine | None = None,
        max_new_tokens: int = 64,
        sampling: Sampling = Sampling(),
        validation_sampling: Sampling | None = None,
        stop: list[str] | None = None,
    ) -> None:
        if not sampling.temperature > 0 or sampling.repetition_penalty != 1:
            raise InputError(
                f"sampling.temperature={sampling.temperature}, repetition_penalty={sampling.repetition_penalty}: the "
                "policy that samples is the one that learns, which needs a temperature above 0 and knows no penalty"
            )
        if max_new_tokens < 1:
            raise InputError(f"max_new_tokens={max_new_tokens}: must be at least 1")
        self.reward, self.monitored_reward, self.engine = reward, monitored_reward, engine or DecoderEngine()
        self.max_new_tokens, self.sampling = max_new_tokens, sampling
        self.validation_sampling = validation_sampling or sampling
        self.stop_names = stop or []

    @property
    def rewards(self) -> list[Reward]:
        """The reward that is learned from, and the monitored one."""
        return [self.reward] if self.monitored_reward is None else [self.reward, self.monitored_reward]

    def setup(self, trainer: Any) -> None:
        """Attach to a Trainer.

        Args:
            trainer: its strategy unshards the policy, its data brings prompts and tokenizer.

        Raises:
            InputError: for control tokens that the tokenizer lacks, and rows whose responses a reward cannot score.
        """
        data = trainer.datamodule
        self.strategy, self.tokenizer = trainer.strategy, data.tokenizer
        control = self.tokenizer.control_ids() if self.stop_names else {}
        if lacking := [name for name in self.stop_names if name not in control]:
            raise InputError(f"stop={lacking}: no control token of the tokenizer, take some of {sorted(control)}")
        self.stop_tokens = {self.tokenizer.eos, *(control[name] for name in self.stop_names)}
        if trainer.is_global_zero and isinstance(data, PromptSource):
            check_rows(self.rewards, data.every_row())

    def prepare(self, device: torch.device) -> None:
        """Load what the rewards need, once."""
        for reward in self.rewards:
            reward.prepare(device)

    def generate(self, actor: Decoder, batch: Batch, group_size: int = 1, validation: bool = False) -> Rollouts:
        """Sample responses to the prompts of a batch; no rank waits for another.

        Args:
            actor: the policy, sharded or not.
            batch: `prompts`, token ids; `sample`, their sample numbers, int64 [P].
            group_size: responses per prompt.
            validation: take `validation_sampling`.
        """
        sampling = self.validation_sampling if validation else self.sampling
        decoding = Decoding(self.max_new_tokens, sampling, self.stop_tokens)
        with unsharded_policy(self.strategy, actor) as policy:
            return roll_out(self.engine, policy, batch["prompts"], batch["sample"].tolist(), group_size, decoding)

    def score(self, rollouts: Rollouts, rows: Sequence[Any]) -> ScoredResponses:
        """Score rollouts by the rewards.

        Args:
            rollouts: responses, those to one prompt side by side.
            rows: row of data of each prompt.
        """
        responses = responses_for_rewards(rollouts, rows, self.tokenizer)
        watched = self.monitored_reward
        monitored = None if watched is None else scores_of(watched, responses, "monitored_reward")
        return ScoredResponses(responses, scores_of(self.reward, responses, "reward"), monitored)


def responses_for_rewards(rollouts: Rollouts, rows: Sequence[Mapping[str, Any]], tokenizer: Any) -> list[Response]:
    """Responses as rewards see them.

    Args:
        rollouts: the responses.
        rows: row of data of each prompt.
        tokenizer: decodes them.
    """
    found = []
    for number, (prompt, response) in enumerate(zip(rollouts.prompts, rollouts.responses, strict=True)):
        text = tokenizer.decode(response.tokens[:-1] if response.finish == "stop" else response.tokens)
        row = rows[number // rollouts.group_size]
        found.append(Response(prompt, response.tokens, text, response.finish, row))
    return found


def scores_of(reward: Reward, responses: Sequence[Response], name: str) -> Tensor:
    """Scores of responses by a reward, float32 [A] on the CPU.

    Raises:
        InputError: where one is not a finite number.
    """
    scores = reward(responses).float().cpu()
    if scores.shape != (len(responses),) or not scores.isfinite().all():
        wrong = scores.tolist() if scores.shape != (len(responses),) else scores[~scores.isfinite()].tolist()[0]
        raise InputError(
            f"{name}={type(reward).__name__} says {wrong} of {len(responses)} responses: it must give each one number"
        )
    return scores
