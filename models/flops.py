"""How many parameters a configuration has, how many FLOPs a batch costs, and how fast this device multiplies.

Counted from the configuration by formula, so that a plan needs no model in memory; a test holds the formulas
against PyTorch's own counter. Attention is counted as it is computed, causal and within documents, not as the
full square of PaLM's convention (Chowdhery et al. 2022, appendix B), which flatters small models.
"""

import time

import torch

from models.anatomy import block_tensors, embedding_tensors, head_tensors
from models.config import DecoderConfig


def matmul_parameters(config: DecoderConfig) -> int:
    """Parameters that multiply a token: all but vectors, the input embedding and inactive experts."""
    block = sum(tensor.multiplied_per_token for tensor in block_tensors(config))
    return config.layers * block + sum(tensor.multiplied_per_token for tensor in head_tensors(config))


def parameters(config: DecoderConfig) -> int:
    """All parameters; a tied embedding counts once."""
    blocks = config.layers * sum(tensor.numel for tensor in block_tensors(config))
    embedding = 0 if config.tied_embeddings else sum(tensor.numel for tensor in embedding_tensors(config))
    return blocks + embedding + sum(tensor.numel for tensor in head_tensors(config))


def training_flops(config: DecoderConfig, tokens: int, attended_pairs: int) -> int:
    """FLOPs of one forward and backward pass.

    Args:
        config: shape of the decoder.
        tokens: tokens in the batch.
        attended_pairs: (query, key) pairs that attention computes in a layer, summed over rows and averaged over
            layers where their windows differ; a causal document of length n has n (n + 1) / 2.

    Returns:
        6 FLOPs per token and matmul parameter, 12 per pair and attention channel (2 products forward, 4 backward).
    """
    assert config.head_width is not None
    attention = 12 * config.layers * config.heads * config.head_width * attended_pairs
    return 6 * matmul_parameters(config) * tokens + attention


def palm_flops_per_token(config: DecoderConfig, sequence_length: int) -> float:
    """FLOPs of a token forward and backward in PaLM's convention, 6 N + 12 L H Q T (Chowdhery et al. 2022, appendix B).

    N leaves the input embedding out; attention counts as the full square of the window, twice what is computed. For
    comparison with published utilizations only.

    Args:
        config: shape of the decoder; L layers, H heads of width Q.
        sequence_length: T.
    """
    assert config.head_width is not None
    return 6.0 * matmul_parameters(config) + 12.0 * config.layers * config.heads * config.head_width * sequence_length


def has_bf16_matrix_units(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 matrices in hardware.

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
    """FLOP/s of the fastest square matrix product found in about `seconds`: the practical ceiling of a step.

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
