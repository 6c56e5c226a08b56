"""AdamW, and the base of optimizer factories.

A factory sees named parameters, which a plain optimizer class does not: grouping by name or shape stays here and out of
the LightningModule, at the price of one small class per optimizer.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from common.errors import InputError


class OptimizerFactory(ABC):
    """Factory of an optimizer for a model's named parameters."""

    fused: bool = True
    """Whether the optimizer is a fused one, which can skip a step on the device (`models.SpikeSkip`)."""

    @abstractmethod
    def build(self, parameters: Iterable[tuple[str, nn.Parameter]]) -> torch.optim.Optimizer:
        """Optimizer over all parameters that require a gradient."""


def check_adam(learning_rate: float, betas: tuple[float, float], epsilon: float, weight_decay: float) -> None:
    """Refuse settings outside of AdamW's range.

    Raises:
        InputError: for a setting out of its range.
    """
    if not 0 < learning_rate < math.inf:
        raise InputError(f"learning_rate={learning_rate}: must be a number above 0")
    if not all(0 <= beta < 1 for beta in betas) or not (epsilon >= 0 and weight_decay >= 0):
        raise InputError(
            f"betas={betas}, epsilon={epsilon}, weight_decay={weight_decay}: betas must lie in [0, 1), "
            "the others not below 0"
        )


class AdamW(OptimizerFactory):
    """AdamW (Loshchilov & Hutter 2019) with weight decay on matrices only.

    Vectors (norm gains, biases) are not decayed: pulling a gain to zero is no regularizer (GPT-2, Llama).

    Args:
        learning_rate: peak learning rate.
        betas: decay of the first and second moment; (0.9, 0.95) is Llama's.
        epsilon: term added to the root of the second moment.
        weight_decay: decoupled decay of matrices; 0.1 is Llama's.
        fused: whether to use PyTorch's single-kernel update.
    """

    def __init__(
        self,
        learning_rate: float = 3e-3,
        betas: tuple[float, float] = (0.9, 0.95),
        epsilon: float = 1e-8,
        weight_decay: float = 0.1,
        fused: bool = True,
    ) -> None:
        check_adam(learning_rate, betas, epsilon, weight_decay)
        self.learning_rate, self.betas, self.epsilon = learning_rate, betas, epsilon
        self.weight_decay, self.fused = weight_decay, fused

    def build(self, parameters: Iterable[tuple[str, nn.Parameter]]) -> torch.optim.AdamW:
        """One group of decayed matrices and one of undecayed vectors."""
        trained = [parameter for _, parameter in parameters if parameter.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim >= 2], "weight_decay": self.weight_decay},
            {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
        ]
        # A group may be empty on a rank that holds a part of the model; all ranks then have the same groups.
        return torch.optim.AdamW(
            groups,
            lr=self.learning_rate,
            betas=self.betas,
            eps=self.epsilon,
            fused=self.fused,
        )


@torch.no_grad()
def scale_gradients(parameters: Iterable[nn.Parameter], factor: torch.Tensor) -> None:
    """Multiply all gradients by a scalar tensor in place, without reading it back from the device."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    torch._foreach_mul_([g.to_local() if isinstance(g, DTensor) else g for g in gradients], factor)
