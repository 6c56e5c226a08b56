"""PPO, GRPO, Dr. GRPO, RLOO and REINFORCE++: policy optimization with the defaults of their papers.

Each class is the shared module with an estimator of advantages, a loss and settings; what a paper fixes is not an
argument here. Other combinations are `alignment.PolicyOptimization` with any parts.
"""

from typing import Any, Literal

from alignment.reinforcement.advantages import (
    GAE,
    BatchNormalizedAdvantage,
    GroupRelativeAdvantage,
    LeaveOneOutAdvantage,
)
from alignment.reinforcement.kl import FixedKL, KLPenalty
from alignment.reinforcement.minibatches import PPOUpdates
from alignment.reinforcement.policy_loss import ClippedPolicyLoss
from alignment.reinforcement.policy_optimization import PolicyOptimization
from alignment.rewards.base import Reward

ONE_UPDATE = PPOUpdates(epochs=1)


class PPO(PolicyOptimization):
    """Proximal policy optimization.

    Args:
        reward: reward of a response.
        advantage: generalized advantage estimation with gamma 1 and lambda 0.95 (Ziegler et al. 2019).
        kl: penalty on the KL divergence from the reference, by default none; k1 in the reward is Ziegler et al.'s
            (2019) and Ouyang et al.'s (2022).
        policy_loss: clip 0.2, mean over all tokens (Schulman et al. 2017, section 6.1).
        optimization: 4 epochs (Ziegler et al. 2019).
        further: arguments of `PolicyOptimization`.
    """

    def __init__(
        self,
        reward: Reward,
        advantage: GAE = GAE(),
        kl: KLPenalty | None = None,
        policy_loss: ClippedPolicyLoss = ClippedPolicyLoss(),
        optimization: PPOUpdates = PPOUpdates(),
        **further: Any,
    ) -> None:
        super().__init__(
            reward=reward, advantage=advantage, kl=kl, policy_loss=policy_loss, optimization=optimization, **further
        )


class GRPO(PolicyOptimization):
    """Group relative policy optimization (Shao et al. 2024, eq. 3 and section 4.1.2).

    Rewards are compared within a group and divided by its standard deviation; the KL estimate k3 is part of the loss.

    Args:
        reward: reward of a response.
        kl_coefficient: weight of k3 in the loss, the paper's beta, 0.04; 0 for none.
        policy_loss: clip 0.2; mean over the tokens of a response, then over responses.
        optimization: one update per batch of rollouts.
        group_size: responses per prompt, the paper's G, 64.
        further: arguments of `PolicyOptimization`.
    """

    def __init__(
        self,
        reward: Reward,
        kl_coefficient: float = 0.04,
        policy_loss: ClippedPolicyLoss = ClippedPolicyLoss(aggregation="sequence_mean"),
        optimization: PPOUpdates = ONE_UPDATE,
        group_size: int = 64,
        **further: Any,
    ) -> None:
        kl = penalty(kl_coefficient, "k3", "loss")
        super().__init__(
            reward=reward,
            advantage=GroupRelativeAdvantage(),
            kl=kl,
            policy_loss=policy_loss,
            optimization=optimization,
            group_size=group_size,
            **further,
        )


class DrGRPO(PolicyOptimization):
    """Dr. GRPO, GRPO done right (Liu et al. 2025, section 3.2).

    No division by the standard deviation, and sums over tokens divided by a constant instead of the response's length;
    no KL penalty, and so no reference.

    Args:
        reward: reward of a response.
        policy_loss: clip 0.2; sums over tokens divided by `max_new_tokens`, then the mean over responses.
        optimization: one update per batch of rollouts.
        group_size: responses per prompt.
        reference: null; `online` computes how far the policy has gone, at the price of a model more.
        further: arguments of `PolicyOptimization`.
    """

    def __init__(
        self,
        reward: Reward,
        policy_loss: ClippedPolicyLoss = ClippedPolicyLoss(aggregation="constant_length"),
        optimization: PPOUpdates = ONE_UPDATE,
        group_size: int = 8,
        reference: Literal["online", "adapter_off"] | None = None,
        **further: Any,
    ) -> None:
        super().__init__(
            reward=reward,
            advantage=GroupRelativeAdvantage(divide_by_std=False),
            kl=None,
            policy_loss=policy_loss,
            optimization=optimization,
            group_size=group_size,
            reference=reference,
            **further,
        )


class RLOO(PolicyOptimization):
    """REINFORCE leave-one-out (Ahmadian et al. 2024, eq. 8 and section 3.3).

    A whole response is one action: its reward, less the KL divergence k1 of its tokens, is compared with the mean of
    the others'. With one update per batch no ratio is ever clipped.

    Args:
        reward: reward of a response.
        kl_coefficient: weight of k1 in the reward, TRL's 0.05; 0 for none.
        policy_loss: sum over the tokens of a response, then the mean over responses.
        optimization: one update per batch of rollouts.
        group_size: responses per prompt, the paper's k, 4.
        further: arguments of `PolicyOptimization`.
    """

    def __init__(
        self,
        reward: Reward,
        kl_coefficient: float = 0.05,
        policy_loss: ClippedPolicyLoss = ClippedPolicyLoss(aggregation="sequence_sum"),
        optimization: PPOUpdates = ONE_UPDATE,
        group_size: int = 4,
        **further: Any,
    ) -> None:
        kl = penalty(kl_coefficient, "k1", "reward")
        super().__init__(
            reward=reward,
            advantage=LeaveOneOutAdvantage(),
            kl=kl,
            policy_loss=policy_loss,
            optimization=optimization,
            group_size=group_size,
            **further,
        )


class ReinforcePlusPlus(PolicyOptimization):
    """REINFORCE++ (Hu 2025, section 3.2): the KL divergence k1 in each token's reward, normalized over the batch.

    Args:
        reward: reward of a response.
        kl_coefficient: weight of k1 in the reward, the paper's 0.01; 0 for none.
        policy_loss: clip 0.2, mean over all tokens.
        optimization: one update per batch of rollouts.
        group_size: responses per prompt; 1, it compares no groups.
        further: arguments of `PolicyOptimization`.
    """

    def __init__(
        self,
        reward: Reward,
        kl_coefficient: float = 0.01,
        policy_loss: ClippedPolicyLoss = ClippedPolicyLoss(),
        optimization: PPOUpdates = ONE_UPDATE,
        group_size: int = 1,
        **further: Any,
    ) -> None:
        kl = penalty(kl_coefficient, "k1", "reward")
        super().__init__(
            reward=reward,
            advantage=BatchNormalizedAdvantage(),
            kl=kl,
            policy_loss=policy_loss,
            optimization=optimization,
            group_size=group_size,
            **further,
        )


def penalty(
    coefficient: float, estimator: Literal["k1", "k3"], apply_to: Literal["reward", "loss"]
) -> KLPenalty | None:
    """KL penalty of a fixed coefficient; None for 0."""
    return KLPenalty(FixedKL(coefficient), estimator, apply_to) if coefficient else None
