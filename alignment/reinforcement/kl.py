"""KL divergence of a policy from its reference: estimators k1, k2, k3, penalty and adaptive coefficient.

Estimators from the drawn tokens alone need nothing but two log-probabilities each; the exact KL divergence over the
whole vocabulary (`models.head.OutputHead.kl`) needs both models' scores at once and is kept for evaluation.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from common.errors import InputError

Estimator = Literal["k1", "k2", "k3"]
ESTIMATORS: tuple[Estimator, ...] = ("k1", "k2", "k3")


def k1(log_ratio: Tensor) -> Tensor:
    """log p / q of samples from p: without bias, often negative, of large variance (Schulman 2020, "Approximating KL
    KL divergence"). As a loss its expected gradient is 0: it belongs into the reward.
    """
    return log_ratio


def k2(log_ratio: Tensor) -> Tensor:
    """(log p / q)^2 / 2: biased, never negative; as a loss its gradient is that of the KL divergence."""
    return log_ratio.square() / 2


def k3(log_ratio: Tensor) -> Tensor:
    """q / p - 1 - log q / p: without bias, never negative, of small variance; GRPO's (Shao et al. 2024, eq. 4). As a
    loss its gradient is that of KL(q || p).
    """
    return torch.expm1(-log_ratio) + log_ratio


def estimate(estimator: Estimator, log_ratio: Tensor) -> Tensor:
    """KL(p || q) in nats of each sample from p, in the shape of `log_ratio`, log p / q."""
    return {"k1": k1, "k2": k2, "k3": k3}[estimator](log_ratio)


def best_of_n_kl(n: int) -> float:
    """Upper bound in nats on the KL divergence of the best of `n` responses from one: log n - (n - 1) / n (Stiennon et
    al. 2020, appendix G.3; Hilton 2023). Exact where no two responses score the same and none is likely.

    Raises:
        InputError: for less than one response.
    """
    if n < 1:
        raise InputError(f"n={n}: the best of how many responses? give at least 1")
    return math.log(n) - (n - 1) / n


class Controller(ABC):
    """Controller of the KL penalty's coefficient."""

    coefficient: float

    @abstractmethod
    def update(self, kl: float, responses: int) -> None:
        """Learn of a batch: its KL divergence in nats per response, and its responses over all ranks."""

    def state_dict(self) -> dict[str, float]:
        """State in a checkpoint."""
        return {}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:  # noqa: B027 (most have no state)
        """Continue a run."""


class FixedKL(Controller):
    """Fixed coefficient of the KL penalty.

    Args:
        coefficient: 0.05 is TRL's for PPO; GRPO's paper takes 0.04.

    Raises:
        InputError: for one that is negative.
    """

    def __init__(self, coefficient: float = 0.05) -> None:
        if not 0 <= coefficient < math.inf:
            raise InputError(f"kl.controller.coefficient={coefficient}: must be a number, not negative")
        self.coefficient = coefficient

    def update(self, kl: float, responses: int) -> None:
        """Keep the coefficient."""


class AdaptiveKL(Controller):
    """Rises where the KL divergence is above its target and falls below, by at most a fifth in `horizon` responses:
    times 1 + clip(KL / target - 1, -0.2, 0.2) responses / horizon a batch (Ziegler et al. 2019, section 2.2). A batch
    of more responses than the horizon counts as one of that many, or five horizons below the target would pay for going
    away.

    Args:
        initial: coefficient of the first batch.
        target: nats per response.
        horizon: responses; 0.2, 6 and 10,000 are the defaults of their code.

    Raises:
        InputError: for a value that is not above 0.
    """

    def __init__(self, initial: float = 0.2, target: float = 6.0, horizon: int = 10_000) -> None:
        for name, value in (("initial", initial), ("target", target), ("horizon", horizon)):
            if not 0 < value < math.inf:
                raise InputError(f"kl.controller.{name}={value}: must be a number above 0")
        self.coefficient, self.target, self.horizon = initial, target, horizon

    def update(self, kl: float, responses: int) -> None:
        """Adapt the coefficient to a batch."""
        error = min(max(kl / self.target - 1, -0.2), 0.2)
        self.coefficient *= 1 + error * min(responses / self.horizon, 1.0)

    def state_dict(self) -> dict[str, float]:
        """The coefficient."""
        return {"coefficient": self.coefficient}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """The coefficient; target and horizon are the configuration's."""
        self.coefficient = state_dict["coefficient"]


@dataclass
class KLPenalty:
    """Penalty on the KL divergence from the reference.

    Args:
        controller: of the coefficient.
        estimator: of the KL divergence; k1 in the reward and k3 in the loss are the published ones.
        apply_to: `reward`, off every token's reward, so that it is part of what advantages are made of (Ziegler et al.
            2019; Ouyang et al. 2022); `loss`, added to it (Shao et al. 2024).

    Raises:
        InputError: for k1 in the loss.
    """

    controller: Controller
    estimator: Estimator = "k1"
    apply_to: Literal["reward", "loss"] = "reward"

    def __post_init__(self) -> None:
        if self.apply_to == "loss" and self.estimator == "k1":
            raise InputError(
                "kl: estimator=k1 with apply_to=loss has no gradient on average, take k2 or k3, or apply_to=reward"
            )

    @property
    def coefficient(self) -> float:
        """Coefficient now, reward per nat."""
        return self.controller.coefficient
