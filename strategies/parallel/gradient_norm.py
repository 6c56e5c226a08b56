"""Global gradient norm over all axes of the mesh, each parameter counted once.

Every gradient lies in several processes: cut in some axes, repeated in others. Dividing its square by the number of
repetitions lets one all-reduce over all processes add up everything once, whatever the layout; a reduction for each
kind of placement would send more messages and need a case for each.
"""

from collections.abc import Iterable
from typing import Any, cast

import torch
import torch.distributed
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from strategies.parallel.mesh import MeshSizes


@torch.no_grad()
def settle_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Bring gradients into their parameters' placement: sequence-parallel norms leave partial sums."""
    for parameter in parameters:
        gradient = parameter.grad
        if isinstance(gradient, DTensor) and gradient.placements != cast(Any, parameter).placements:
            parameter.grad = cast(Any, gradient.redistribute(placements=cast(Any, parameter).placements))


@torch.no_grad()
def gradient_norm(parameters: Iterable[nn.Parameter], sizes: MeshSizes, device: torch.device) -> Tensor:
    """2-norm over the gradients of all parameters of all processes, float32, the same in each.

    Args:
        parameters: those of this process, each parameter of the model in exactly one pipeline stage.
        sizes: the mesh.
        device: for the sum of a process that holds no gradient.
    """
    settled = [parameter for parameter in parameters if parameter.grad is not None]
    settle_gradients(settled)
    total = torch.zeros((), device=device)
    by_copies: dict[int, list[Tensor]] = {}
    for parameter in settled:
        gradient, cuts = parameter.grad, 1
        assert gradient is not None
        if isinstance(gradient, DTensor):
            for axis, placement in enumerate(gradient.placements):
                cuts *= 1 if placement.is_replicate() else gradient.device_mesh.size(axis)
            gradient = gradient.to_local()
        by_copies.setdefault(sizes.world // (sizes.pp * cuts), []).append(gradient)
    for copies, gradients in by_copies.items():
        norms = torch._foreach_norm(gradients, 2, dtype=torch.float32)
        total = total + torch.stack(norms).square().sum() / copies
    if sizes.world > 1:
        torch.distributed.all_reduce(total)
    return total.sqrt()
