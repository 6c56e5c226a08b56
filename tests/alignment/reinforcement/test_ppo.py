"""PPO, GRPO, Dr. GRPO, RLOO and REINFORCE++ with their defaults against their papers' equations as float64 loops."""

from typing import Any

import pytest
import torch
from torch import Tensor

from alignment import GRPO, PPO, RLOO, DrGRPO, FixedKL, KLPenalty, PolicyOptimization, PPOUpdates, ReinforcePlusPlus
from alignment.reinforcement.experience import build_experience
from alignment.reinforcement.metrics import DistributedMeans
from alignment.reinforcement.minibatches import ChunkedForward, split_minibatches
from alignment.reinforcement.rollout_worker import ScoredResponses
from alignment.reinforcement.rollouts import Rollouts
from models.decoder import Decoder
from models.optimizers.adamw import AdamW
from models.optimizers.schedules import Cosine
from tests.helpers.policy_training import CONFIG, Wanted
from tests.helpers.rollouts import CPU, made_up

SCORES = torch.tensor([0.3, 1.0, -0.5, 0.2, 0.9, 0.1], dtype=torch.float64)
GROUP = 3
LONGEST = 9


def built(preset: Any, **changes: Any) -> Any:
    """The preset's module in float64, its models far from even and from each other."""
    common = {"optimizer": AdamW(1e-2), "schedule": Cosine(warmup_steps=0), "decoder": CONFIG, "group_size": GROUP}
    module = preset(reward=Wanted(), max_new_tokens=LONGEST, **common | changes)
    module.configure_model()
    module.double()
    for number, model in enumerate((module.models.actor, module.models.critic, module.models.reference)):
        if model is not None:
            shake(model, number, 0.3)
    return module


@torch.no_grad()
def shake(model: Decoder, seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.add_(torch.randn(parameter.shape, dtype=torch.float64, generator=generator) * scale)


def log_probabilities(model: Decoder, rollouts: Rollouts) -> list[Tensor]:
    """log pi of the tokens of each response, each in a row of its own."""
    found = []
    for prompt, response in zip(rollouts.prompts, rollouts.responses, strict=True):
        row, begin = [*prompt, *response.tokens], len(prompt) - 1
        scores = model.output(model(torch.tensor([row])))[0].log_softmax(-1)
        found.append(torch.stack([scores[begin + t, token] for t, token in enumerate(response.tokens)]))
    return found


def values(model: Decoder, rollouts: Rollouts) -> list[Tensor]:
    """V before each token of each response."""
    pairs = zip(rollouts.prompts, rollouts.responses, strict=True)
    rows = [(len(prompt) - 1, [*prompt, *response.tokens]) for prompt, response in pairs]
    return [model.output(model(torch.tensor([row])))[0, begin:-1, 0] for begin, row in rows]


def clipped(new: Tensor, old: Tensor, advantage: Tensor | float) -> Tensor:
    """min(r A, clip(r, 0.8, 1.2) A), the objective of Schulman et al. 2017, eq. 7."""
    ratio = (new - old).exp()
    return torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)


def check(module: PolicyOptimization, equation: Any, moved: float) -> None:
    """The module's loss and gradients are those of an equation.

    Args:
        module: see `built`.
        equation: the loss of (module, rollouts, log-probabilities before the update, values before it).
        moved: how far the policy moves between sampling and the update; ratios are 1 without.
    """
    rollouts, models = made_up(11, GROUP), module.models
    forward = ChunkedForward(rollouts, 40, CPU)
    scored = ScoredResponses([], SCORES, None)
    experience = build_experience(rollouts, scored, models, module.shaping, forward, 1.0, is_single_update=False)
    with torch.no_grad():
        old = log_probabilities(models.actor, rollouts)
        before = values(models.critic, rollouts) if models.critic is not None else None
    for model in (models.actor, models.critic):
        if model is not None and moved:
            shake(model, 7, moved)
    (minibatch,) = split_minibatches(
        rollouts, experience.kept, PPOUpdates(1, 1, 12), 0, 0, lambda sums: sums, lambda counts: counts
    )
    assert len(minibatch.microbatches) > 1
    results = []
    for is_module in (True, False):
        module.zero_grad()
        if is_module:
            losses = [
                module.ppo_loss(models.actor, models.critic, experience, minibatch, microbatch, DistributedMeans(CPU))
                for microbatch in minibatch.microbatches
            ]
        else:
            losses = [equation(module, rollouts, old, before)]
        for loss in losses:
            loss.backward()
        gradients = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
        results.append((float(sum(loss.detach() for loss in losses)), gradients))
    assert results[0][0] == pytest.approx(results[1][0], abs=2e-5)
    assert max(float(gradient.abs().max()) for gradient in results[1][1].values()) > 1e-2
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-3, atol=2e-5)


def groups() -> list[tuple[int, list[float]]]:
    """Number of each response and the scores of its group, itself first."""
    found = []
    for n in range(len(SCORES)):
        first = n - n % GROUP
        rest = [float(SCORES[m]) for m in range(first, first + GROUP) if m != n]
        found.append((n, [float(SCORES[n]), *rest]))
    return found


def grpo(module: Any, rollouts: Rollouts, old: list[Tensor], _: Any) -> Tensor:
    """Shao et al. 2024, eqs. 3 and 4: beta = 0.04, epsilon = 0.2."""
    new = log_probabilities(module.models.actor, rollouts)
    with torch.no_grad():
        reference = log_probabilities(module.models.reference, rollouts)
    total = torch.zeros((), dtype=torch.float64)
    for n, scores in groups():
        group = torch.tensor(scores, dtype=torch.float64)
        advantage = float((group[0] - group.mean()) / (group.std() + 1e-4))
        per_response = torch.zeros((), dtype=torch.float64)
        for t in range(len(new[n])):
            ratio = (reference[n][t] - new[n][t]).exp()
            kl = ratio - ratio.log() - 1
            per_response = per_response + clipped(new[n][t], old[n][t], advantage) - 0.04 * kl
        total = total + per_response / len(new[n])
    return -total / len(SCORES)


def dr_grpo(module: Any, rollouts: Rollouts, old: list[Tensor], _: Any) -> Tensor:
    """Liu et al. 2025, section 3.2: neither 1 / |o| nor 1 / std, and no KL; the constant is the longest response."""
    new = log_probabilities(module.models.actor, rollouts)
    total = torch.zeros((), dtype=torch.float64)
    for n, scores in groups():
        for t in range(len(new[n])):
            total = total + clipped(new[n][t], old[n][t], scores[0] - sum(scores) / GROUP)
    return -total / LONGEST / len(SCORES)


def rloo(module: Any, rollouts: Rollouts, old: list[Tensor], _: Any) -> Tensor:
    """Ahmadian et al. 2024, eq. 8: the REINFORCE estimator of R - beta log(pi / pi_reference), whose gradient is
    (R(y_i) - mean of the others) grad log pi(y_i).
    """
    new = log_probabilities(module.models.actor, rollouts)
    with torch.no_grad():
        reference = log_probabilities(module.models.reference, rollouts)
        net = [float(SCORES[n] - 0.05 * (old[n] - reference[n]).sum()) for n in range(len(SCORES))]
    total = torch.zeros((), dtype=torch.float64)
    for n in range(len(SCORES)):
        first = n - n % GROUP
        others = [net[m] for m in range(first, first + GROUP) if m != n]
        advantage = net[n] - sum(others) / (GROUP - 1)
        # log pi of the whole response; its value is that of a ratio of 1 per token.
        log_pi = new[n].sum()
        total = total + advantage * (log_pi - log_pi.detach() + len(new[n]))
    return -total / len(SCORES)


def reinforce_plus_plus(module: Any, rollouts: Rollouts, old: list[Tensor], _: Any) -> Tensor:
    """Hu 2025, section 3.2: A_t = R - beta sum of KL from t on, normalized over the batch's tokens; clip 0.2."""
    new = log_probabilities(module.models.actor, rollouts)
    with torch.no_grad():
        reference = log_probabilities(module.models.reference, rollouts)
    advantages = []
    for n in range(len(SCORES)):
        for t in range(len(new[n])):
            spent = sum(float(old[n][k] - reference[n][k]) for k in range(t, len(new[n])))
            advantages.append(float(SCORES[n]) - 0.01 * spent)
    every = torch.tensor(advantages, dtype=torch.float64)
    normalized = (every - every.mean()) / (every.var() + 1e-8).sqrt()
    tokens, before = torch.cat(new), torch.cat(old)
    return -sum((clipped(tokens[i], before[i], normalized[i]) for i in range(len(tokens))), torch.zeros(())) / len(
        tokens
    )


def ppo(module: Any, rollouts: Rollouts, old: list[Tensor], before: list[Tensor]) -> Tensor:
    """Schulman et al. 2017, eq. 7, with GAE (2016, eq. 16) of rewards less 0.05 k1 (Ziegler et al. 2019, section 2.1),
    and half the squared error of values that move by at most 0.2.
    """
    new, predicted = log_probabilities(module.models.actor, rollouts), values(module.models.critic, rollouts)
    with torch.no_grad():
        reference = log_probabilities(module.models.reference, rollouts)
    advantages, returns = [], []
    for n in range(len(SCORES)):
        last, advantage, own = len(new[n]) - 1, 0.0, []
        for t in reversed(range(last + 1)):
            reward = -0.05 * float(old[n][t] - reference[n][t]) + (float(SCORES[n]) if t == last else 0.0)
            following = float(before[n][t + 1]) if t < last else 0.0
            advantage = reward + following - float(before[n][t]) + 0.95 * advantage
            own.append(advantage)
        advantages += own[::-1]
        returns += [a + float(v) for a, v in zip(own[::-1], before[n], strict=True)]
    every = torch.tensor(advantages, dtype=torch.float64)
    whitened = (every - every.mean()) / (every.var() + 1e-8).sqrt()
    tokens, earlier, v, v_old = (torch.cat(x) for x in (new, old, predicted, before))
    total = torch.zeros((), dtype=torch.float64)
    for i in range(len(tokens)):
        near = torch.minimum(torch.maximum(v[i], v_old[i] - 0.2), v_old[i] + 0.2)
        error = torch.maximum((v[i] - returns[i]) ** 2, (near - returns[i]) ** 2) / 2
        total = total - clipped(tokens[i], earlier[i], whitened[i]) + error
    return total / len(tokens)


def test_grpo_is_its_papers_equation() -> None:
    check(built(GRPO), grpo, moved=0.05)


def test_dr_grpo_is_its_papers_equation() -> None:
    check(built(DrGRPO), dr_grpo, moved=0.05)


def test_rloo_is_reinforce_of_whole_responses_with_one_update() -> None:
    module = built(RLOO)
    assert module.optimization.epochs * module.optimization.minibatches == 1
    check(module, rloo, moved=0.0)


def test_reinforce_plus_plus_is_its_papers_equation() -> None:
    check(built(ReinforcePlusPlus), reinforce_plus_plus, moved=0.05)


def test_ppo_is_its_papers_equation() -> None:
    check(built(PPO, kl=KLPenalty(FixedKL(0.05))), ppo, moved=0.05)


@pytest.mark.parametrize(
    ("preset", "critic", "reference", "updates"),
    [(PPO, True, "online", 4), (GRPO, False, "online", 1), (DrGRPO, False, None, 1), (RLOO, False, "online", 1),
     (ReinforcePlusPlus, False, "online", 1)],
)  # fmt: skip
def test_only_ppo_has_a_critic_and_dr_grpo_no_reference(
    preset: Any, critic: bool, reference: Any, updates: int
) -> None:
    module = built(preset)
    assert (module.models.critic is not None) == critic
    assert module.models.reference_kind == reference
    assert module.optimization.epochs * module.optimization.minibatches == updates
