"""Drawing answers and saying what they are worth, in training and on held-out prompts alike."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric

from alignment.reinforcement.advantages import sum_by_response
from alignment.reinforcement.experience import ChunkedForward, responses_for_rewards, scores_of
from alignment.reinforcement.metrics import repetition
from alignment.reinforcement.models import ActorCritic
from alignment.reinforcement.rollouts import DecoderEngine, RolloutEngine, Rollouts, roll_out, whole
from alignment.rewards.base import Response, Reward
from common.errors import InputError
from models.decoder import Decoder
from models.inference.sampling import Sampling
from models.language_model import Batch


class AnswerEvaluation(ActorCritic):
    """Rewards, the engine that decodes, and validation, test and prediction.

    Args:
        reward, monitored_reward, engine, max_new_tokens, sampling, validation_sampling, stop: see `PPO`.
        microbatch_tokens: see `PPOUpdates`.
        further: arguments of `ActorCritic`.

    Raises:
        InputError: for sampling that no policy is.
    """

    def __init__(
        self,
        reward: Reward,
        monitored_reward: Reward | None,
        engine: RolloutEngine | None,
        max_new_tokens: int,
        sampling: Sampling,
        validation_sampling: Sampling | None,
        stop: list[str] | None,
        microbatch_tokens: int,
        **further: Any,
    ) -> None:
        super().__init__(**further)
        if not sampling.temperature > 0 or sampling.repetition_penalty != 1:
            raise InputError(
                f"sampling.temperature={sampling.temperature}, repetition_penalty={sampling.repetition_penalty}: what "
                "learns is the policy that draws, which needs a temperature above 0 and knows no penalty"
            )
        if max_new_tokens < 1:
            raise InputError(f"max_new_tokens={max_new_tokens}: must be at least 1")
        self.reward, self.monitored_reward, self.engine = reward, monitored_reward, engine or DecoderEngine()
        self.max_new_tokens, self.sampling = max_new_tokens, sampling
        self.validation_sampling = validation_sampling or sampling
        self.stop_names, self.microbatch_tokens = stop or [], microbatch_tokens
        self.means = nn.ModuleDict()

    # Setting up

    def preflight(self, trainer: Any) -> None:
        """Refuse data without prompts."""
        super().preflight(trainer)
        data = getattr(trainer, "datamodule", None)
        if data is not None and "prompts" not in getattr(data, "source_names", []):
            raise InputError(f"{type(self).__name__} answers prompts: take datamodules.PromptData for data")

    def setup(self, stage: str) -> None:
        """Refuse control tokens that the tokenizer lacks, and rows that a reward could not score answers to."""
        super().setup(stage)
        control = self.tokenizer.control_ids() if self.stop_names else {}
        if lacking := [name for name in self.stop_names if name not in control]:
            raise InputError(f"stop={lacking}: no control token of the tokenizer, take some of {sorted(control)}")
        self.stop_tokens = {self.tokenizer.eos, *(control[name] for name in self.stop_names)}
        data = cast(Any, self.trainer).datamodule
        if self.trainer.is_global_zero and hasattr(data, "every_row"):
            for row in data.every_row():
                for reward in self.rewards:
                    reward.check(row)

    def make_metrics(self) -> None:
        """Means over held-out prompts, by name."""

    @property
    def rewards(self) -> list[Reward]:
        """What is learned from, and what is only watched."""
        return [self.reward] if self.monitored_reward is None else [self.reward, self.monitored_reward]

    @property
    def tokenizer(self) -> Any:
        """Of the data."""
        return cast(Any, self.trainer).datamodule.tokenizer

    def on_fit_start(self) -> None:
        """Load what rewards need; they do so once."""
        for reward in self.rewards:
            reward.prepare(self.device)

    def on_validation_start(self) -> None:
        self.on_fit_start()

    def on_test_start(self) -> None:
        self.on_fit_start()

    def on_predict_start(self) -> None:
        self.on_fit_start()

    # Answers

    def generate_rollouts(self, batch: Batch, sampling: Sampling, responses: int) -> Rollouts:
        """So many answers to each prompt of a batch; no rank waits for another."""
        with whole(self.trainer.strategy, cast(Decoder, self.decoder)) as policy:
            return roll_out(
                self.engine, policy, batch["prompts"], batch["sample"].tolist(), responses,
                max_new_tokens=self.max_new_tokens, sampling=sampling, stop=self.stop_tokens,
            )  # fmt: skip

    def chunked_forward(self, rollouts: Rollouts) -> ChunkedForward:
        """Forward passes over these answers."""
        return ChunkedForward(rollouts, self.microbatch_tokens, self.device, self.most_over_ranks)

    def scores(self, rollouts: Rollouts, rows: Sequence[Any]) -> tuple[list[Response], Tensor, Tensor | None]:
        """Answers as rewards see them, what the reward says of each, and what the gold reward does, [A]."""
        responses = responses_for_rewards(rollouts, rows, self.tokenizer)
        monitored_reward = (
            None if self.monitored_reward is None else scores_of(self.monitored_reward, responses, "monitored_reward")
        )
        return responses, scores_of(self.reward, responses, "reward"), monitored_reward

    # Held-out prompts

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """One answer to each prompt: what it is worth, and how far from the reference it leads."""
        rollouts, real = self.generate_rollouts(batch, self.validation_sampling, 1), batch["sample"].cpu() >= 0
        responses, scores, monitored_reward = self.scores(rollouts, batch["rows"])
        found = {
            "reward": scores,
            "length": rollouts.lengths.float(),
            "stopped": rollouts.stopped.float(),
            "repetition": torch.tensor([repetition(response.tokens) for response in responses]),
        }
        if monitored_reward is not None:
            found["monitored_reward"] = monitored_reward
        if self.reference is not None:
            temperature = self.sampling.temperature
            passes = self.chunked_forward(rollouts)
            kls = passes(lambda packed: self.kl_from_reference(packed, temperature)).cpu()
            found["kl"] = sum_by_response(kls, rollouts.lengths)
            self._mean("kl_per_token").update(kls[real.repeat_interleave(rollouts.lengths)].to(self.device))
        for name, values in found.items():
            self._mean(name).update(values[real].to(self.device))

    def test_step(self, batch: Batch, batch_index: int) -> None:
        self.validation_step(batch, batch_index)

    def _mean(self, name: str) -> MeanMetric:
        if name not in self.means:
            self.means[name] = MeanMetric().to(self.device)
        return cast(MeanMetric, self.means[name])

    def on_validation_epoch_end(self) -> None:
        self._log_means("validation")

    def on_test_epoch_end(self) -> None:
        self._log_means("test")

    def _log_means(self, stage: str) -> None:
        for name, metric in self.means.items():
            self.log(f"{stage}/{name}", cast(MeanMetric, metric))

    def predict_step(self, batch: Batch, batch_index: int) -> dict[str, Any]:
        """An answer to each prompt and its reward, for whoever writes them down."""
        responses, scores, _ = self.scores(self.generate_rollouts(batch, self.validation_sampling, 1), batch["rows"])
        each = zip(batch["sample"].tolist(), responses, scores.tolist(), strict=True)
        real = [(sample, response.text, score) for sample, response, score in each if sample >= 0]
        names = ("sample", "response", "reward")
        return {name: [row[place] for row in real] for place, name in enumerate(names)}
