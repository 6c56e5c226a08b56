"""Low-rank adaptation (Hu et al. 2021): a frozen matrix plus a trained product of two thin ones.

A LoRA layer is a `Linear` with two more parameters, so that the matrix keeps the name and the place it has in every
checkpoint; a wrapper around the layer would rename it. Switching the adapter off gives the model it started from, which
a preference loss may take as its reference for free.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.errors import InputError


@dataclass
class LoRA:
    """Which matrices are adapted, and how.

    Args:
        rank: of the added product; 8 is the paper's.
        alpha: the product is scaled by alpha / rank.
        targets: names of the adapted layers within a block; by default all of them (Dettmers et al. 2023 find all
            needed).

    Raises:
        InputError: for a rank or scale that is not positive, or no target.
    """

    rank: int = 8
    alpha: float = 16.0
    targets: list[str] = field(default_factory=lambda: ["wq", "wk", "wv", "wo", "w1", "w2", "w3"])

    def __post_init__(self) -> None:
        if self.rank < 1 or not self.alpha > 0 or not self.targets:
            raise InputError(
                f"lora.rank={self.rank}, alpha={self.alpha}, targets={self.targets}: need a rank and scale above 0 and "
                "at least one target"
            )


class LoRALinear(nn.Linear):
    """x W^T + scale * (x A^T) B^T, with W frozen; shape suffixes I in, O out, R rank.

    Args:
        like: the layer it takes the place of; its matrix is shared.
        lora: rank and scale.
    """

    def __init__(self, like: nn.Linear, lora: LoRA) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = like.in_features, like.out_features
        self.weight, self.bias = like.weight, like.bias
        self.weight.requires_grad_(False)
        self.lora_a = nn.Parameter(like.weight.new_empty(lora.rank, like.in_features))
        self.lora_b = nn.Parameter(like.weight.new_empty(like.out_features, lora.rank))
        self.scale, self.enabled = lora.alpha / lora.rank, True

    def forward(self, input: Tensor) -> Tensor:
        output = F.linear(input, self.weight, self.bias)
        if not self.enabled:
            return output
        return output + self.scale * F.linear(F.linear(input, self.lora_a), self.lora_b)

    @torch.no_grad()
    def merged(self) -> Tensor:
        """The matrix of an ordinary layer that computes the same, [O, I]."""
        return merged(self.weight, self.lora_a, self.lora_b, self.scale)


def merged(weight_OI: Tensor, lora_a_RI: Tensor, lora_b_OR: Tensor, scale: float) -> Tensor:
    """The adapted matrix, computed in float32 and rounded once."""
    product = lora_b_OR.float() @ lora_a_RI.float()
    return (weight_OI.float() + scale * product).to(weight_OI.dtype)


def add_lora(layers: nn.Module, lora: LoRA) -> None:
    """Replace the targets below a module by adapted layers.

    Raises:
        InputError: when a target names no layer.
    """
    found = {
        (parent, name): child
        for parent in layers.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.Linear) and name in lora.targets
    }
    missing = sorted({*lora.targets} - {name for _, name in found})
    if missing:
        raise InputError(f"lora.targets holds {', '.join(missing)}: a block has no such layer, leave it out")
    for (parent, name), child in found.items():
        setattr(parent, name, LoRALinear(child, lora))


@contextmanager
def lora_disabled(model: nn.Module) -> Iterator[None]:
    """The model without its adapters."""
    layers = [module for module in model.modules() if isinstance(module, LoRALinear)]
    for layer in layers:
        layer.enabled = False
    try:
        yield
    finally:
        for layer in layers:
            layer.enabled = True
