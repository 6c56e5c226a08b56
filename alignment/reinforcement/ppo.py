"""Reinforcement learning from rewards of whole answers: PPO, GRPO, RLOO and REINFORCE++ as one LightningModule.

One `training_step` is one batch of prompts: answers are drawn and judged, then learned from in several updates. A step
of the Trainer is therefore a batch of rollouts, which is what positions in the data, schedules, checkpoints and logs
count: the first update of a batch goes through Lightning's optimizer, which counts it, all others through the optimizer
within. What sets the algorithms apart is one line, the advantage; what else differs is an option with its source.
"""

import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, Literal, cast

import torch

from alignment.reinforcement.advantages import Advantage, sum_by_response
from alignment.reinforcement.evaluation import AnswerEvaluation
from alignment.reinforcement.experience import ExperienceBatch, RewardShaping, log_probabilities
from alignment.reinforcement.kl import KLPenalty
from alignment.reinforcement.metrics import Alarms, DistributedMeans, describe
from alignment.reinforcement.minibatches import Minibatch, PPOUpdates, split_minibatches
from alignment.reinforcement.policy_loss import ClippedPolicyLoss
from alignment.reinforcement.ppo_loss import PPOLoss
from alignment.reinforcement.rollouts import MAX_GROUP_SIZE, RolloutEngine, Rollouts
from alignment.rewards.base import Reward
from common.errors import InputError
from models.decoder import Decoder
from models.inference.sampling import Sampling
from models.language_model import Batch
from models.optimizers.adamw import OptimizerFactory, scale_gradients


class PPO(AnswerEvaluation):
    """A policy that learns from rewards.

    Args:
        reward: what answers are worth.
        advantage: one of `alignment.reinforcement.advantages`: `GAE` with its critic is PPO, `GroupRelativeAdvantage`
            is GRPO, `LeaveOneOutAdvantage` RLOO.
        kl: what going away from the reference costs; null for nothing.
        policy_loss: loss of the policy.
        optimization: how often and in which parts a batch is learned from.
        group_size: responses to each prompt; advantages within groups need several.
        max_new_tokens: of an answer, at most.
        sampling: how tokens are drawn. Filters leave ratios over the whole vocabulary, as the trainer knows them.
        stop: names of control tokens that end an answer, beside the tokenizer's end of text.
        engine: who decodes; null takes `DecoderEngine`.
        monitored_reward: a reward that is only watched: where it falls while `reward` rises, the latter is
            over-optimized (Gao et al. 2022).
        reference, reference_precision, reference_on_cpu, critic_init_from, critic_optimizer: see `ActorCritic`.
        value_clip: how far the critic may move in a batch, 0.2 as in Stiennon et al.'s code; null for any.
        whiten_rewards: see `alignment.reinforcement.experience.RewardShaping`; off in TRL and in Ziegler et al.'s
            (2019) defaults for text.
        missing_eos_penalty: off the score of an answer without a stop token; 1 is TRL's examples', 0 is none.
        drop_zero_variance_groups: see `alignment.reinforcement.experience.RewardShaping`. Others are not drawn in their
            place (DAPO's dynamic sampling): a batch of which nothing is left makes no update and counts as a step.
        validation_sampling: how held-out prompts are answered; null as in training.
        alarms: limits of what is watched.
        further: arguments of `LanguageModel`.

    Raises:
        InputError: for settings that cannot be together.
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
        super().__init__(
            reward=reward,
            monitored_reward=monitored_reward,
            engine=engine,
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            validation_sampling=validation_sampling,
            stop=stop,
            microbatch_tokens=optimization.microbatch_tokens,
            has_critic=advantage.needs_values,
            critic_init_from=critic_init_from,
            critic_optimizer=critic_optimizer,
            reference=reference,
            reference_precision=reference_precision,
            reference_on_cpu=reference_on_cpu,
            **further,
        )
        self.automatic_optimization = False
        if not 1 <= group_size <= MAX_GROUP_SIZE:
            raise InputError(f"group_size={group_size}: must lie between 1 and {MAX_GROUP_SIZE}")
        if (advantage.needs_groups or drop_zero_variance_groups) and group_size < 2:
            compares = "drop_zero_variance_groups" if drop_zero_variance_groups else type(advantage).__name__
            raise InputError(f"group_size={group_size}: {compares} compares responses to one prompt, draw at least 2")
        if kl is not None and reference is None:
            raise InputError("kl without a reference: take reference=online, or leave kl out")
        if not 0 <= missing_eos_penalty < math.inf or (value_clip is not None and not value_clip > 0):
            raise InputError(
                f"missing_eos_penalty={missing_eos_penalty}, value_clip={value_clip}: must be numbers, not negative, "
                "value_clip above 0 or null"
            )
        self.optimization, self.group_size, self.alarms, self.kl = optimization, group_size, alarms, kl
        self.scoring = RewardShaping(advantage, kl, missing_eos_penalty, whiten_rewards, drop_zero_variance_groups)
        self.objective = PPOLoss(policy_loss, kl, value_clip, sampling.temperature, max_new_tokens)
        self.latest: ExperienceBatch | None = None

    # A batch of rollouts

    def training_step(self, batch: Batch, batch_index: int) -> None:
        """Draw answers, judge them, learn from them."""
        times = [time.perf_counter()]
        rollouts = self.generate_rollouts(batch, self.sampling, self.group_size)
        times.append(time.perf_counter())
        experience = self.score_rollouts(rollouts, batch["rows"])
        times.append(time.perf_counter())
        sums, updates = self.update_policy(experience)
        self.log_metrics(experience, sums, updates, times)
        for config in self.trainer.lr_scheduler_configs:
            cast(Any, config.scheduler).step()
        self.latest = experience

    def score_rollouts(self, rollouts: Rollouts, rows: Sequence[Any]) -> ExperienceBatch:
        """All that is known of answers before anything is learned from them."""
        responses, scores, monitored_reward = self.scores(rollouts, rows)
        scores = scores.to(self.device)
        sampled = rollouts.log_probabilities.to(self.device)
        passes, temperature = self.chunked_forward(rollouts), self.sampling.temperature
        one_update = self.optimization.epochs * self.optimization.minibatches == 1
        fills_old = one_update and not self.scoring.has_kl_in_reward
        old = torch.full_like(sampled, torch.nan)
        if not fills_old:
            old = passes(lambda packed: log_probabilities(cast(Decoder, self.decoder), packed, temperature))
        reference = values = None
        if self.reference is not None:
            reference = passes(lambda packed: self.reference_log_probabilities(packed, temperature))
        if self.critic is not None:
            values = passes(self.values)
        self.release_gathered_weights()
        log_ratio = None if reference is None else (sampled if fills_old else old) - reference
        judged = self.scoring(rollouts, scores, log_ratio, values, self.sum_over_ranks)
        return ExperienceBatch(
            rollouts,
            responses,
            scores,
            monitored_reward,
            sampled,
            old,
            fills_old,
            reference,
            log_ratio,
            values,
            *judged,
        )

    def update_policy(self, experience: ExperienceBatch) -> tuple[DistributedMeans, int]:
        """Update actor and critic; the first update of a batch is the one that the Trainer counts.

        A minibatch of which nothing is kept makes none: momentum and decay would move weights that learned nothing.

        Returns:
            What is watched, and the number of updates.
        """
        sums, made = DistributedMeans(self.device, self.ranks), 0
        reductions = self.sum_over_ranks, self.most_over_ranks
        for epoch in range(self.optimization.epochs):
            for minibatch in split_minibatches(
                experience.rollouts, experience.kept, self.optimization, self.sampling.seed, epoch, *reductions
            ):
                if minibatch.is_empty:
                    continue
                found = self.accumulate_gradients(experience, minibatch)
                limit = (
                    math.inf if self.optimization.target_kl is None or not made else 1.5 * self.optimization.target_kl
                )
                if limit < math.inf and found.means(self.sum_over_ranks)["update_kl"] > limit:
                    self.zero_gradients()
                    return sums, made
                self.apply_gradients(found, is_counted=made == 0)
                sums.include(found)
                made += 1
        if not made:
            self.count_step()
        return sums, made

    def count_step(self) -> None:
        """Count a batch of rollouts that nothing was learned from, as its first update would have been."""
        progress = self.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
        progress.increment_ready()
        progress.increment_completed()

    def accumulate_gradients(self, experience: ExperienceBatch, minibatch: Minibatch) -> DistributedMeans:
        """Gradients of a minibatch, piece by piece, and what is watched of them."""
        sums = DistributedMeans(self.device, self.ranks)
        for number, microbatch in enumerate(minibatch.microbatches, start=1):
            with nullcontext() if number == len(minibatch.microbatches) else self.gradients_kept_local():
                loss = self.objective(cast(Decoder, self.decoder), self.critic, experience, minibatch, microbatch, sums)
                # Gradients are averaged over ranks, whose losses are parts of a sum.
                self.manual_backward(loss * self.ranks)
        return sums

    def apply_gradients(self, sums: DistributedMeans, is_counted: bool) -> None:
        """One step of every optimizer, each model's gradients clipped by themselves."""
        wrapped = cast(Any, self.optimizers())
        wrapped = wrapped if isinstance(wrapped, list) else [wrapped]
        for number, (name, parameters) in enumerate(self.learners()):
            norm, optimizer = self.gradient_norm(parameters), wrapped[number].optimizer
            sums.add(f"{name}gradient_norm", norm)
            if self.norm_history is not None and number == 0:
                optimizer.found_inf = self.norm_history.is_spike(norm).float()
            if self.optimization.max_gradient_norm is not None:
                scale_gradients(parameters, (self.optimization.max_gradient_norm / (norm + 1e-6)).clamp(max=1.0))
            (wrapped[number] if is_counted and number == 0 else optimizer).step()
        self.zero_gradients()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """All is logged once a batch of rollouts, in `log_metrics`."""

    def log_metrics(
        self, experience: ExperienceBatch, sums: DistributedMeans, updates: int, times: list[float]
    ) -> None:
        """Log a batch of rollouts, and let the controller of the divergence know."""
        found = describe(experience, sums, self.alarms, self.sum_over_ranks, self.most_over_ranks)
        if self.kl is not None:
            found["kl_coefficient"] = self.kl.coefficient
            self.kl.controller.update(found["kl"], len(experience.rollouts) * self.ranks)
        if self.norm_history is not None:
            found["skipped_steps"] = float(self.norm_history.skipped)
        found |= {"updates": updates, "learning_rate": self.trainer.optimizers[0].param_groups[0]["lr"]}
        times = [*times, time.perf_counter()]
        names = ("generation", "scoring", "learning")
        found |= {f"seconds/{name}": times[i + 1] - times[i] for i, name in enumerate(names)}
        found["responses_per_second"] = len(experience.rollouts) * self.ranks / (times[-1] - times[0])
        self.log_dict({name if name.startswith("alarms/") else f"train/{name}": v for name, v in found.items()})

    def latest_responses(self, most: int) -> list[dict[str, Any]]:
        """The first answers of this rank's last batch and what they were worth, for whoever writes them down."""
        if self.latest is None:
            return []
        found, lengths = self.latest, self.latest.rollouts.lengths.to(self.device)
        columns: dict[str, list[Any]] = {
            "prompt": [self.tokenizer.decode(response.prompt) for response in found.responses[:most]],
            "continuation": [response.text for response in found.responses[:most]],
            "reward": found.scores[:most].tolist(),
        }
        if found.monitored_reward is not None:
            columns["monitored_reward"] = found.monitored_reward[:most].tolist()
        if found.log_ratio is not None:
            columns["kl"] = sum_by_response(found.log_ratio, lengths)[:most].tolist()
        columns |= {"tokens": [len(response.tokens) for response in found.responses[:most]]}
        columns |= {"finish": [response.finish for response in found.responses[:most]]}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    # Checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        if self.kl is not None:
            checkpoint["kl_controller"] = self.kl.controller.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        if self.kl is not None and checkpoint.get("kl_controller"):
            self.kl.controller.load_state_dict(checkpoint["kl_controller"])
