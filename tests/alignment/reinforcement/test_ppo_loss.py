"""PPO's loss and its gradients against loops over tokens, however a mini-batch is split."""

from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from alignment import PPOUpdates
from alignment.reinforcement.experience import (
    ExperienceBatch,
)
from alignment.reinforcement.kl import (
    FixedKL,
    KLPenalty,
)
from alignment.reinforcement.metrics import DistributedMeans
from alignment.reinforcement.minibatches import Minibatch, split_minibatches
from alignment.reinforcement.policy_loss import (
    ClippedPolicyLoss,
)
from alignment.reinforcement.ppo_loss import PPOLoss
from models.config import Experts
from models.decoder import auxiliary_loss
from models.initialization import build_decoder
from tests.helpers.policy_training import CONFIG
from tests.helpers.rollouts import CPU, CRITIC, EXACT, experience_of, made_up


def naive_loss(experience: ExperienceBatch, chosen: list[int], objective: PPOLoss, actor: Any, critic: Any) -> Tensor:
    """Token by token, each response in a row of its own with all of its logits."""
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
            "constant_length": 1 / objective.max_new_tokens / len(chosen),
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
    """Two ranks with the same responses learn what one of them alone would, and an idle one adds nothing."""
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
