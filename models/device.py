"""Hardware probes: bfloat16 matrix units, the measured peak of a matrix product, and DTensors over a device mesh.

Measured on the device rather than read from a table of data sheets: a new GPU needs no entry, at the price of a second
at the start of a run.
"""

import sys
import time
from typing import TYPE_CHECKING, TypeGuard

import torch

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def is_dtensor(tensor: torch.Tensor) -> "TypeGuard[DTensor]":
    """Whether a tensor is a DTensor. The class takes seconds to import, and where nothing has, there is none."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def default_device() -> torch.device:
    """The accelerator, or the CPU where there is none."""
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return torch.device("cpu") if device is None else device


def has_bf16_matrix_units(device: torch.device) -> bool:
    """Whether the device has bfloat16 matrix units.

    Without such units PyTorch still accepts bfloat16 but a CPU is up to a hundred times slower than in float32.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        x86 = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
        arm = torch.backends.cpu.get_cpu_capability() == "SVE256"
        return x86 or arm
    return True


def measured_matmul_peak(device: torch.device, dtype: torch.dtype, seconds: float = 1.0) -> float:
    """Measured peak FLOP/s of a matrix product, the practical ceiling of a step, found in about `seconds`.

    The side doubles from 512 while one product takes under a fifth of the budget, which bounds the time on slow
    devices and reaches large products on fast ones.
    """
    best, deadline, side = 0.0, time.perf_counter() + seconds, 512
    while True:
        left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        for _ in range(3):
            elapsed = _timed_product(left, right)
            best = max(best, 2 * side**3 / elapsed)
        if time.perf_counter() > deadline or elapsed * 8 > seconds / 5 or side >= 8192:
            return best
        side *= 2


def _timed_product(left: torch.Tensor, right: torch.Tensor) -> float:
    start = time.perf_counter()
    product = left @ right
    # Reading one element back waits for the device.
    product[0, 0].item()
    return time.perf_counter() - start
