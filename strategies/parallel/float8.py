"""Float8 matrix products: 8-bit floating point at twice bfloat16's rate, on GPUs with units for it (Hopper on).

One scale a tensor, taken from its own largest value just before the product (dynamic scaling): nothing is remembered
from step to step, so that a run continues exactly, at the price of reading each factor once more. Weights stay what
they were for the optimizer, checkpoints and the other processes; only a block's products change, in place, like its
compilation. Embedding, output and norms keep their precision (Micikevicius et al. 2022, section 3); so do routers,
whose choices must not hang on rounding, and experts, whose tokens differ in number.

Shape suffixes: N tokens, I in, O out.
"""

import functools
from typing import Any, cast

import torch
from torch import Tensor, nn

from common.errors import InputError
from models.mixture_of_experts import SparseFeedForward

FORWARD, BACKWARD = torch.float8_e4m3fn, torch.float8_e5m2
"""More digits for weights and activations, more range for gradients (Micikevicius et al. 2022, section 3)."""
MULTIPLE = 16
"""Sizes the units multiply."""


def use_float8_products(block: nn.Module) -> None:
    """Make the linear layers of a block multiply in 8 bits; their names and parameters stay.

    Raises:
        InputError: for a layer whose sizes the units do not take, or one that is adapted.
    """
    routers = [module.router for module in block.modules() if isinstance(module, SparseFeedForward)]
    for name, layer in block.named_modules():
        if isinstance(layer, nn.Linear) and layer not in routers:
            if type(layer) is not nn.Linear:
                raise InputError("float8=true with lora: the adapted matrices are frozen, set float8 to false")
            if layer.in_features % MULTIPLE or layer.out_features % MULTIPLE:
                raise InputError(
                    f"float8=true: layer {name} is {layer.out_features} x {layer.in_features}, both must be multiples "
                    f"of {MULTIPLE}"
                )
            cast(Any, layer).forward = functools.partial(_linear, layer)


def refuse_without_units(device: torch.device) -> None:
    """Refuse GPUs whose units begin at 16 bits; a CPU computes the same numbers, slowly.

    Raises:
        InputError: with what was found.
    """
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 9):
        major, minor = torch.cuda.get_device_capability(device)
        raise InputError(f"float8=true: this GPU has compute capability {major}.{minor}, 8-bit products need 8.9")


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    y_NO: Tensor = _Float8Product.apply(x.flatten(0, -2), layer.weight)
    y = y_NO.unflatten(0, x.shape[:-1])
    return y if layer.bias is None else y + layer.bias.to(y.dtype)


class _Float8Product(torch.autograd.Function):
    """x W^T; the gradient of x from 8-bit factors too, that of W in bfloat16, where errors would add up over steps."""

    @staticmethod
    def forward(ctx: Any, x_NI: Tensor, weight_OI: Tensor) -> Tensor:
        ctx.save_for_backward(x_NI, weight_OI)
        return product(x_NI, weight_OI.T, FORWARD, FORWARD)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        x_NI, weight_OI = ctx.saved_tensors
        (gradient_NO,) = gradients
        grad_x = product(gradient_NO, weight_OI, BACKWARD, FORWARD)
        grad_weight = gradient_NO.to(torch.bfloat16).T @ x_NI.to(torch.bfloat16)
        return grad_x.to(x_NI.dtype), grad_weight.to(weight_OI.dtype)


def product(left_MK: Tensor, right_KN: Tensor, left_dtype: torch.dtype, right_dtype: torch.dtype) -> Tensor:
    """left @ right, bfloat16 [M, N], from factors scaled to the range of their 8-bit types and rounded to them."""
    left, left_scale = scaled(left_MK, left_dtype)
    # The units read the second factor by columns.
    right, right_scale = scaled(right_KN.T, right_dtype)
    rows = -len(left) % MULTIPLE
    padded = nn.functional.pad(left.view(torch.uint8), (0, 0, 0, rows)).view(left.dtype) if rows else left
    whole = torch._scaled_mm(
        padded, right.T, scale_a=left_scale, scale_b=right_scale, out_dtype=torch.bfloat16, use_fast_accum=True
    )
    return whole[: len(left)]


def scaled(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """x / scale in 8 bits, contiguous, and the scale, float32: the largest value becomes the type's largest."""
    scale = x.abs().amax().float().clamp(min=1e-12) / torch.finfo(dtype).max
    return (x.float() / scale).to(dtype).contiguous(), scale
