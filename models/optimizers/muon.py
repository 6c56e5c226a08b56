"""Muon (Jordan et al. 2024): orthogonalized momentum for the blocks' matrices, AdamW for the rest.

Five Newton-Schulz products bring all singular values of a matrix's update near one, so that rare directions learn as
fast as frequent ones. The price is those products, small where a step has many tokens, and that a sharded matrix has to
be unsharded for them. Updates are scaled as by Liu et al. (2025): learning rate and weight decay are those of AdamW.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from common.errors import InputError
from models.optimizers.adamw import OptimizerFactory, check_adam

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic Newton-Schulz iteration (Jordan et al. 2024)."""


def orthogonalize(matrices: Tensor, iterations: int = 5) -> Tensor:
    """Newton-Schulz orthogonalization: about U V^T of each matrix U S V^T, singular values between 0.7 and 1.2.

    Args:
        matrices: [..., rows, columns], computed in their own dtype.
        iterations: Newton-Schulz steps; 5 is Jordan's.
    """
    a, b, c = COEFFICIENTS
    wide = matrices.shape[-2] <= matrices.shape[-1]
    x = matrices if wide else matrices.mT
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(iterations):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide else x.mT


class MuonWithAdamW(torch.optim.AdamW):
    """Muon for groups marked `orthogonal`, AdamW for the others. A tensor `found_inf` that is not 0 skips a step.

    Args:
        groups: parameter groups, each with `params`, `weight_decay` and `orthogonal`.
        momentum: Nesterov momentum of Muon.
        dtype: dtype of the orthogonalization.
        further: arguments of `torch.optim.AdamW`.
    """

    def __init__(self, groups: list[dict[str, Any]], momentum: float, dtype: torch.dtype, **further: Any) -> None:
        super().__init__(groups, **further)
        self.momentum, self.dtype = momentum, dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of all parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        groups = self.param_groups
        try:
            self.param_groups = [group for group in groups if not group["orthogonal"]]
            super().step()
        finally:
            self.param_groups = groups
        for group in groups:
            if group["orthogonal"]:
                self._step_muon(group)
        return loss

    def _step_muon(self, group: dict[str, Any]) -> None:
        skip = cast(Tensor | None, getattr(self, "found_inf", None))
        alike: dict[tuple[Any, ...], list[nn.Parameter]] = defaultdict(list)
        for parameter in group["params"]:
            if parameter.grad is not None:
                alike[(parameter.shape, parameter.dtype, parameter.device)].append(parameter)
        for parameters in alike.values():
            # One batched product of many small matrices, at the price of as many whole matrices in memory.
            whole = torch.stack([_whole(self._nesterov(parameter, skip)) for parameter in parameters])
            updates = orthogonalize(whole.to(self.dtype)).to(whole.dtype)
            # The root mean square of AdamW's updates is about 0.2 (Liu et al. 2025, eq. 4).
            rate = group["lr"] * 0.2 * max(whole.shape[-2:]) ** 0.5
            decay: float | Tensor = group["lr"] * group["weight_decay"]
            if skip is not None:
                updates, decay = updates.where(skip == 0, 0), decay * (skip == 0)
            for parameter, update in zip(parameters, updates, strict=True):
                _local(parameter).mul_(1 - decay).add_(_local(_like(parameter, update)), alpha=-rate)

    def _nesterov(self, parameter: nn.Parameter, skip: Tensor | None) -> Tensor:
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum, new = _local(state["momentum"]), _local(gradient)
        momentum.lerp_(new if skip is None else torch.where(skip == 0, new, momentum), 1 - self.momentum)
        return gradient.lerp(state["momentum"], self.momentum)


class Muon(OptimizerFactory):
    """Muon for the blocks' matrices, AdamW for embeddings, output and vectors.

    Args:
        learning_rate: peak learning rate of both.
        momentum: Nesterov momentum of Muon; 0.95 is Jordan's.
        betas, epsilon: those of AdamW.
        weight_decay: decoupled decay of matrices.
        fused: whether AdamW uses its single-kernel update.
        orthogonalize_in: dtype of the Newton-Schulz products. bfloat16 is Jordan's and faster on GPUs; small singular
            values are then rounding noise, by which parallel layouts differ.
    """

    def __init__(
        self,
        learning_rate: float = 3e-3,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.95),
        epsilon: float = 1e-8,
        weight_decay: float = 0.1,
        fused: bool = True,
        orthogonalize_in: Literal["float32", "bfloat16"] = "float32",
    ) -> None:
        check_adam(learning_rate, betas, epsilon, weight_decay)
        if not 0 <= momentum < 1:
            raise InputError(f"momentum={momentum}: must lie in [0, 1)")
        self.learning_rate, self.momentum, self.betas, self.epsilon = learning_rate, momentum, betas, epsilon
        self.weight_decay, self.fused, self.orthogonalize_in = weight_decay, fused, orthogonalize_in

    def build(self, parameters: Iterable[tuple[str, nn.Parameter]]) -> MuonWithAdamW:
        """Groups of orthogonalized matrices, of other decayed ones and of undecayed vectors."""
        trained = [(name, parameter) for name, parameter in parameters if parameter.requires_grad]
        hidden = [p for name, p in trained if p.ndim >= 2 and "layers." in name]
        other = [p for name, p in trained if p.ndim >= 2 and "layers." not in name]
        vectors = [p for _, p in trained if p.ndim < 2]
        return MuonWithAdamW(
            [
                {"params": hidden, "weight_decay": self.weight_decay, "orthogonal": True},
                {"params": other, "weight_decay": self.weight_decay, "orthogonal": False},
                {"params": vectors, "weight_decay": 0.0, "orthogonal": False},
            ],
            momentum=self.momentum,
            dtype=getattr(torch, self.orthogonalize_in),
            lr=self.learning_rate,
            betas=self.betas,
            eps=self.epsilon,
            fused=self.fused,
        )


def _whole(x: Tensor) -> Tensor:
    return x.full_tensor() if isinstance(x, DTensor) else x


def _local(x: Tensor) -> Tensor:
    return x.to_local() if isinstance(x, DTensor) else x


def _like(parameter: Tensor, whole: Tensor) -> Tensor:
    if isinstance(parameter, DTensor):
        return distribute_tensor(whole, parameter.device_mesh, parameter.placements, src_data_rank=None)
    return whole
