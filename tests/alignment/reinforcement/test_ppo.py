"""The whole step: its loss against loops over tokens, layouts against one process, a killed run against a whole one."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from alignment import (
    GAE,
    AdaptiveKL,
    Alarms,
    BatchNormalizedAdvantage,
    ClippedPolicyLoss,
    FixedKL,
    GroupRelativeAdvantage,
    KLPenalty,
    LeaveOneOutAdvantage,
    PPOUpdates,
)
from alignment.reinforcement.experience import (
    ExperienceBatch,
    RewardShaping,
    responses_for_rewards,
    scores_of,
    token_rewards,
)
from alignment.reinforcement.kl import estimate
from alignment.reinforcement.metrics import DistributedMeans, correlation, extremes, repetition
from alignment.reinforcement.minibatches import Minibatch, split_minibatches
from alignment.reinforcement.ppo_loss import PPOLoss
from alignment.reinforcement.rollouts import Rollouts
from common.errors import InputError
from models.config import Experts
from models.decoder import auxiliary_loss, build_decoder
from models.inference.generation import Generated
from models.inference.sampling import Sampling
from models.lora import LoRA
from models.optimizers.adamw import AdamW
from models.optimizers.skip_step import SpikeSkip
from tests.alignment.reinforcement.test_rollouts import CRITIC, EXACT, made_up
from tests.helpers.distributed import run_ranks
from tests.helpers.policy_training import CONFIG, EOS, Length, Letters, Logged, Nothing, TinyPrompts, ppo, train

CPU = torch.device("cpu")


def rollouts_of(*responses: tuple[list[int], str], prompt: tuple[int, ...] = (EOS, 4), group: int = 1) -> Rollouts:
    found = [Generated(tokens, [-1.0] * len(tokens), cast(Any, finish)) for tokens, finish in responses]
    return Rollouts([list(prompt)] * len(found), found, list(range(len(found))), group)


# Scores and rewards


def test_a_score_belongs_to_the_stop_token_itself() -> None:
    """Not to what comes after it, which is masked away (a known bug); the last token where there is none."""
    rollouts = rollouts_of(([4, 5, EOS], "stop"), ([6, 7], "length"), ([EOS], "stop"))
    rewards = token_rewards(torch.tensor([1.0, 2.0, 3.0]), rollouts.lengths)
    packed = rollouts.pack([0, 1, 2], CPU)
    placed = [(int(token), float(reward)) for token, reward in zip(packed.targets, rewards, strict=True) if reward]
    assert placed == [(EOS, 1.0), (7, 2.0), (EOS, 3.0)]
    scoring = RewardShaping(
        GAE(0.0, 0.0, whiten=False), None, 0.0, whiten_rewards=False, drop_zero_variance_groups=False
    )
    advantages, _, _ = scoring(rollouts, torch.tensor([1.0, 2.0, 3.0]), None, torch.full((6,), 0.5), lambda x: x)
    assert advantages.tolist() == [-0.5, -0.5, 0.5, -0.5, 1.5, 2.5]


def test_an_answer_without_a_stop_token_costs_whatever_its_prompt_holds() -> None:
    rollouts = rollouts_of(([4, 5, EOS], "stop"), ([6, 7], "length"))
    scoring = RewardShaping(
        GroupRelativeAdvantage(divide_by_std=False), None, 1.0, whiten_rewards=False, drop_zero_variance_groups=False
    )
    together = Rollouts(rollouts.prompts, rollouts.responses, [0, 0], 2)
    advantages, returns, kept = scoring(together, torch.tensor([0.5, 0.5]), None, None, lambda x: x)
    assert advantages.tolist() == [0.5, 0.5, 0.5, -0.5, -0.5]
    assert returns is None
    assert kept.tolist() == [True, True]


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_the_divergence_is_taken_off_every_tokens_reward(estimator: Any) -> None:
    rollouts, log_ratio = rollouts_of(([4, 5, EOS], "stop"), ([6, 7], "length")), torch.randn(5)
    penalty = KLPenalty(FixedKL(0.3), estimator)
    scoring = RewardShaping(
        BatchNormalizedAdvantage(), penalty, 0.0, whiten_rewards=False, drop_zero_variance_groups=False
    )
    seen: list[Tensor] = []

    class Watched(BatchNormalizedAdvantage):
        def __call__(self, rewarded: Any, reduce: Any = None) -> Any:
            seen.append(rewarded.rewards)
            return super().__call__(rewarded, reduce)

    scoring = RewardShaping(Watched(), penalty, 0.0, whiten_rewards=False, drop_zero_variance_groups=False)
    scoring(rollouts, torch.tensor([1.0, 2.0]), log_ratio, None, lambda x: x)
    expected = torch.tensor([0, 0, 1.0, 0, 2.0]) - 0.3 * estimate(estimator, log_ratio)
    torch.testing.assert_close(seen[0], expected)
    whitened = RewardShaping(Watched(), penalty, 0.0, whiten_rewards=True, drop_zero_variance_groups=False)
    whitened(rollouts, torch.tensor([1.0, 2.0]), log_ratio, None, lambda x: x)
    assert seen[1].mean().item() == pytest.approx(expected.mean().item(), abs=1e-5)
    assert seen[1].std().item() == pytest.approx(1, abs=1e-5)


def test_prompts_whose_answers_score_alike_are_left_out() -> None:
    rollouts = rollouts_of(*[([4, EOS], "stop")] * 4, group=2)
    scoring = RewardShaping(LeaveOneOutAdvantage(), None, 0.0, whiten_rewards=False, drop_zero_variance_groups=True)
    _, _, kept = scoring(rollouts, torch.tensor([1.0, 1.0, 0.0, 1.0]), None, None, lambda x: x)
    assert kept.tolist() == [False, False, True, True]
    (minibatch,) = split_minibatches(rollouts, kept, PPOUpdates(1, 1), 0, 0, lambda x: x, lambda x: x)
    assert sorted(minibatch.microbatches[0]) == [2, 3]
    assert (minibatch.tokens, minibatch.responses) == (4, 2)


def test_rewards_see_the_answer_without_its_stop_token_and_must_be_numbers() -> None:
    rollouts = rollouts_of(([4, 5, EOS], "stop"), ([6, 7], "length"), group=2)
    responses = responses_for_rewards(rollouts, [{"answer": "x"}], Letters())
    assert [(response.text, list(response.tokens), response.finish) for response in responses] == [
        ("ef", [4, 5, EOS], "stop"),
        ("gh", [6, 7], "length"),
    ]
    assert all(response.row == {"answer": "x"} for response in responses)
    with pytest.raises(InputError, match="monitored_reward=function says nan of 2 answers"):
        scores_of(cast(Any, lambda responses: torch.tensor([1.0, math.nan])), responses, "monitored_reward")


# The loss


def experience_of(rollouts: Rollouts, seed: int = 0) -> ExperienceBatch:
    """Made-up numbers for everything that is known of these answers."""
    generator, tokens = torch.Generator().manual_seed(seed), int(rollouts.lengths.sum())

    def noise(scale: float = 1.0) -> Tensor:
        return torch.randn(tokens, generator=generator, dtype=torch.float64) * scale

    old = -2 + noise(0.3)
    return ExperienceBatch(
        rollouts, [], torch.zeros(len(rollouts)), None, old + noise(0.5), old, False, old + noise(0.3), None,
        noise(), noise(), noise(), torch.ones(len(rollouts), dtype=torch.bool),
    )  # fmt: skip


def naive_loss(experience: ExperienceBatch, chosen: list[int], objective: PPOLoss, actor: Any, critic: Any) -> Tensor:
    """Token by token, each answer in a row of its own with all of its logits."""
    s = objective.policy_loss
    low, high = s.clip, s.clip if s.clip_high is None else s.clip_high
    starts = (experience.rollouts.lengths.cumsum(0) - experience.rollouts.lengths).tolist()
    assert experience.reference is not None
    assert experience.values is not None
    assert experience.returns is not None
    total = torch.zeros((), dtype=torch.float64)
    tokens = sum(len(experience.rollouts.responses[n].tokens) for n in chosen)
    for n in chosen:
        prompt, response = list(experience.rollouts.prompts[n]), experience.rollouts.responses[n].tokens
        row = torch.tensor([[*prompt, *response]])
        scores = (actor.output(actor(row))[0] / objective.temperature).log_softmax(-1)
        values = critic.output(critic(row))[0, :, 0]
        weight = {
            "token_mean": 1 / tokens,
            "sequence_mean": 1 / len(response) / len(chosen),
            "constant_length": 1 / objective.longest / len(chosen),
        }[s.aggregation]
        for place, token in enumerate(response):
            t, at = starts[n] + place, len(prompt) + place - 1
            new, old, advantage = scores[at, token], experience.old[t], experience.advantages[t]
            ratio = (new - old).exp()
            loss = -torch.minimum(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)
            if s.importance_cap is not None:
                loss = loss * (old - experience.sampled[t]).exp().clamp(max=s.importance_cap)
            if objective.kl is not None and objective.kl.apply_to == "loss":
                r = new - experience.reference[t]
                k = {"k2": r * r / 2, "k3": (-r).exp() - 1 + r}[objective.kl.estimator]
                loss = loss + objective.kl.coefficient * k
            loss = loss + s.entropy_weight * (scores[at].exp() * scores[at]).sum()
            v, before, target = values[at], experience.values[t], experience.returns[t]
            errors = (v - target) ** 2
            if objective.value_clip is not None:
                near = torch.minimum(torch.maximum(v, before - objective.value_clip), before + objective.value_clip)
                errors = torch.maximum(errors, (near - target) ** 2)
            total = total + weight * loss + errors / 2 / tokens
    return total


@pytest.mark.parametrize(
    "objective",
    [
        PPOLoss(ClippedPolicyLoss(), None, 0.2, 1.0, 7),
        PPOLoss(
            ClippedPolicyLoss(0.1, 0.28, "sequence_mean", 1.2, 0.1), KLPenalty(FixedKL(0.2), "k3", "loss"), None, 0.7, 7
        ),
        PPOLoss(ClippedPolicyLoss(aggregation="constant_length"), KLPenalty(FixedKL(0.2), "k2", "loss"), 0.1, 1.3, 9),
        PPOLoss(ClippedPolicyLoss(), KLPenalty(FixedKL(9.0), "k1", "reward"), 0.2, 1.0, 7),
    ],
    ids=["ppo", "grpo", "dr_grpo", "in the reward"],
)
@pytest.mark.parametrize("group", [1, 3])
def test_the_loss_and_its_gradients_equal_a_loop_however_it_is_cut(objective: PPOLoss, group: int) -> None:
    experience, critic = experience_of(made_up(5, group)), build_decoder(CRITIC.config, 4).double()
    updates = PPOUpdates(minibatches=2, microbatch_tokens=9)
    minibatch = split_minibatches(experience.rollouts, experience.kept, updates, 3, 0, lambda x: x, lambda x: x + 1)[0]
    assert len(minibatch.microbatches) >= 3
    assert not minibatch.microbatches[-1]  # what a rank with less to do adds
    chosen = sorted(number for microbatch in minibatch.microbatches for number in microbatch)
    assert 0 < len(chosen) < len(experience.rollouts)
    sums, results = DistributedMeans(CPU), []
    for cut in (True, False):
        for model in (EXACT, critic):
            model.zero_grad()
        if cut:
            losses = [
                objective(EXACT, critic, experience, minibatch, microbatch, sums)
                for microbatch in minibatch.microbatches
            ]
        else:
            losses = [naive_loss(experience, chosen, objective, EXACT, critic)]
        for loss in losses:
            loss.backward()
        gradients = [p.grad.clone() for model in (EXACT, critic) for p in model.parameters() if p.grad is not None]
        results.append((sum(float(loss.detach()) for loss in losses), gradients))
    assert results[0][0] == pytest.approx(results[1][0], abs=1e-6)
    assert max(float(gradient.abs().max()) for gradient in results[1][1]) > 1e-3
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-5, atol=1e-8)
    means = sums.means()
    assert means["loss"] + means["critic/loss"] == pytest.approx(results[1][0], abs=1e-6)


def test_what_experts_add_is_a_mean_over_all_ranks_tokens() -> None:
    """Two ranks with the same answers learn what one of them alone would, and an idle one adds nothing."""
    mixed = replace(CONFIG, experts=Experts(4, balance_weight=0.5))
    actor = build_decoder(mixed, 1).double()
    critic = build_decoder(replace(mixed, scalar_output=True, tied_embeddings=False), 2).double()
    experience, microbatch = experience_of(made_up(5)), list(range(6))
    objective, tokens = PPOLoss(ClippedPolicyLoss(), None, 0.2, 1.0, 7), float(experience.rollouts.lengths.sum())

    def loss(minibatch: Minibatch, microbatch: list[int]) -> float:
        return float(objective(actor, critic, experience, minibatch, microbatch, DistributedMeans(CPU)).detach())

    alone, shared = (
        loss(Minibatch([microbatch], tokens, 6), microbatch),
        loss(Minibatch([microbatch], 2 * tokens, 12), microbatch),
    )
    assert auxiliary_loss(actor) is not None
    assert 2 * shared == pytest.approx(alone, rel=1e-9)
    assert loss(Minibatch([microbatch, []], tokens, 6), []) == 0
    sums = DistributedMeans(CPU)
    objective(actor, critic, experience, Minibatch([microbatch], tokens, 6), microbatch, sums)
    added = sum(float(cast(Tensor, auxiliary_loss(model)).detach()) for model in (actor, critic))
    assert alone == pytest.approx(sums.means()["loss"] + sums.means()["critic/loss"] + added, rel=1e-6)


# Whole runs


def test_a_step_of_the_trainer_is_a_batch_of_rollouts(tmp_path: Path) -> None:
    """However many updates it makes: samples, schedule and counters follow the batches."""
    record = train(str(tmp_path), settings={"optimization": PPOUpdates(3, 2, 1000)})
    assert [sorted(drawn) for drawn in record.drawn] == [[4 * i + n for n in range(4)] for i in range(4)]
    assert [step["train/updates"] for step in record.steps] == [6] * 4
    rates = [step["train/learning_rate"] for step in record.steps]
    expected = [1e-2 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * i / 4))) for i in range(1, 5)]
    assert rates == pytest.approx(expected)
    assert len(record.validations) == 1
    assert record.validations[0]["validation/kl"] > 0


def test_a_fresh_policy_is_where_its_reference_is(tmp_path: Path) -> None:
    """Temperature on both sides of every ratio: the first step's divergences and drift are nothing but rounding."""
    for settings in (
        {"optimization": PPOUpdates(1, 1)},
        {"reference": "adapter_off", "decoder": CONFIG, "lora": LoRA(rank=2), "optimization": PPOUpdates(1, 1)},
        {
            "advantage": GroupRelativeAdvantage(),
            "kl": KLPenalty(FixedKL(), "k3", "loss"),
            "optimization": PPOUpdates(1, 1),
        },
    ):
        record = train(str(tmp_path), settings=settings, options={"max_steps": 2})
        first, second = record.steps
        for name in ("train/kl", "train/kl_per_token/k3", "train/update_kl", "train/drift/kl", "train/clip_fraction"):
            assert first[name] == pytest.approx(0, abs=1e-5), name
        assert first["train/drift/ratio"] == pytest.approx(1, abs=1e-5)
        assert second["train/kl_per_token/k3"] > 1e-6
        assert second["train/drift/kl"] == pytest.approx(0, abs=1e-5)


def test_a_reference_in_fewer_bits_is_nearly_the_same(tmp_path: Path) -> None:
    record = train(str(tmp_path), settings={"reference_precision": "bfloat16"}, options={"max_steps": 1})
    assert 0 < abs(record.steps[0]["train/kl_per_token/k1"]) < 0.02


def test_a_reference_on_the_cpu_says_the_same_and_is_left_where_it_is(tmp_path: Path) -> None:
    """Nobody moves, shards or saves it; another one is refused where a run goes on."""
    options = {"max_steps": 2, "val_check_interval": 2}
    beside = train(str(tmp_path), options=options)
    module, saved = ppo(reference_on_cpu=True), str(tmp_path / "half.ckpt")
    record = train(str(tmp_path), options=options, module=module, save=saved)
    assert_same_steps(record.steps, beside.steps, 0)
    assert record.validations == beside.validations
    assert record.steps[-1]["train/kl_per_token/k3"] > 0
    assert cast(Any, module.reference_decoder).tok_embeddings.weight.device.type == "cpu"
    assert not any(name.startswith("reference") for name in module.state_dict())
    module.to("meta")
    assert not any(parameter.is_meta for parameter in cast(Any, module.reference_decoder).parameters())
    longer = {"max_steps": 3, "val_check_interval": 3}
    again = train(str(tmp_path), options=longer, settings={"reference_on_cpu": True}, resume=saved)
    assert len(again.steps) == 1
    for changes, message in (
        ({"reference_on_cpu": True, "initial_seed": 9}, "another reference than the checkpoint"),
        ({}, "written with reference_on_cpu=true"),
    ):
        with pytest.raises(InputError, match=message):
            train(str(tmp_path), options=longer, settings=changes, resume=saved)


def test_bfloat16_drifts_and_is_weighed(tmp_path: Path) -> None:
    settings = {"policy_loss": ClippedPolicyLoss(importance_cap=2.0)}
    record = train(str(tmp_path), settings=settings, options={"precision": "bf16-mixed", "max_steps": 2})
    for step in record.steps:
        assert step["train/drift/smallest_ratio"] <= step["train/drift/ratio"] <= step["train/drift/largest_ratio"]
        assert step["train/drift/ratio"] == pytest.approx(1, abs=0.05)
        assert all(map(math.isfinite, step.values()))


LAYOUTS: dict[str, Any] = {"fsdp2": {}, "replicas": {"data_parallel_replicate_size": 2}, "ddp": "ddp"}
SETTINGS: dict[str, Callable[[], dict[str, Any]]] = {
    "ppo": lambda: {"kl": KLPenalty(AdaptiveKL(0.2, 0.01, 40)), "whiten_rewards": True},
    "on_cpu": lambda: {"reference_on_cpu": True},
    "grpo": lambda: {
        "advantage": GroupRelativeAdvantage(),
        "kl": KLPenalty(FixedKL(0.1), "k3", "loss"),
        "drop_zero_variance_groups": True,
        "policy_loss": ClippedPolicyLoss(aggregation="sequence_mean"),
        "group_size": 4,
        "reward": Length(),
    },
}
UNEQUAL = {"train/seconds/generation", "train/seconds/scoring", "train/seconds/learning", "train/responses_per_second"}


def assert_same_steps(found: list[dict[str, float]], expected: list[dict[str, float]], tolerance: float) -> None:
    assert len(found) == len(expected)
    for step, (mine, theirs) in enumerate(zip(found, expected, strict=True)):
        assert mine.keys() == theirs.keys()
        for name in mine.keys() - UNEQUAL:
            assert mine[name] == pytest.approx(theirs[name], abs=tolerance, nan_ok=True), (step, name)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Logged]:
    """What one process logged, by settings."""
    folder = str(tmp_path_factory.mktemp("alone"))
    return {name: train(folder, settings=settings(), batch_size=4) for name, settings in SETTINGS.items()}


@pytest.mark.parametrize(
    ("settings", "layout"),
    [("ppo", "fsdp2"), ("ppo", "replicas"), ("ppo", "ddp"), ("grpo", "fsdp2"), ("on_cpu", "fsdp2")],
)
def test_two_ranks_are_one_process(settings: str, layout: str, tmp_path: Path, alone: dict[str, Logged]) -> None:
    """Draws, whitening, token counts, divergences, clipping, several updates a batch: all over both ranks' tokens."""
    expected = alone[settings]
    ranks = run_ranks(2, train, str(tmp_path), 2, LAYOUTS[layout], SETTINGS[settings](), 2)
    drawn = [ranks[0].drawn[step] | ranks[1].drawn[step] for step in range(4)]
    assert drawn == expected.drawn
    assert settings != "grpo" or min(step["train/kept"] for step in expected.steps) < 1
    for rank in ranks:
        assert_same_steps(rank.steps, expected.steps, 2e-4)
        assert rank.validations[0] == pytest.approx(expected.validations[0], abs=1e-4)
    assert len({len(response) for responses in expected.drawn[0].values() for response in responses}) > 1


def test_a_killed_run_goes_on_with_the_same_rollouts_and_losses(tmp_path: Path) -> None:
    more = {"optimization": PPOUpdates(2, 2, 60)}
    whole = train(str(tmp_path), settings=SETTINGS["ppo"]() | more, save=str(tmp_path / "half.ckpt"))
    again = train(str(tmp_path), settings=SETTINGS["ppo"]() | more, resume=str(tmp_path / "half.ckpt"))
    assert again.drawn == whole.drawn[2:]
    for mine, theirs in zip(again.steps, whole.steps[2:], strict=True):
        assert {n: mine[n] for n in mine.keys() - UNEQUAL} == {n: theirs[n] for n in theirs.keys() - UNEQUAL}
    coefficients = [step["train/kl_coefficient"] for step in whole.steps]
    assert len(set(coefficients)) == 4


def test_a_policy_that_has_gone_far_enough_is_left_alone(tmp_path: Path) -> None:
    """The first update of a batch is always made; here nothing further is."""
    record = train(str(tmp_path), settings={"optimization": PPOUpdates(4, 2, 1000, target_kl=1e-9)})
    assert [step["train/updates"] for step in record.steps] == [1] * 4
    record = train(str(tmp_path), settings={"optimization": PPOUpdates(4, 2, 1000, target_kl=1e9)})
    assert [step["train/updates"] for step in record.steps] == [8] * 4


def test_a_batch_that_teaches_nothing_moves_nothing(tmp_path: Path) -> None:
    """Momentum and decay would; the batch still counts as a step, and the schedule goes on."""
    changes = {
        "advantage": GroupRelativeAdvantage(),
        "drop_zero_variance_groups": True,
        "optimizer": AdamW(1e-2, weight_decay=0.1),
        "reward": Nothing(),
        "missing_eos_penalty": 0.0,
        "kl": None,
        "reference": None,
    }
    for updates in (PPOUpdates(2, 2), PPOUpdates(1, 1)):
        module = ppo(**changes, optimization=updates)
        record = train(str(tmp_path), module=module)
        assert [step["train/updates"] for step in record.steps] == [0] * 4
        assert [step["train/kept"] for step in record.steps] == [0] * 4
        assert [sorted(drawn) for drawn in record.drawn] == [[4 * i + n for n in range(4)] for i in range(4)]
        assert record.steps[-1]["train/learning_rate"] < record.steps[0]["train/learning_rate"]
        assert module.trainer.global_step == 4
        fresh = dict(build_decoder(CONFIG, module.initial_seed).named_parameters())
        for name, parameter in cast(Any, module.decoder).named_parameters():
            torch.testing.assert_close(parameter, fresh[name], rtol=0, atol=0)


def test_updates_with_a_spiking_gradient_are_left_out(tmp_path: Path) -> None:
    """Of the actor, whatever update of a batch it is; a batch still counts as one step."""
    record = train(
        str(tmp_path), settings={"spike_skip": SpikeSkip(0.1, window=4), "optimization": PPOUpdates(3, 2, 1000)}
    )
    skipped = [step["train/skipped_steps"] for step in record.steps]
    assert skipped == sorted(skipped)
    assert 0 < skipped[-1] < 24
    assert len(record.steps) == 4


@pytest.mark.parametrize(
    "settings",
    [
        {"advantage": GAE(), "critic_optimizer": AdamW(3e-2, weight_decay=0.0)},
        {"advantage": GroupRelativeAdvantage(), "kl": None, "reference": None},
        {"advantage": LeaveOneOutAdvantage()},
        {"advantage": BatchNormalizedAdvantage()},
    ],
    ids=["ppo", "grpo", "rloo", "reinforce++"],
)
def test_it_learns_to_say_what_is_rewarded(settings: dict[str, Any], tmp_path: Path) -> None:
    more = {"optimization": PPOUpdates(2, 1), "missing_eos_penalty": 0.0, "group_size": 4, "optimizer": AdamW(2e-2)}
    record = train(str(tmp_path), settings=more | settings, batch_size=8, options={"max_steps": 16})
    rewards = [step["train/reward"] for step in record.steps]
    assert rewards[0] < 0.2
    assert rewards[-1] > 0.6
    assert record.validations[-1]["validation/reward"] > 0.6


def test_the_critic_begins_as_the_reward_model() -> None:
    weights = dict(CRITIC.named_parameters())
    stored = SimpleNamespace(whole_config=lambda: CRITIC.config, merged=weights.__getitem__)
    module, fresh = ppo(critic_init_from="reward-run"), ppo()
    module.load_critic_from(stored)
    packed = made_up(2).pack(list(range(6)), CPU)
    for model in (module, fresh):
        model.configure_model()
    with torch.no_grad():
        hidden = packed.hidden(CRITIC)
        torch.testing.assert_close(module.values(packed), CRITIC.output(hidden)[:, 0])
    assert fresh.critic is not None
    assert fresh.values(packed).abs().max() == 0
    torch.testing.assert_close(fresh.critic.tok_embeddings.weight, cast(Any, fresh.decoder).tok_embeddings.weight)
    stored.whole_config = lambda: CONFIG
    with pytest.raises(InputError, match="this has 16 and an output a token"):
        module.load_critic_from(stored)


# What is watched


def test_sums_are_means_over_all_that_was_added() -> None:
    sums, others = DistributedMeans(CPU), DistributedMeans(CPU)
    sums.add("a", torch.tensor([1.0, 3.0]), torch.tensor([1.0, 0.0]))
    others.add("a", torch.tensor([5.0]))
    sums.include(others)
    sums.add("nothing", torch.zeros(0))
    for microbatch in (0.25, 0.75):
        sums.add_part("part", torch.tensor(microbatch), 0.5)
    means = sums.means()
    assert means["a"] == 3
    assert means["part"] == 1
    assert math.isnan(means["nothing"])


def test_signs_of_cheating() -> None:
    assert repetition([1, 2, 3]) == 0
    assert repetition([1, 2] * 6) == pytest.approx(1 - 2 / 9)
    x = torch.randn(30, dtype=torch.float64)
    y = x + torch.randn(30, dtype=torch.float64)
    assert correlation(x, y) == pytest.approx(torch.corrcoef(torch.stack((x, y)))[0, 1].item())
    assert correlation(x, torch.ones(30)) == 0
    assert extremes(torch.tensor([2.0, -1.0])) == (-1, 2)
    ringing = Alarms(0.8, 0.3, 0.5).ringing(0.9, 0.1, 0.4)
    assert ringing == {"alarms/length_correlation": 1, "alarms/repetition": 0, "alarms/unfinished": 1}


def test_length_that_is_rewarded_rings(tmp_path: Path) -> None:
    record = train(str(tmp_path), settings={"reward": Length()}, options={"max_steps": 1})
    assert record.steps[0]["alarms/length_correlation"] == 1
    assert record.steps[0]["train/length_correlation"] == pytest.approx(1)


# Refusals


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"advantage": GroupRelativeAdvantage(), "group_size": 1},
            "group_size=1: GroupRelativeAdvantage compares answers to one prompt",
        ),
        ({"drop_zero_variance_groups": True, "group_size": 1}, "group_size=1: drop_zero_variance_groups compares"),
        ({"group_size": 0}, "group_size=0: must lie between 1"),
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"sampling": Sampling(temperature=0.0)}, "temperature=0.0"),
        ({"sampling": Sampling(repetition_penalty=1.2)}, "repetition_penalty=1.2"),
        ({"reference": None}, "kl without a reference"),
        ({"reference": "adapter_off"}, "there is no adapter"),
        ({"reference": None, "kl": None, "reference_precision": "bfloat16"}, "reference_precision=bfloat16"),
        ({"reference": None, "kl": None, "reference_on_cpu": True}, "reference_on_cpu=true: only"),
        ({"advantage": LeaveOneOutAdvantage(), "critic_init_from": "there"}, "needs no critic"),
        ({"missing_eos_penalty": -1.0}, "missing_eos_penalty=-1.0"),
        ({"value_clip": 0.0}, "value_clip=0.0"),
        ({"z_loss": 0.1}, "z_loss=0.1"),
    ],
    ids=str,
)
def test_what_cannot_be_together_gets_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ppo(**changes)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("gradient_clip_val", 1.0, "max_gradient_norm"),
        ("accumulate_grad_batches", 2, "microbatch_tokens"),
        ("max_steps", -1, "max_steps=-1"),
    ],
)
def test_what_lightning_has_no_say_in_is_refused(name: str, value: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        train(str(tmp_path), options={name: value})


def test_layouts_and_settings_that_cannot_work_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no control token of the tokenizer"):
        train(str(tmp_path), settings={"stop": ["<|nowhere|>"]})
    for arguments, message in (({"epochs": 0}, "epochs=0"), ({"target_kl": 0.0}, "target_kl=0.0")):
        with pytest.raises(InputError, match=message):
            PPOUpdates(**arguments)
    with pytest.raises(InputError, match="alarms.repetition=0"):
        Alarms(repetition=0)
    module = ppo()
    trainer = SimpleNamespace(
        precision="32-true", state=SimpleNamespace(fn="validate"), gradient_clip_val=None, accumulate_grad_batches=1,
        strategy=SimpleNamespace(sizes=SimpleNamespace(tp=2, pp=1)), datamodule=TinyPrompts(),
    )  # fmt: skip
    with pytest.raises(InputError, match="decoded by a whole model on every rank"):
        module.preflight(trainer)
    trainer.strategy = SimpleNamespace()
    trainer.datamodule = SimpleNamespace(source_names=["pairs"])
    with pytest.raises(InputError, match="answers prompts: take datamodules.PromptData"):
        module.preflight(trainer)
