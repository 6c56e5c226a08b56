"""Preference losses: DPO loss, IPO, KTO, ORPO, SimPO and others, pure functions of log-probabilities, a class each.

Each is a callable with its published parameters and nothing else: where log-probabilities come from, what the
reference is and how batches are laid out is the module's business. A new loss is a class of a few lines here, and a
test that holds it against its closed form.

All values are per pair, float, in nats: log pi(response | prompt) summed over the response's tokens, end of text
    included.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from common.errors import InputError


@dataclass(frozen=True)
class Pairs:
    """Inputs of a preference loss, each [P].

    Attributes:
        chosen, rejected: log-probabilities under the policy.
        chosen_length, rejected_length: tokens of the responses.
        reference_chosen, reference_rejected: log-probabilities under the reference, where there is one.
        kl: estimate of KL(policy || reference) from unrelated responses, a scalar without gradient, where it is
            asked for.
        probability: that chosen is the better response; None where no label is in doubt.
    """

    chosen: Tensor
    rejected: Tensor
    chosen_length: Tensor
    rejected_length: Tensor
    reference_chosen: Tensor | None = None
    reference_rejected: Tensor | None = None
    kl: Tensor | None = None
    probability: Tensor | None = None

    def flipped(self) -> "Pairs":
        """Pairs with the other response preferred."""
        return Pairs(
            self.rejected, self.chosen, self.rejected_length, self.chosen_length,
            self.reference_rejected, self.reference_chosen, self.kl,
        )  # fmt: skip

    @property
    def log_ratios(self) -> tuple[Tensor, Tensor]:
        """log pi / pi_reference of the chosen and of the rejected responses."""
        assert self.reference_chosen is not None
        assert self.reference_rejected is not None
        return self.chosen - self.reference_chosen, self.rejected - self.reference_rejected

    @property
    def means(self) -> tuple[Tensor, Tensor]:
        """Log-probability per token of the chosen and of the rejected responses."""
        return self.chosen / self.chosen_length, self.rejected / self.rejected_length


class PreferenceLoss(ABC):
    """Loss of each pair, and the rewards it implies."""

    needs_reference: ClassVar[bool] = True
    needs_kl: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, pairs: Pairs) -> Tensor:
        """Loss of each pair, [P]."""

    @abstractmethod
    def rewards(self, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """Rewards of the chosen and of the rejected responses, [P] each: what the loss pulls apart."""


@dataclass
class DPO(PreferenceLoss):
    """-log sigmoid(beta (r_chosen - r_rejected)) with r the log-ratios (Rafailov et al. 2023, eq. 7).

    Args:
        beta: strength of the pull toward the reference; 0.1 is the paper's.
    """

    beta: float = 0.1

    def __post_init__(self) -> None:
        require_positive(beta=self.beta)

    def rewards(self, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """beta times the log-ratios (eq. 5, up to a constant of the prompt)."""
        chosen, rejected = pairs.log_ratios
        return self.beta * chosen, self.beta * rejected

    def margin(self, pairs: Pairs) -> Tensor:
        """Difference of the rewards."""
        chosen, rejected = self.rewards(pairs)
        return chosen - rejected

    def __call__(self, pairs: Pairs) -> Tensor:
        return -F.logsigmoid(self.margin(pairs))


@dataclass
class ConservativeDPO(DPO):
    """DPO for labels that are wrong now and then: its expectation when each is flipped with this probability.

    (1 - e) DPO + e DPO flipped (Mitchell 2023, "A note on DPO with noisy preferences").

    Args:
        beta: see `DPO`.
        label_smoothing: e, below 1/2.
    """

    label_smoothing: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        require_label_noise(self.label_smoothing)

    def __call__(self, pairs: Pairs) -> Tensor:
        margin, noise = self.margin(pairs), self.label_smoothing
        return -(1 - noise) * F.logsigmoid(margin) - noise * F.logsigmoid(-margin)


@dataclass
class RobustDPO(ConservativeDPO):
    """DPO unbiased under flipped labels: ((1 - e) DPO - e DPO flipped) / (1 - 2 e) (Chowdhury et al. 2024)."""

    def __call__(self, pairs: Pairs) -> Tensor:
        margin, noise = self.margin(pairs), self.label_smoothing
        return (noise * F.logsigmoid(-margin) - (1 - noise) * F.logsigmoid(margin)) / (1 - 2 * noise)


@dataclass
class IPO(DPO):
    """(r_chosen - r_rejected - 1 / (2 beta))^2, which does not saturate (Azar et al. 2023, eq. 17).

    Args:
        beta: the paper's tau; log-ratios are summed over tokens, as there.
    """

    def __call__(self, pairs: Pairs) -> Tensor:
        chosen, rejected = pairs.log_ratios
        return (chosen - rejected - 1 / (2 * self.beta)).square()


@dataclass
class LengthNormalizedDPO(DPO):
    """DPO of log-ratios per token, so that length is no reward (Lambert et al. 2024, Tulu 3).

    Args:
        beta: 5 is Tulu 3's.
    """

    beta: float = 5.0

    def rewards(self, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """beta times the mean log-ratio of a token."""
        chosen, rejected = pairs.log_ratios
        return self.beta * chosen / pairs.chosen_length, self.beta * rejected / pairs.rejected_length


@dataclass
class SimPO(PreferenceLoss):
    """-log sigmoid(beta (m_chosen - m_rejected) - gamma), m the log-probability per token; no reference
    (Meng et al. 2024).

    Args:
        beta: 2 to 2.5 in the paper.
        gamma: target margin, 0.5 to 1.5 in the paper.
    """

    needs_reference: ClassVar[bool] = False
    beta: float = 2.0
    gamma: float = 1.0

    def __post_init__(self) -> None:
        require_positive(beta=self.beta)
        if not 0 <= self.gamma < math.inf:
            raise InputError(f"loss.gamma={self.gamma}: must be a number, not negative")

    def rewards(self, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """beta times the log-probability per token."""
        chosen, rejected = pairs.means
        return self.beta * chosen, self.beta * rejected

    def __call__(self, pairs: Pairs) -> Tensor:
        chosen, rejected = self.rewards(pairs)
        return -F.logsigmoid(chosen - rejected - self.gamma)


@dataclass
class ORPO(PreferenceLoss):
    """Cross-entropy of the chosen response plus weight times -log sigmoid(log odds ratio); no reference
    (Hong et al. 2024, eqs. 6 and 7).

    Args:
        weight: the paper's lambda, 0.1.
    """

    needs_reference: ClassVar[bool] = False
    weight: float = 0.1

    def __post_init__(self) -> None:
        require_positive(weight=self.weight)

    def rewards(self, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """weight times the log-odds, log p / (1 - p), of the mean token."""
        chosen, rejected = (mean - log1mexp(mean) for mean in pairs.means)
        return self.weight * chosen, self.weight * rejected

    def __call__(self, pairs: Pairs) -> Tensor:
        chosen, rejected = pairs.means
        log_odds = (chosen - rejected) - (log1mexp(chosen) - log1mexp(rejected))
        return -chosen - self.weight * F.logsigmoid(log_odds)


@dataclass
class KTO(DPO):
    """Chosen and rejected responses each by themselves against a reference point z, the policy's KL divergence
    (Ethayarajh et al. 2024): mean of w_c (1 - sigmoid(beta (r_chosen - z))) and w_r (1 - sigmoid(beta (z -
    r_rejected))).

    Args:
        beta: 0.1 is the paper's.
        chosen_weight, rejected_weight: for data with more of one than of the other.
    """

    needs_kl: ClassVar[bool] = True
    chosen_weight: float = 1.0
    rejected_weight: float = 1.0

    def __post_init__(self) -> None:
        require_positive(beta=self.beta, chosen_weight=self.chosen_weight, rejected_weight=self.rejected_weight)

    def __call__(self, pairs: Pairs) -> Tensor:
        assert pairs.kl is not None
        chosen, rejected = pairs.log_ratios
        gain = self.chosen_weight * torch.sigmoid(-self.beta * (chosen - pairs.kl))
        loss = self.rejected_weight * torch.sigmoid(-self.beta * (pairs.kl - rejected))
        return (gain + loss) / 2


def expected_loss(loss: PreferenceLoss, pairs: Pairs) -> Tensor:
    """p loss + (1 - p) loss of the flipped pair: its expectation when labels are drawn with their probabilities p.

    For DPO this is ConservativeDPO with a label smoothing of each pair's own, 1 - p (Mitchell 2023); for any loss it
    is the cross-entropy against soft labels where the loss is one (Bai et al. 2022, Constitutional AI, section 4.1).

    Returns:
        [P]; without probabilities just the loss.
    """
    if pairs.probability is None:
        return loss(pairs)
    return pairs.probability * loss(pairs) + (1 - pairs.probability) * loss(pairs.flipped())


def bradley_terry(
    chosen: Tensor,
    rejected: Tensor,
    margin: Tensor | float = 0.0,
    center_rewards: float = 0.0,
    probability: Tensor | None = None,
) -> Tensor:
    """-log sigmoid(chosen - rejected - margin) + center_rewards (chosen + rejected)^2 (Bradley & Terry 1952; margin:
    Touvron et al. 2023, Llama 2, eq. 2; center_rewards: Eisenstein et al. 2023).

    With soft labels the first term is its expectation, the cross-entropy -p log sigmoid(chosen - rejected - margin)
    - (1 - p) log sigmoid(rejected - chosen - margin) (Bai et al. 2022, Constitutional AI, section 4.1).

    Args:
        chosen, rejected: scores, [P].
        margin: by how much chosen should be ahead.
        center_rewards: weight of the term that holds scores near zero, which comparisons alone leave free.
        probability: p, that chosen is the better one, [P]; None is 1.

    Returns:
        [P].
    """
    ranking = -F.logsigmoid(chosen - rejected - margin)
    if probability is not None:
        ranking = probability * ranking - (1 - probability) * F.logsigmoid(rejected - chosen - margin)
    return ranking + center_rewards * (chosen + rejected).square()


def log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(x)) for x < 0, exact near both ends (Maechler 2012)."""
    x = x.clamp(max=-torch.finfo(x.dtype).tiny)
    near = torch.log(-torch.expm1(x.clamp(min=-0.6931)))
    far = torch.log1p(-torch.exp(x.clamp(max=-0.6931)))
    return torch.where(x > -0.6931, near, far)


def require_positive(**values: float) -> None:
    """Refuse parameters that are not numbers above 0."""
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise InputError(f"loss.{name}={value}: must be a number above 0")


def require_label_noise(value: float) -> None:
    """Refuse a probability of flipped labels that leaves nothing to learn."""
    if not 0 <= value < 0.5:
        raise InputError(f"loss.label_smoothing={value}: must lie in [0, 0.5)")
