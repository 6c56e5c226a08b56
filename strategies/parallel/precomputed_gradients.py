"""Autograd node of a loss whose gradients exist already.

A pipeline schedule runs forward and backward of all micro-batches at once, while Lightning calls `backward` on a loss
later. The node keeps the gradients in between, so that the Trainer's hooks, its loss scaling and `zero_grad` run in
their usual order; the price is one more reference to every gradient for that time.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


def loss_with_gradients(loss: Tensor, gradients: list[tuple[nn.Parameter, Tensor]]) -> Tensor:
    """Loss whose `backward` gives each parameter the gradient listed for it, times the incoming factor.

    Args:
        loss: scalar, detached.
        gradients: parameters with their gradients, plain tensors or DTensors.
    """
    anchor = torch.zeros((), device=loss.device, requires_grad=True)
    return cast(Tensor, _PrecomputedGradients.apply(anchor, loss, gradients))


class _PrecomputedGradients(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, anchor: Tensor, loss: Tensor, made: list[tuple[nn.Parameter, Tensor]]) -> Tensor:
        ctx.made = made
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[None, None, None]:
        (factor,) = grad_outputs
        gradients = [gradient for _, gradient in ctx.made]
        torch._foreach_mul_([g.to_local() if isinstance(g, DTensor) else g for g in gradients], factor)
        for parameter, gradient in ctx.made:
            parameter.grad = gradient
        ctx.made = None
        return None, None, None
