"""Blockwise causal attention on a CPU, in matrix products that fit into its cache.

PyTorch's own kernel multiplies a few dozen queries by as many keys at a time, products too small for a processor's
matrix units. Here a block of queries of several heads is multiplied by all keys it may see in one batched product,
whose scores still fit into a cache. Nothing above the diagonal's blocks or before a window is computed, and no scores
are kept for the backward pass. In bfloat16 that is twice as fast forward and backward, at the price of scores rounded
to bfloat16 before the softmax, as attention without a fused kernel has them.

Query heads that share keys are further rows of one product: grouped-query attention repeats nothing.

Shape suffixes: N sequences and key/value heads, T time, G query heads that share a key head, D head width, R rows of
queries.
"""

from typing import Any

import torch
from torch import Tensor

QUERIES = 128
"""Queries of a head in a block."""
SCORES = 2**21
"""Bytes of scores computed at once: what the second-level caches hold together."""


@torch.library.custom_op("language_models::blockwise_attention", mutates_args=())
def blockwise_attention(q_NTGD: Tensor, k_NTD: Tensor, v_NTD: Tensor, window: int) -> Tensor:
    """Causal attention softmax(q k^T / sqrt(D)) v: each query sees the keys up to its own position.

    It is one operator of PyTorch: a compiler does not unroll its loop, activation checkpointing repeats it whole.

    Args:
        q_NTGD: queries, contiguous, float32, bfloat16 or float64.
        k_NTD, v_NTD: keys and values, contiguous, of the same dtype.
        window: keys that a query sees, its own included; T or more are all.

    Returns:
        [N, T, G, D].
    """
    output = torch.empty_like(q_NTGD)
    for sequences, queries, keys in _blocks(q_NTGD, window):
        probabilities = _probabilities(_part(q_NTGD, sequences, queries), k_NTD[sequences, keys], queries, keys, window)
        block = output[sequences, queries]
        block.copy_((probabilities @ v_NTD[sequences, keys]).view(block.shape))
    return output


@torch.library.custom_op("language_models::blockwise_attention_backward", mutates_args=())
def _backward(
    gradient_NTGD: Tensor, q_NTGD: Tensor, k_NTD: Tensor, v_NTD: Tensor, window: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values; the probabilities are computed again."""
    wide = torch.promote_types(q_NTGD.dtype, torch.float32)
    grad_q = torch.empty_like(q_NTGD)
    # Each block of queries adds to the keys before it: bfloat16 would lose small terms.
    grad_k, grad_v = (torch.zeros_like(x, dtype=wide) for x in (k_NTD, v_NTD))
    scale = q_NTGD.shape[-1] ** -0.5
    for sequences, queries, keys in _blocks(q_NTGD, window):
        q, gradient = _part(q_NTGD, sequences, queries), _part(gradient_NTGD, sequences, queries)
        k, v = k_NTD[sequences, keys], v_NTD[sequences, keys]
        probabilities = _probabilities(q, k, queries, keys, window)
        grad_v[sequences, keys] += probabilities.mT @ gradient
        grad_scores = torch._softmax_backward_data(gradient @ v.mT, probabilities, -1, probabilities.dtype)
        grad_scores *= scale
        block = grad_q[sequences, queries]
        block.copy_((grad_scores @ k).view(block.shape))
        grad_k[sequences, keys] += grad_scores.mT @ q
    return grad_q, grad_k.to(k_NTD.dtype), grad_v.to(v_NTD.dtype)


def _blocks(q_NTGD: Tensor, window: int) -> list[tuple[slice, slice, slice]]:
    """Slices of sequences, queries and keys that are computed at once."""
    sequences, time, group, _ = q_NTGD.shape
    longest = min(time, QUERIES + window)
    at_once = max(1, SCORES // (min(QUERIES, time) * group * longest * q_NTGD.itemsize))
    return [
        (slice(first, first + at_once), slice(begin, end), slice(max(0, begin - window + 1), end))
        for first in range(0, sequences, at_once)
        for begin in range(0, time, QUERIES)
        for end in (min(begin + QUERIES, time),)
    ]


def _part(x_NTGD: Tensor, sequences: slice, queries: slice) -> Tensor:
    """Rows of a block [N', R, D]: query heads that share keys follow each other at each position."""
    return x_NTGD[sequences, queries].flatten(1, 2)


def _probabilities(q_NRD: Tensor, k_NTD: Tensor, queries: slice, keys: slice, window: int) -> Tensor:
    """Attention weights [N', R, T'] of a block of queries over its keys."""
    scores = (q_NRD * q_NRD.shape[-1] ** -0.5) @ k_NTD.mT
    own = queries.stop - queries.start
    rows = torch.arange(queries.start, queries.stop).repeat_interleave(q_NRD.shape[1] // own)[:, None]
    # Keys before the block's own are hidden by a window only.
    seen_by_all = 0 if keys.start or window < keys.stop else queries.start
    columns = torch.arange(keys.start + seen_by_all, keys.stop)
    hidden = (columns > rows) | (columns <= rows - window)
    scores[:, :, seen_by_all:] += torch.zeros(hidden.shape, dtype=scores.dtype).masked_fill_(hidden, -torch.inf)
    return scores.softmax(-1)


@blockwise_attention.register_fake
def _(q_NTGD: Tensor, k_NTD: Tensor, v_NTD: Tensor, window: int) -> Tensor:
    return torch.empty_like(q_NTGD)


@_backward.register_fake
def _(
    gradient_NTGD: Tensor, q_NTGD: Tensor, k_NTD: Tensor, v_NTD: Tensor, window: int
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(q_NTGD), torch.empty_like(k_NTD), torch.empty_like(v_NTD)


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, int], output: Tensor) -> None:
    *tensors, ctx.window = inputs
    ctx.save_for_backward(*tensors)


def _gradients(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
    return *_backward(gradient.contiguous(), *ctx.saved_tensors, ctx.window), None


blockwise_attention.register_autograd(_gradients, setup_context=_save)
