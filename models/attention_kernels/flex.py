"""FlexAttention's view of packed rows: which blocks of keys a block of queries looks at, never a T x T mask.

A document is a run of neighbors, so what a block of queries can see is one stretch of blocks, from the one in which
its first token's document begins to itself. Torch's own `create_block_mask` asks a function for every pair of
positions, and has to be compiled to not write all answers down; runs need no asking.

Shape suffixes: B batch, T time, Q blocks of queries, K blocks of keys.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from models.attention_kernels.packed_documents import changes

BLOCK = 128
"""Queries and keys in a block: what FlexAttention's kernels are made for."""


def document_block_mask(
    document_ids_BT: Tensor, positions_BT: Tensor, branch_ids_BT: Tensor | None = None, window: int | None = None
) -> BlockMask:
    """Causal attention within documents, branches and a window, worked out on the device without waiting for it.

    Args:
        document_ids_BT: integers; equal neighbors belong to one document.
        positions_BT: of each token in its document, see `models.attention.positions_in_documents`.
        branch_ids_BT: 0 is the prompt, other integers what continues it; None is no branches.
        window: a token sees itself and this many minus one before it; None sees all.
    """
    length = document_ids_BT.shape[1]
    blocks = -(-length // BLOCK)
    columns = torch.arange(length, device=document_ids_BT.device)
    start_BT = torch.where(changes(document_ids_BT), columns, 0).cummax(dim=1).values
    padded_BT = torch.nn.functional.pad(start_BT, (0, blocks * BLOCK - length), value=length)
    earliest_BQ = padded_BT[:, ::BLOCK]
    latest_BQ = padded_BT[:, BLOCK - 1 :: BLOCK]
    numbers = torch.arange(blocks, device=document_ids_BT.device)
    query, key = numbers[:, None], numbers[None, :]
    seen_BQK = (key <= query) & (key >= earliest_BQ[:, :, None] // BLOCK)
    # Seen whole: before the diagonal and of the one document that fills the block of queries.
    whole_BQK = seen_BQK & (key < query) & (key * BLOCK >= latest_BQ[:, :, None])
    if branch_ids_BT is not None or window is not None:
        whole_BQK = torch.zeros_like(whole_BQK)

    def allowed(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        sees = (query >= key) & (start_BT[batch, query] <= key)
        if branch_ids_BT is not None:
            branch = branch_ids_BT[batch, key]
            sees = sees & ((branch == 0) | (branch == branch_ids_BT[batch, query]))
        if window is not None:
            sees = sees & (positions_BT[batch, query] - positions_BT[batch, key] < window)
        return sees

    return BlockMask.from_kv_blocks(
        *_ordered(seen_BQK & ~whole_BQK), *_ordered(whole_BQK), BLOCK, allowed, seq_lengths=(length, length)
    )


def _ordered(chosen_BQK: Tensor) -> tuple[Tensor, Tensor]:
    """How many blocks of keys are chosen for each block of queries, and their numbers first; for all heads alike."""
    counts = chosen_BQK.sum(-1, dtype=torch.int32)
    order = chosen_BQK.int().argsort(dim=-1, descending=True, stable=True).int()
    return counts[:, None], order[:, None]


def attend_blocks(q_BTHD: Tensor, k_BTKD: Tensor, v_BTKD: Tensor, blocks: BlockMask) -> Tensor:
    """Attention as the blocks say, [B, T, H, D], in one kernel; on a CPU it has no backward pass.

    Args:
        q_BTHD: queries; k_BTKD, v_BTKD: keys and values, K dividing H.
        blocks: see `document_block_mask`.
    """
    q_BHTD, k_BKTD, v_BKTD = (x.transpose(1, 2) for x in (q_BTHD, k_BTKD, v_BTKD))
    y_BHTD: Tensor = _compiled(q_BTHD.device.type)(q_BHTD, k_BKTD, v_BKTD, block_mask=blocks, enable_gqa=True)
    return y_BHTD.transpose(1, 2)


@functools.cache
def _compiled(device: str) -> Callable[..., Any]:
    """Uncompiled it works on any device and holds all scores: for tests."""
    attention: Callable[..., Any] = flex_attention
    return attention if device == "cpu" else torch.compile(attention)
