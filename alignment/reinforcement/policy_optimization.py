"""Policy optimization: the LightningModule of PPO, GRPO, RLOO, REINFORCE++ and whatever is composed of their parts.

One `training_step` is one batch of prompts: responses are sampled and scored, then learned from in several updates. A
step of the Trainer is therefore a batch of rollouts, which is what positions in the data, schedules, checkpoints and
logs count: the first update of a batch goes through Lightning's optimizer, which counts it, all others through the
optimizer within. Algorithms differ in the advantage, the loss and their settings; `alignment.PPO`, `GRPO` and the
others are this module with published defaults.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal, cast

import torch

from alignment.named_means import NamedMeans
from alignment.preferences.checks import refuse_z_loss
from alignment.reinforcement.advantages import Advantage
from alignment.reinforcement.engines.base import RolloutEngine
from alignment.reinforcement.evaluation import kl_metrics, prediction_rows, response_metrics
from alignment.reinforcement.experience import ExperienceBatch, RewardShaping, build_experience
from alignment.reinforcement.kl import KLPenalty
from alignment.reinforcement.metrics import Alarms, DistributedMeans, describe, sample_rows
from alignment.reinforcement.minibatches import ChunkedForward, Minibatch, PPOUpdates, split_minibatches
from alignment.reinforcement.models import ActorCriticModels
from alignment.reinforcement.policy_loss import ClippedPolicyLoss
from alignment.reinforcement.ppo_loss import PPOLoss
from alignment.reinforcement.preflight import refuse_settings
from alignment.reinforcement.ranks import DataParallelRanks
from alignment.reinforcement.rollout_worker import RolloutWorker
from alignment.reinforcement.rollouts import MAX_GROUP_SIZE, Rollouts
from alignment.rewards.base import Reward
from common.errors import InputError
from models.inference.sampling import Sampling
from models.language_model import Batch, LanguageModel
from models.optimizers.adamw import OptimizerFactory, scale_gradients


class PolicyOptimization(LanguageModel):
    """A policy that learns from rewards of whole responses.

    Args:
        reward: reward of a response.
        advantage: one of `alignment.reinforcement.advantages`.
        kl: penalty on the KL divergence from the reference; null for none.
        policy_loss: clipped policy loss and its aggregation over tokens.
        optimization: epochs, mini-batches, micro-batches and gradient clipping of a batch of rollouts.
        group_size: responses per prompt; advantages within groups need several.
        max_new_tokens: tokens of a response at most.
        sampling: sampling of the policy. Filters leave ratios over the whole vocabulary, as the trainer computes them.
        stop: names of control tokens that end a response, beside the tokenizer's end of text.
        engine: engine that decodes; null takes `DecoderEngine`.
        monitored_reward: reward that is only monitored: where it falls while `reward` rises, the latter is
            over-optimized (Gao et al. 2022).
        reference: `online`, a frozen copy of the initial weights, adapters merged; `adapter_off`, the actor without its
            adapter; null, none.
        reference_precision: precision of the copy's weights; null takes the actor's.
        reference_on_cpu: keep the copy in main memory and compute it there, see `ActorCriticModels`.
        critic_init_from: reward model that the critic begins as, with the scale of the reward that is computed by it;
            null begins with the actor's trunk and values of 0.
        critic_optimizer: optimizer of the critic; null takes the actor's.
        value_clip: largest change of a value in a batch, 0.2 as in Stiennon et al.'s code; null for any.
        whiten_rewards: see `RewardShaping`; off in TRL and in Ziegler et al.'s (2019) defaults for text.
        missing_eos_penalty: subtracted from the score of a response without a stop token; 1 is TRL's examples', 0 is
            none.
        drop_zero_variance_groups: see `RewardShaping`. No others are sampled in their place (DAPO's dynamic sampling):
            a batch of which nothing is left makes no update and counts as a step.
        validation_sampling: sampling in validation; null as in training.
        alarms: limits of metrics.
        further: arguments of `LanguageModel`.

    Raises:
        InputError: for settings that cannot be combined.
    """

    def __init__(
        self,
        reward: Reward,
        advantage: Advantage,
        kl: KLPenalty | None = None,
        policy_loss: ClippedPolicyLoss = ClippedPolicyLoss(),
        optimization: PPOUpdates = PPOUpdates(),
        group_size: int = 1,
        max_new_tokens: int = 64,
        sampling: Sampling = Sampling(),
        stop: list[str] | None = None,
        engine: RolloutEngine | None = None,
        monitored_reward: Reward | None = None,
        reference: Literal["online", "adapter_off"] | None = "online",
        reference_precision: Literal["float32", "bfloat16"] | None = None,
        reference_on_cpu: bool = False,
        critic_init_from: str | None = None,
        critic_optimizer: OptimizerFactory | None = None,
        value_clip: float | None = 0.2,
        whiten_rewards: bool = False,
        missing_eos_penalty: float = 0.0,
        drop_zero_variance_groups: bool = False,
        validation_sampling: Sampling | None = None,
        alarms: Alarms = Alarms(),
        **further: Any,
    ) -> None:
        super().__init__(**further)
        self.automatic_optimization = False
        refuse_z_loss(self)
        if not 1 <= group_size <= MAX_GROUP_SIZE:
            raise InputError(f"group_size={group_size}: must lie between 1 and {MAX_GROUP_SIZE}")
        if (advantage.needs_groups or drop_zero_variance_groups) and group_size < 2:
            compares = "drop_zero_variance_groups" if drop_zero_variance_groups else type(advantage).__name__
            raise InputError(
                f"group_size={group_size}: {compares} compares responses to one prompt and needs at least 2 of them"
            )
        if kl is not None and reference is None:
            raise InputError("kl without a reference: take reference=online, or leave kl out")
        if not 0 <= missing_eos_penalty < math.inf or (value_clip is not None and not value_clip > 0):
            raise InputError(
                f"missing_eos_penalty={missing_eos_penalty}, value_clip={value_clip}: must be numbers, not negative, "
                "value_clip above 0 or null"
            )
        self.rollouts = RolloutWorker(
            reward, monitored_reward, engine, max_new_tokens, sampling, validation_sampling, stop
        )
        self.models = ActorCriticModels(
            self.config, self.initial_seed, advantage.needs_values, critic_init_from,
            reference, reference_precision, reference_on_cpu,
        )  # fmt: skip
        self.shaping = RewardShaping(advantage, kl, missing_eos_penalty, whiten_rewards, drop_zero_variance_groups)
        self.ppo_loss = PPOLoss(policy_loss, kl, value_clip, sampling.temperature, max_new_tokens)
        self.critic_optimizer = critic_optimizer or self.optimizer_factory
        self.kl, self.optimization, self.group_size, self.alarms = kl, optimization, group_size, alarms
        self.temperature = sampling.temperature
        self.means = NamedMeans()
        self.latest: ExperienceBatch | None = None

    # A batch of rollouts

    def training_step(self, batch: Batch, batch_index: int) -> None:
        """One batch of rollouts: generate, score, update, log."""
        times = [time.perf_counter()]
        rollouts = self.rollouts.generate(self.models.actor, batch, self.group_size)
        times.append(time.perf_counter())
        experience = self.score_rollouts(rollouts, batch)
        times.append(time.perf_counter())
        metrics, updates = self.update_policy(experience)
        times.append(time.perf_counter())
        self.log_metrics(experience, metrics, updates, times)
        for config in self.trainer.lr_scheduler_configs:
            cast(Any, config.scheduler).step()
        self.latest = experience

    def score_rollouts(self, rollouts: Rollouts, batch: Batch) -> ExperienceBatch:
        """Scores, log-probabilities, values and advantages before the first update."""
        experience = build_experience(
            rollouts,
            self.rollouts.score(rollouts, batch["rows"]),
            self.models,
            self.shaping,
            self.chunked_forward(rollouts),
            self.temperature,
            is_single_update=self.optimization.epochs * self.optimization.minibatches == 1,
            sum_over_ranks=self.ranks.sum,
        )
        self.ranks.release_gathered_weights()
        return experience

    def chunked_forward(self, rollouts: Rollouts) -> ChunkedForward:
        """Forward passes without gradient over these responses."""
        return ChunkedForward(rollouts, self.optimization.microbatch_tokens, self.device, self.ranks.max)

    def update_policy(self, experience: ExperienceBatch) -> tuple[DistributedMeans, int]:
        """Update actor and critic; the first update of a batch is the one that the Trainer counts.

        A mini-batch of which nothing is kept makes none: momentum and decay would move weights that learned nothing.

        Returns:
            Metrics, and the number of updates.
        """
        metrics, updates = DistributedMeans(self.device, self.ranks.count), 0
        for minibatch in self.minibatches(experience):
            found = self.accumulate_gradients(experience, minibatch)
            if updates and self.has_gone_too_far(found):
                self.zero_gradients()
                return metrics, updates
            self.apply_gradients(found, is_counted=updates == 0)
            metrics.include(found)
            updates += 1
        if not updates:
            self.count_step()
        return metrics, updates

    def minibatches(self, experience: ExperienceBatch) -> Iterator[Minibatch]:
        """Mini-batches of all epochs that hold something to learn on any rank."""
        for epoch in range(self.optimization.epochs):
            found = split_minibatches(
                experience.rollouts, experience.kept, self.optimization, self.rollouts.sampling.seed, epoch,
                self.ranks.sum, self.ranks.max,
            )  # fmt: skip
            yield from (minibatch for minibatch in found if not minibatch.is_empty)

    def accumulate_gradients(self, experience: ExperienceBatch, minibatch: Minibatch) -> DistributedMeans:
        """Gradients of a mini-batch, micro-batch by micro-batch, and its metrics."""
        metrics = DistributedMeans(self.device, self.ranks.count)
        last = len(minibatch.microbatches) - 1
        for number, microbatch in enumerate(minibatch.microbatches):
            with nullcontext() if number == last else self.ranks.no_gradient_sync():
                models = self.models
                loss = self.ppo_loss(
                    models.actor, models.critic, experience, minibatch, microbatch, metrics, models.score_scale
                )
                # Gradients are averaged over ranks, whose losses are parts of a sum.
                self.manual_backward(loss * self.ranks.count)
        return metrics

    def has_gone_too_far(self, metrics: DistributedMeans) -> bool:
        """Whether the policy is further than 1.5 times `target_kl` from the one that sampled."""
        target = self.optimization.target_kl
        return target is not None and metrics.means(self.ranks.sum)["update_kl"] > 1.5 * target

    def apply_gradients(self, metrics: DistributedMeans, is_counted: bool) -> None:
        """One step of every optimizer, each model's gradients clipped by themselves."""
        wrapped = cast(Any, self.optimizers())
        wrapped = wrapped if isinstance(wrapped, list) else [wrapped]
        for number, (name, parameters) in enumerate(self.models.trained()):
            norm, optimizer = self.gradient_norm(parameters), wrapped[number].optimizer
            metrics.add(f"{name}gradient_norm", norm)
            if self.norm_history is not None and number == 0:
                optimizer.found_inf = self.norm_history.is_spike(norm).float()
            if self.optimization.max_gradient_norm is not None:
                scale_gradients(parameters, (self.optimization.max_gradient_norm / (norm + 1e-6)).clamp(max=1.0))
            (wrapped[number] if is_counted and number == 0 else optimizer).step()
        self.zero_gradients()

    def zero_gradients(self) -> None:
        """Clear the gradients of actor and critic."""
        for optimizer in self.trainer.optimizers:
            optimizer.zero_grad()

    def count_step(self) -> None:
        """Count a batch of rollouts that nothing was learned from, as its first update would have been."""
        progress = self.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
        progress.increment_ready()
        progress.increment_completed()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """All is logged once per batch of rollouts, in `log_metrics`."""

    def log_metrics(
        self, experience: ExperienceBatch, metrics: DistributedMeans, updates: int, times: list[float]
    ) -> None:
        """Log a batch of rollouts, and adapt the coefficient of the KL penalty.

        Args:
            experience: the rollouts.
            metrics: metrics of the updates.
            updates: number of updates.
            times: seconds at the start, and after generation, scoring and learning.
        """
        found = describe(experience, metrics, self.alarms, self.ranks.sum, self.ranks.max)
        responses = len(experience.rollouts) * self.ranks.count
        if self.kl is not None:
            found["kl_coefficient"] = self.kl.coefficient
            self.kl.controller.update(found["kl"], responses)
        if self.norm_history is not None:
            found["skipped_steps"] = float(self.norm_history.skipped)
        found |= {"updates": updates, "learning_rate": self.trainer.optimizers[0].param_groups[0]["lr"]}
        for number, name in enumerate(("generation", "scoring", "learning")):
            found[f"seconds/{name}"] = times[number + 1] - times[number]
        found["responses_per_second"] = responses / (times[-1] - times[0])
        self.log_dict({name if name.startswith("alarms/") else f"train/{name}": v for name, v in found.items()})

    def latest_responses(self, count: int) -> list[dict[str, Any]]:
        """The first responses of this rank's last batch with their metrics, one dictionary each."""
        return [] if self.latest is None else sample_rows(self.latest, count, self.rollouts.tokenizer)

    # Validation, test and prediction

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """One response per prompt: its rewards, and its KL divergence from the reference."""
        rollouts = self.rollouts.generate(self.models.actor, batch, validation=True)
        metrics, real = response_metrics(rollouts, self.rollouts.score(rollouts, batch["rows"])), batch["sample"] >= 0
        if self.models.has_reference:
            kl_T, metrics["kl"] = kl_metrics(rollouts, self.models, self.chunked_forward(rollouts), self.temperature)
            self.means.add("kl_per_token", kl_T[real.cpu().repeat_interleave(rollouts.lengths)].to(self.device))
        for name, values in metrics.items():
            self.means.add(name, values[real.cpu()].to(self.device))

    def test_step(self, batch: Batch, batch_index: int) -> None:
        self.validation_step(batch, batch_index)

    def on_validation_epoch_end(self) -> None:
        self.means.log_to(self, "validation")

    def on_test_epoch_end(self) -> None:
        self.means.log_to(self, "test")

    def predict_step(self, batch: Batch, batch_index: int) -> dict[str, Any]:
        """A response to each prompt and its reward, by column."""
        rollouts = self.rollouts.generate(self.models.actor, batch, validation=True)
        return prediction_rows(batch["sample"].tolist(), self.rollouts.score(rollouts, batch["rows"]))

    # Models

    def load_weight_sources(self, tokenizer: Any, tokenizer_of: Callable[[Path], Any]) -> None:
        """Open the weights of reward models and of the critic, see `common.contracts.WeightSourcesUser`."""
        for reward in self.rollouts.rewards:
            reward.open_weights(tokenizer, tokenizer_of)
        self.models.open_critic(tokenizer, tokenizer_of, self.rollouts.reward.members())

    def configure_model(self) -> None:
        """Build actor, critic and reference; the strategy may allocate them later."""
        super().configure_model()
        if self.models.is_built or self.decoder is None:
            return
        self.models.build(self.decoder, cast(Any, self.stored))
        self.critic = self.models.critic
        # A reference on the CPU is no sub-module: nothing is to move, shard or save it.
        self.reference_decoder = None if self.models.reference_on_cpu else self.models.reference
        for model in (self.critic, self.reference_decoder):
            if model is not None and torch.get_default_device().type != "meta":
                self.materialize(model, self.device)

    def materialize(self, part: torch.nn.Module, device: torch.device) -> None:
        """Allocate a model, or a part of one, with its initial weights."""
        if not self.models.is_built:
            super().materialize(part, device)
        else:
            self.models.materialize(part, device, self.initial_weight)

    def build_optimizers(self) -> list[torch.optim.Optimizer]:
        """Optimizers of the actor and of the critic, which has a learning rate of its own."""
        optimizers = super().build_optimizers()
        if self.models.critic is not None:
            optimizers.append(self.critic_optimizer.build(self.models.critic.named_parameters()))
        return optimizers

    # Setup and checkpoints

    def preflight(self, trainer: Any) -> None:
        """Refuse data without prompts, and settings and layouts that cannot work."""
        super().preflight(trainer)
        refuse_settings(type(self).__name__, trainer, self.models.reference_kind, self.stored)

    def setup(self, stage: str) -> None:
        """Attach the rollout worker and the ranks to the Trainer."""
        super().setup(stage)
        self.ranks = DataParallelRanks(self.trainer)
        self.rollouts.setup(self.trainer)

    def make_metrics(self) -> None:
        """Means appear by name, see `NamedMeans`."""

    def on_fit_start(self) -> None:
        self.rollouts.prepare(self.device)

    def on_validation_start(self) -> None:
        self.rollouts.prepare(self.device)

    def on_test_start(self) -> None:
        self.rollouts.prepare(self.device)

    def on_predict_start(self) -> None:
        self.rollouts.prepare(self.device)

    def optimizer_names(self) -> list[str]:
        """Also the critic's."""
        names = super().optimizer_names()
        return names if self.models.critic is None else [*names, type(self.critic_optimizer).__name__]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        self.models.on_save_checkpoint(checkpoint)
        if self.kl is not None:
            checkpoint["kl_controller"] = self.kl.controller.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.models.on_load_checkpoint(checkpoint)
        if self.kl is not None and checkpoint.get("kl_controller"):
            self.kl.controller.load_state_dict(checkpoint["kl_controller"])
