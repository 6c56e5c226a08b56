"""Grouped-query attention that never looks outside a document, nor from one branch of a document into another.

Several documents share a packed sequence, so causal attention needs a second rule: same document only. A document may
branch: several answers follow one prompt, each sees the prompt and itself. Two forms of these rules give the same
numbers and neither holds a mask of all pairs. On a CPU documents of like length are computed together
(`models.attention_kernels.packed_documents`, `models.attention_kernels.cpu`); elsewhere FlexAttention looks at blocks
(`models.attention_kernels.flex`), one kernel whatever the documents, which has to be compiled.

Shape suffixes: B batch, T time, C model width, H query heads, K key/value heads, D head width, N = B * T.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask

from models.attention_kernels.cpu import blockwise_attention
from models.attention_kernels.flex import attend_blocks, document_block_mask
from models.attention_kernels.packed_documents import PackedDocuments, changes
from models.config import DecoderConfig
from models.kv_cache import KeyValueCache
from models.layers import RMSNorm, rotary_angles, rotate


def positions_in_documents(document_ids_BT: Tensor, branch_ids_BT: Tensor | None = None) -> Tensor:
    """Distance of each token from the first token of its document in the same row, other branches not counted.

    Args:
        document_ids_BT: integers; equal neighbors belong to one document.
        branch_ids_BT: integers; 0 is the prompt, every other number a branch that continues it. None is no branches.

    Returns:
        int64 positions [B, T], 0 at every start of a document and of a row.
    """
    columns = torch.arange(document_ids_BT.shape[1], device=document_ids_BT.device).expand_as(document_ids_BT)
    begins = changes(document_ids_BT)
    first = torch.where(begins, columns, 0).cummax(dim=1).values
    if branch_ids_BT is None:
        return columns - first
    first_of_branch = torch.where(begins | changes(branch_ids_BT), columns, 0).cummax(dim=1).values
    is_prompt = branch_ids_BT == 0
    prompt_end = torch.where(is_prompt, columns + 1, torch.where(begins, columns, 0)).cummax(dim=1).values
    return torch.where(is_prompt, columns, prompt_end + columns - first_of_branch) - first


def attended_pairs(document_ids_BT: Tensor, branch_ids_BT: Tensor | None = None, window: int | None = None) -> Tensor:
    """How many (query, key) pairs attention computes, a scalar on the device."""
    seen_BT = positions_in_documents(document_ids_BT, branch_ids_BT) + 1
    return (seen_BT if window is None else seen_BT.clamp(max=window)).sum()


@dataclass(frozen=True)
class AttentionPattern:
    """Who attends to whom, worked out once a batch and shared by all layers.

    Attributes:
        angles: cosine and sine of the rotary angles, each [B, T, 1, D / 2].
        sequences: the documents as rectangles, or None.
        blocks: what FlexAttention looks at, or None.
        window: keys that a query sees, its own included; None is all.
        bias: of one new token a slot to what a cache holds, see `KeyValueCache.bias`, or None.
    """

    angles: tuple[Tensor, Tensor]
    sequences: PackedDocuments | None = None
    blocks: BlockMask | None = None
    window: int | None = None
    bias: Tensor | None = None

    @classmethod
    def of(
        cls, document_ids_BT: Tensor, config: DecoderConfig, dtype: torch.dtype, branch_ids_BT: Tensor | None = None
    ) -> "AttentionPattern":
        """Layout of packed rows: rectangles on a CPU, blocks on other devices. `dtype` is that of queries and keys."""
        if document_ids_BT.device.type == "cpu" and branch_ids_BT is None and not changes(document_ids_BT)[:, 1:].any():
            return cls.causal(document_ids_BT, config, dtype)
        positions = positions_in_documents(document_ids_BT, branch_ids_BT)
        angles = rotary_angles(positions, config, dtype)
        if document_ids_BT.device.type == "cpu":
            return cls(angles, sequences=PackedDocuments.of(document_ids_BT, branch_ids_BT, config.sliding_window))
        return cls(angles, blocks=document_block_mask(document_ids_BT, positions, branch_ids_BT, config.sliding_window))

    @classmethod
    def causal(cls, like_BT: Tensor, config: DecoderConfig, dtype: torch.dtype) -> "AttentionPattern":
        """Layout of rows that hold one document each."""
        positions = torch.arange(like_BT.shape[1], device=like_BT.device)
        return cls(rotary_angles(positions.expand(like_BT.shape[:2]), config, dtype), window=config.sliding_window)

    @classmethod
    def decoding(cls, cache: KeyValueCache, config: DecoderConfig) -> "AttentionPattern":
        """Layout of one new token a slot, which sees what its slot holds."""
        angles = rotary_angles(cache.positions[:, None], config, cache.keys.dtype)
        return cls(angles, bias=cache.bias(config.sliding_window))


class Attention(nn.Module):
    """Grouped-query attention (Ainslie et al. 2023) with rotary positions.

    Args:
        config: gives the widths, the heads, and whether there are biases (Qwen2) or norms of queries and keys (Qwen3).
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        assert config.head_width is not None
        self.head_width = config.head_width
        queries, keys = config.heads * config.head_width, config.key_value_heads * config.head_width
        bias = config.query_key_value_bias
        self.wq = nn.Linear(config.width, queries, bias=bias)
        self.wk = nn.Linear(config.width, keys, bias=bias)
        self.wv = nn.Linear(config.width, keys, bias=bias)
        self.wo = nn.Linear(queries, config.width, bias=False)
        if config.query_key_norm:
            self.q_norm = RMSNorm(config.head_width, config.norm_epsilon)
            self.k_norm = RMSNorm(config.head_width, config.norm_epsilon)
        self.has_norms = config.query_key_norm

    def forward(
        self, x_BTC: Tensor, layout: AttentionPattern, cache: KeyValueCache | None = None, layer: int = 0
    ) -> Tensor:
        q_BTHD, k_BTKD, v_BTKD = (w(x_BTC).unflatten(-1, (-1, self.head_width)) for w in (self.wq, self.wk, self.wv))
        if self.has_norms:
            q_BTHD, k_BTKD = self.q_norm(q_BTHD), self.k_norm(k_BTKD)
        q_BTHD, k_BTKD = rotate(q_BTHD, layout.angles), rotate(k_BTKD, layout.angles)
        if cache is not None:
            cache.write(layer, k_BTKD.flatten(0, 1), v_BTKD.flatten(0, 1))
        if cache is not None and layout.bias is not None:
            y_BTHD = cache.attend(layer, q_BTHD.squeeze(1), layout.bias)[:, None]
        elif layout.sequences is not None:
            y_BTHD = attend_each_sequence(q_BTHD, k_BTKD, v_BTKD, layout.sequences)
        elif layout.blocks is not None:
            y_BTHD = attend_blocks(q_BTHD, k_BTKD, v_BTKD, layout.blocks)
        else:
            y_BTHD = attend(q_BTHD, k_BTKD, v_BTKD, window=layout.window)
        return self.wo(y_BTHD.flatten(2))


def attend(
    q_BTHD: Tensor, k_BTKD: Tensor, v_BTKD: Tensor, mask: Tensor | None = None, window: int | None = None
) -> Tensor:
    """Attention of whole rows, [B, T, H, D]: causal, within a window, or as the mask says.

    Args:
        q_BTHD: queries; k_BTKD, v_BTKD: keys and values, K dividing H, of as many places as a mask has columns.
        mask: boolean or to be added to the scores, [B or 1, 1, T, keys].
        window: keys that a query sees, its own included; None is all.
    """
    time = q_BTHD.shape[1]
    if mask is None and window is not None and window < time and q_BTHD.device.type != "cpu":
        places = torch.arange(time, device=q_BTHD.device)
        distance = places[:, None] - places
        mask = ((distance >= 0) & (distance < window))[None, None]
    if mask is not None or q_BTHD.device.type != "cpu":
        q_BHTD, k_BKTD, v_BKTD = (x.transpose(1, 2) for x in (q_BTHD, k_BTKD, v_BTKD))
        y_BHTD = F.scaled_dot_product_attention(
            q_BHTD, k_BKTD, v_BKTD, attn_mask=mask, is_causal=mask is None, enable_gqa=True
        )
        return y_BHTD.transpose(1, 2)
    heads = k_BTKD.shape[2]
    q_BKTGD = q_BTHD.unflatten(2, (heads, -1)).transpose(1, 2)
    # Norms of heads are wider than bfloat16 products.
    q_NTGD, k_NTD, v_NTD = (
        x.flatten(0, 1).to(v_BTKD.dtype).contiguous() for x in (q_BKTGD, k_BTKD.transpose(1, 2), v_BTKD.transpose(1, 2))
    )
    y_NTGD: Tensor = blockwise_attention(q_NTGD, k_NTD, v_NTD, window or time)
    return y_NTGD.unflatten(0, (-1, heads)).transpose(1, 2).flatten(2, 3)


@torch.compiler.disable  # the shapes of the rectangles change with every batch, and each would compile anew
def attend_each_sequence(q_BTHD: Tensor, k_BTKD: Tensor, v_BTKD: Tensor, sequences: PackedDocuments) -> Tensor:
    """Causal attention of each document with itself, branch by branch.

    Args:
        q_BTHD: queries; k_BTKD, v_BTKD: keys and values, K dividing H.
        sequences: of the B * T tokens.

    Returns:
        [B, T, H, D], equal to masked attention over the whole rows.
    """
    queries, keys = zip(*sequences.lengths, strict=True)
    rectangles = zip(
        sequences.queries.fill(q_BTHD.flatten(0, 1), queries),
        sequences.keys.fill(k_BTKD.flatten(0, 1), keys),
        sequences.keys.fill(v_BTKD.flatten(0, 1), keys),
        strict=True,
    )
    outputs = []
    for (q_SLHD, k_SLKD, v_SLKD), mask in zip(rectangles, sequences.masks, strict=True):
        wanted = None if mask is None else mask.to(q_BTHD.dtype)
        outputs.append(attend(q_SLHD, k_SLKD, v_SLKD, wanted, sequences.window))
    return sequences.queries.read(outputs).view_as(q_BTHD)
