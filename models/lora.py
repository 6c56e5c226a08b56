"""LoRA, low-rank adaptation (Hu et al. 2021): a frozen matrix plus a trained product of two thin ones.

A LoRA layer is a `Linear` with two more parameters, so that the matrix keeps its name in every checkpoint; a wrapper
around the layer would rename it. With the adapter off the layer is that of the initial model, which a preference loss
can use as its reference for free. The price is that adapters cannot be stacked.
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
    """LoRA settings: rank, scale and adapted layers.

    Args:
        rank: rank of the added product; 8 is the paper's.
        alpha: numerator of the product's scale, alpha / rank.
        targets: names of the adapted layers of a block; all of them by default (Dettmers et al. 2023, section 4).

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
    """Linear layer with a LoRA adapter: x W^T + scale * (x A^T) B^T, W frozen. Shape suffixes: I in, O out, R rank.

    Args:
        like: layer that it replaces; its matrix is shared.
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
        """Matrix with the adapter merged, [O, I]."""
        return merged(self.weight, self.lora_a, self.lora_b, self.scale)


def merged(weight_OI: Tensor, lora_a_RI: Tensor, lora_b_OR: Tensor, scale: float) -> Tensor:
    """Matrix with the adapter merged, computed in float32 and rounded once."""
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
    """Context in which the adapters of a model are off."""
    layers = [module for module in model.modules() if isinstance(module, LoRALinear)]
    for layer in layers:
        layer.enabled = False
    try:
        yield
    finally:
        for layer in layers:
            layer.enabled = True
