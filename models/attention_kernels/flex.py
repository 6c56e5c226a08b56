"""FlexAttention block masks of packed documents.

A document is a run of neighbors, so a block of queries sees one range of blocks: from the block in which its first
token's document begins to itself. PyTorch's `create_block_mask` evaluates a function for each pair of positions and has
to be compiled to not hold all of them; here the mask is computed from the runs, which needs documents to be contiguous.

Shape suffixes: B batch, T time, Q blocks of queries, K blocks of keys.
"""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from models.attention_kernels.packed_documents import changes

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

BLOCK = 128
"""Queries and keys in a block, FlexAttention's default."""


def document_block_mask(
    document_ids_BT: Tensor, positions_BT: Tensor, branch_ids_BT: Tensor | None = None, window: int | None = None
) -> "BlockMask":
    """Block mask of causal attention within documents, branches and a window, computed on the device without a sync.

    Args:
        document_ids_BT: integers; equal neighbors belong to one document.
        positions_BT: position of each token in its document, see `models.attention.positions_in_documents`.
        branch_ids_BT: 0 is the prompt, other integers the branches that continue it; None is no branches.
        window: a token sees itself and this many minus one before it; None sees all.
    """
    # Imported where it is used: it brings torch.compile, which costs every other start seconds.
    from torch.nn.attention.flex_attention import BlockMask

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
    # Full blocks: before the diagonal, and of the one document that fills the block of queries.
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
    """Count of the chosen key blocks per query block, and block numbers with the chosen ones first; all heads alike."""
    counts = chosen_BQK.sum(-1, dtype=torch.int32)
    order = chosen_BQK.int().argsort(dim=-1, descending=True, stable=True).int()
    return counts[:, None], order[:, None]


def attend_blocks(q_BTHD: Tensor, k_BTKD: Tensor, v_BTKD: Tensor, blocks: "BlockMask") -> Tensor:
    """Attention by a block mask, [B, T, H, D], in one kernel; on a CPU it has no backward pass.

    Args:
        q_BTHD: queries.
        k_BTKD, v_BTKD: keys and values, K dividing H.
        blocks: see `document_block_mask`.
    """
    q_BHTD, k_BKTD, v_BKTD = (x.transpose(1, 2) for x in (q_BTHD, k_BTKD, v_BTKD))
    y_BHTD: Tensor = _compiled(q_BTHD.device.type)(q_BHTD, k_BKTD, v_BKTD, block_mask=blocks, enable_gqa=True)
    return y_BHTD.transpose(1, 2)


@functools.cache
def _compiled(device: str) -> Callable[..., Any]:
    """FlexAttention, compiled but on a CPU, where it runs uncompiled and holds all scores: for tests."""
    from torch.nn.attention.flex_attention import flex_attention

    attention: Callable[..., Any] = flex_attention
    return attention if device == "cpu" else torch.compile(attention)
