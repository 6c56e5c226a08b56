"""Scaling laws: compute-optimal parameters, tokens and expected loss of a budget of FLOPs.

The parametric law of Hoffmann et al. (2022), L(N, D) = E + A / N^alpha + B / D^beta, with the coefficients they printed
or those that Besiroglu et al. (2024) got from the same runs, whose optimum agrees with Hoffmann's other two methods
where the printed one does not. A law is a summary of runs of one kind on one text: another text has another E, so that
losses of the published fits say little about a model trained on anything else.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ScalingLaw:
    """L(N, D) = E + A / N^alpha + B / D^beta, nats per token.

    Attributes:
        name: where it comes from.
        e: E, of text itself. a, alpha: of too few parameters. b, beta: of too few tokens.
    """

    name: str
    e: float
    a: float
    alpha: float
    b: float
    beta: float

    def loss(self, parameters: float, tokens: float) -> float:
        """Nats per token of a model of N parameters after D tokens (Hoffmann et al. 2022, equation 2)."""
        return self.e + self.a / parameters**self.alpha + self.b / tokens**self.beta

    def optimum(self, flops: float) -> tuple[float, float]:
        """Parameters and tokens of least loss for C = 6 N D FLOPs: N = G (C / 6)^(beta / (alpha + beta)), D = C / 6 N,
        with G = (alpha A / beta B)^(1 / (alpha + beta)) (Hoffmann et al. 2022, equation 4).
        """
        ratio = (self.alpha * self.a / (self.beta * self.b)) ** (1 / (self.alpha + self.beta))
        parameters = ratio * (flops / 6) ** self.exponent
        return parameters, flops / 6 / parameters

    @property
    def exponent(self) -> float:
        """Of compute in the optimal number of parameters: beta / (alpha + beta)."""
        return self.beta / (self.alpha + self.beta)

    def tokens_for(self, parameters: float, loss: float) -> float:
        """Tokens after which a model of N parameters has a loss; infinite where it never has."""
        left = loss - self.e - self.a / parameters**self.alpha
        return math.inf if left <= 0 else (self.b / left) ** (1 / self.beta)


HOFFMANN = ScalingLaw("Hoffmann et al. 2022, appendix D.3", 1.69, 406.4, 0.34, 410.7, 0.28)
BESIROGLU = ScalingLaw("Besiroglu et al. 2024, table 1", 1.8172, 482.01, 0.3478, 2085.43, 0.3658)


@dataclass(frozen=True)
class OverTraining:
    """A smaller model trained for longer to the optimum's loss.

    Attributes:
        share: of the optimum's parameters.
        parameters, tokens: of the model.
        flops: of its training, over the optimum's.
    """

    share: float
    parameters: float
    tokens: float
    flops: float


def over_training(
    law: ScalingLaw, flops: float, shares: Sequence[float] = (1.0, 0.75, 0.5, 0.35, 0.25)
) -> list[OverTraining]:
    """Models that reach the loss of the compute-optimal one with fewer parameters, and what more that costs: inference
    is cheaper by the share (Sardana et al. 2023 weigh the two).
    """
    parameters, tokens = law.optimum(flops)
    target = law.loss(parameters, tokens)
    found = []
    for share in shares:
        needed = tokens if share == 1 else law.tokens_for(share * parameters, target)
        if math.isfinite(needed):
            more = share * parameters * needed / (parameters * tokens)
            found.append(OverTraining(share, share * parameters, needed, more))
    return found
