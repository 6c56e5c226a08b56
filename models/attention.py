"""Grouped-query attention over packed documents with branches.

Several documents share a packed row, so causal attention needs a second rule: same document only. A document may
branch: several responses follow one prompt, each sees the prompt and itself. Two implementations of these rules give
the same numbers and neither holds a mask of all pairs. On a CPU documents of similar length are computed together
(`models.attention_kernels.packed_documents`, `models.attention_kernels.cpu`); elsewhere FlexAttention
(`models.attention_kernels.flex`) is one kernel for any documents, which has to be compiled.

Shape suffixes: B batch, T time, C model width, H query heads, K key/value heads, D head width, N = B * T.
"""

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.attention_kernels.cpu import blockwise_attention
from models.attention_kernels.flex import attend_blocks, document_block_mask
from models.attention_kernels.packed_documents import PackedDocuments, changes
from models.config import DecoderConfig
from models.kv_cache import KVCache
from models.layers import RMSNorm, rotary_angles, rotate

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask


def positions_in_documents(document_ids_BT: Tensor, branch_ids_BT: Tensor | None = None) -> Tensor:
    """Position ids: distance of each token from the first one of its document in the row, other branches not counted.

    Args:
        document_ids_BT: integers; equal neighbors belong to one document.
        branch_ids_BT: integers; 0 is the prompt, each other number a branch that continues it. None is no branches.

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


def mean_attended_pairs(config: DecoderConfig, document_ids_BT: Tensor, branch_ids_BT: Tensor | None = None) -> Tensor:
    """(query, key) pairs that attention computes, averaged over the layers' windows, a scalar on the device."""
    counts = [
        attended_pairs(document_ids_BT, branch_ids_BT, window) * layers for window, layers in config.windows().items()
    ]
    total = torch.stack(counts).sum()
    return total // config.layers if len(counts) == 1 else total / config.layers


def attended_pairs(document_ids_BT: Tensor, branch_ids_BT: Tensor | None = None, window: int | None = None) -> Tensor:
    """Count of the (query, key) pairs that attention computes, a scalar on the device."""
    seen_BT = positions_in_documents(document_ids_BT, branch_ids_BT) + 1
    return (seen_BT if window is None else seen_BT.clamp(max=window)).sum()


@dataclass(frozen=True)
class AttentionPattern:
    """Attention pattern of a batch: which tokens attend to which, computed once and shared by layers of one window.

    Attributes:
        angles: cosine and sine of the rotary angles, each [B, T, 1, D / 2].
        documents: padded batches of the documents, on a CPU; else None.
        blocks: FlexAttention's block mask, on other devices; else None.
        window: keys that a query sees, its own included; None is all.
        bias: additive mask of one new token per slot over a KV cache, see `KVCache.bias`; else None.
    """

    angles: tuple[Tensor, Tensor]
    documents: PackedDocuments | None = None
    blocks: "BlockMask | None" = None
    window: int | None = None
    bias: Tensor | None = None

    @classmethod
    def of(
        cls,
        document_ids_BT: Tensor,
        config: DecoderConfig,
        dtype: torch.dtype,
        branch_ids_BT: Tensor | None = None,
        layer: int = 0,
    ) -> "AttentionPattern":
        """Pattern of packed rows: padded batches on a CPU, blocks on other devices.

        Args:
            document_ids_BT, branch_ids_BT: see `positions_in_documents`.
            config: gives rotary frequencies and the sliding windows.
            dtype: dtype of queries and keys.
            layer: index of a layer with the window.
        """
        window = config.window_of(layer)
        if document_ids_BT.device.type == "cpu" and branch_ids_BT is None and not changes(document_ids_BT)[:, 1:].any():
            return cls.causal(document_ids_BT, config, dtype, layer)
        positions = positions_in_documents(document_ids_BT, branch_ids_BT)
        angles = rotary_angles(positions, config, dtype)
        if document_ids_BT.device.type == "cpu":
            return cls(angles, documents=PackedDocuments.of(document_ids_BT, branch_ids_BT, window))
        return cls(angles, blocks=document_block_mask(document_ids_BT, positions, branch_ids_BT, window))

    @classmethod
    def causal(cls, like_BT: Tensor, config: DecoderConfig, dtype: torch.dtype, layer: int = 0) -> "AttentionPattern":
        """Pattern of rows that hold one document each."""
        positions = torch.arange(like_BT.shape[1], device=like_BT.device)
        angles = rotary_angles(positions.expand(like_BT.shape[:2]), config, dtype)
        return cls(angles, window=config.window_of(layer))

    @classmethod
    def decoding(cls, cache: KVCache, config: DecoderConfig, layer: int = 0) -> "AttentionPattern":
        """Pattern of one new token per slot, which sees what its slot of the cache holds."""
        angles = rotary_angles(cache.positions[:, None], config, cache.keys.dtype)
        return cls(angles, bias=cache.bias(config.window_of(layer)))


class Attention(nn.Module):
    """Grouped-query attention (Ainslie et al. 2023) with rotary positions.

    Args:
        config: widths, heads, biases (Qwen2), norms of queries and keys (Qwen3), scale of the scores (Granite).
        layer: index of the layer, which decides whether it has rotary positions (SmolLM3).
    """

    def __init__(self, config: DecoderConfig, layer: int = 0) -> None:
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
            self.q_norm = RMSNorm.of(config, config.head_width)
            self.k_norm = RMSNorm.of(config, config.head_width)
        self.has_norms = config.query_key_norm
        self.has_rope = config.has_rope(layer)
        # Every kernel divides by sqrt(D): queries carry what is beyond that.
        scale = config.attention_scale
        self.query_scale = None if scale is None else scale * config.head_width**0.5

    def forward(self, x_BTC: Tensor, pattern: AttentionPattern, cache: KVCache | None = None, layer: int = 0) -> Tensor:
        q_BTHD, k_BTKD, v_BTKD = (w(x_BTC).unflatten(-1, (-1, self.head_width)) for w in (self.wq, self.wk, self.wv))
        if self.has_norms:
            q_BTHD, k_BTKD = self.q_norm(q_BTHD), self.k_norm(k_BTKD)
        if self.has_rope:
            q_BTHD, k_BTKD = rotate(q_BTHD, pattern.angles), rotate(k_BTKD, pattern.angles)
        if self.query_scale is not None:
            q_BTHD = q_BTHD * self.query_scale
        if cache is not None:
            cache.write(layer, k_BTKD.flatten(0, 1), v_BTKD.flatten(0, 1))
        if cache is not None and pattern.bias is not None:
            y_BTHD = cache.attend(layer, q_BTHD.squeeze(1), pattern.bias)[:, None]
        elif pattern.documents is not None:
            y_BTHD = attend_documents(q_BTHD, k_BTKD, v_BTKD, pattern.documents)
        elif pattern.blocks is not None:
            y_BTHD = attend_blocks(q_BTHD, k_BTKD, v_BTKD, pattern.blocks)
        else:
            y_BTHD = attend(q_BTHD, k_BTKD, v_BTKD, window=pattern.window)
        return self.wo(y_BTHD.flatten(2))


def attend(
    q_BTHD: Tensor, k_BTKD: Tensor, v_BTKD: Tensor, mask: Tensor | None = None, window: int | None = None
) -> Tensor:
    """Attention of whole rows, [B, T, H, D]: causal, within a window, or by a mask.

    Args:
        q_BTHD: queries.
        k_BTKD, v_BTKD: keys and values, K dividing H, as many as a mask has columns.
        mask: boolean or additive mask, [B or 1, 1, T, keys].
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


def attend_documents(q_BTHD: Tensor, k_BTKD: Tensor, v_BTKD: Tensor, documents: PackedDocuments) -> Tensor:
    """Causal attention of each document with itself, branch by branch.

    Args:
        q_BTHD: queries.
        k_BTKD, v_BTKD: keys and values, K dividing H.
        documents: those of the B * T tokens.

    Returns:
        [B, T, H, D], equal to masked attention over the whole rows.
    """
    queries, keys = zip(*documents.lengths, strict=True)
    rectangles = zip(
        documents.queries.pad(q_BTHD.flatten(0, 1), queries),
        documents.keys.pad(k_BTKD.flatten(0, 1), keys),
        documents.keys.pad(v_BTKD.flatten(0, 1), keys),
        strict=True,
    )
    outputs = []
    for (q_SLHD, k_SLKD, v_SLKD), mask in zip(rectangles, documents.masks, strict=True):
        wanted = None if mask is None else mask.to(q_BTHD.dtype)
        outputs.append(attend(q_SLHD, k_SLKD, v_SLKD, wanted, documents.window))
    return documents.queries.unpad(outputs).view_as(q_BTHD)


@functools.cache
def keep_documents_eager() -> None:
    """Exclude `attend_documents` from `torch.compile`: shapes change with every batch, and each would compile again.

    A decorator at the function would load the compiler at every start, which takes seconds.
    """
    global attend_documents
    attend_documents = torch.compiler.disable(attend_documents)
