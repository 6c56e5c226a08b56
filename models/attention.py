"""Grouped-query attention that never looks outside a document.

Several documents share a packed sequence, so causal attention needs a second rule: same document only. Two
forms of that rule give the same numbers. On a CPU each document runs through SDPA by itself, which skips the
masked half and every cross-document product; elsewhere one dense boolean mask costs T x T bytes a sequence
but launches a single kernel.

Shape suffixes: B batch, T time, C model width, H query heads, K key/value heads, D head width, N = B * T.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import rotary_angles, rotate


def positions_in_documents(document_ids_BT: Tensor) -> Tensor:
    """Distance of each token from the first token of its document in the same row.

    Args:
        document_ids_BT: integers; equal neighbours belong to one document.

    Returns:
        int64 positions [B, T], 0 at every start of a document and of a row.
    """
    columns = torch.arange(document_ids_BT.shape[1], device=document_ids_BT.device).expand_as(document_ids_BT)
    is_start = torch.ones_like(document_ids_BT, dtype=torch.bool)
    is_start[:, 1:] = document_ids_BT[:, 1:] != document_ids_BT[:, :-1]
    return columns - torch.where(is_start, columns, 0).cummax(dim=1).values


@dataclass(frozen=True)
class AttentionLayout:
    """Who attends to whom, worked out once a batch and shared by all layers.

    Attributes:
        angles: cosine and sine of the rotary angles, each [B, T, 1, D / 2].
        is_list: whether documents are given by their lengths.
        lengths: of the documents in reading order (they sum to B * T) if so.
        mask: boolean [B, 1, T, T], True where attention is allowed, or None.
    """

    angles: tuple[Tensor, Tensor]
    lengths: tuple[int, ...] = ()
    mask: Tensor | None = None
    is_list: bool = False

    @classmethod
    def of(cls, document_ids_BT: Tensor, head_width: int, theta: float) -> "AttentionLayout":
        """Layout of packed rows: the list of lengths on a CPU, the dense mask on other devices."""
        positions = positions_in_documents(document_ids_BT)
        angles = rotary_angles(positions, head_width, theta)
        if document_ids_BT.device.type == "cpu":
            starts = (positions.flatten() == 0).nonzero().flatten()
            ends = torch.cat((starts[1:], starts.new_tensor([positions.numel()])))
            return cls(angles, lengths=tuple((ends - starts).tolist()), is_list=True)
        same_document = document_ids_BT[:, None, :, None] == document_ids_BT[:, None, None, :]
        return cls(angles, mask=same_document.tril())

    @classmethod
    def causal(cls, positions_BT: Tensor, head_width: int, theta: float) -> "AttentionLayout":
        """Layout of rows that hold one document each."""
        return cls(rotary_angles(positions_BT, head_width, theta))


class KeyValueCache:
    """Keys and values of the tokens decoded so far, one pair of tensors a layer, allocated once.

    Args:
        layers: number of decoder layers.
        batch: rows decoded together.
        capacity: positions a row can hold.
        heads: key/value heads K.
        head_width: D.
        like: a parameter that gives dtype and device.
    """

    def __init__(self, layers: int, batch: int, capacity: int, heads: int, head_width: int, like: Tensor) -> None:
        shape = (layers, batch, heads, capacity, head_width)
        # Not `like.new_empty`: a parameter may be a DTensor, and what is kept here is not.
        self.keys, self.values = (torch.empty(shape, dtype=like.dtype, device=like.device) for _ in range(2))
        self.capacity, self.length = capacity, 0

    def append(self, layer: int, k_BKTD: Tensor, v_BKTD: Tensor) -> tuple[Tensor, Tensor]:
        """Store the new positions of a layer and return all of that layer's, old and new."""
        end = self.length + k_BKTD.shape[2]
        self.keys[layer, :, :, self.length : end] = k_BKTD
        self.values[layer, :, :, self.length : end] = v_BKTD
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]


class Attention(nn.Module):
    """Grouped-query attention (Ainslie et al. 2023) with rotary positions and no biases.

    Args:
        width: model width C.
        heads: query heads H.
        key_value_heads: K, a divisor of H; K = H is multi-head, K = 1 multi-query attention.
        head_width: D.
    """

    def __init__(self, width: int, heads: int, key_value_heads: int, head_width: int) -> None:
        super().__init__()
        self.heads, self.key_value_heads, self.head_width = heads, key_value_heads, head_width
        self.wq = nn.Linear(width, heads * head_width, bias=False)
        self.wk = nn.Linear(width, key_value_heads * head_width, bias=False)
        self.wv = nn.Linear(width, key_value_heads * head_width, bias=False)
        self.wo = nn.Linear(heads * head_width, width, bias=False)

    def forward(
        self, x_BTC: Tensor, layout: AttentionLayout, cache: KeyValueCache | None = None, layer: int = 0
    ) -> Tensor:
        q_BTHD = rotate(self.wq(x_BTC).unflatten(-1, (-1, self.head_width)), layout.angles)
        k_BTKD = rotate(self.wk(x_BTC).unflatten(-1, (-1, self.head_width)), layout.angles)
        v_BTKD = self.wv(x_BTC).unflatten(-1, (-1, self.head_width))
        if layout.is_list:
            return self.wo(attend_each_document(q_BTHD, k_BTKD, v_BTKD, layout).flatten(2))
        q_BHTD, k_BKTD, v_BKTD = (x.transpose(1, 2) for x in (q_BTHD, k_BTKD, v_BTKD))
        if cache is not None:
            k_BKTD, v_BKTD = cache.append(layer, k_BKTD, v_BKTD)
        # One query against the cache sees all of it: there is nothing to mask.
        is_causal = layout.mask is None and q_BHTD.shape[2] > 1
        y_BHTD = F.scaled_dot_product_attention(
            q_BHTD, k_BKTD, v_BKTD, attn_mask=layout.mask, is_causal=is_causal, enable_gqa=True
        )
        return self.wo(y_BHTD.transpose(1, 2).flatten(2))


@torch.compiler.disable  # the number of documents changes with every batch, and each would compile anew
def attend_each_document(q_BTHD: Tensor, k_BTKD: Tensor, v_BTKD: Tensor, layout: AttentionLayout) -> Tensor:
    """Causal attention of each document with itself.

    Args:
        q_BTHD: queries; k_BTKD, v_BTKD: keys and values, K dividing H.
        layout: holds the document lengths in reading order, summing to B * T.

    Returns:
        [B, T, H, D], equal to masked attention over the whole rows.
    """
    # `split` and `cat` are each other's backward: slicing would write one full-size gradient a document.
    parts = zip(*(x.flatten(0, 1).split(layout.lengths) for x in (q_BTHD, k_BTKD, v_BTKD)), strict=True)
    documents = [_attend_document(*part) for part in parts]
    return torch.cat(documents).view_as(q_BTHD)


def _attend_document(q_LHD: Tensor, k_LKD: Tensor, v_LKD: Tensor) -> Tensor:
    q_1HLD, k_1KLD, v_1KLD = (x.transpose(0, 1)[None] for x in (q_LHD, k_LKD, v_LKD))
    y_1HLD = F.scaled_dot_product_attention(q_1HLD, k_1KLD, v_1KLD, is_causal=True, enable_gqa=True)
    return y_1HLD[0].transpose(0, 1)
