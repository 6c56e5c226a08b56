"""Grouped-query attention that never looks outside a document, nor from one branch of a document into another.

Several documents share a packed sequence, so causal attention needs a second rule: same document only. A document may
branch: several answers follow one prompt, each sees the prompt and itself. Two forms of these rules give the same
numbers. On a CPU each document runs through SDPA by itself, which skips the masked half and every cross-document
product; elsewhere one dense boolean mask costs T x T bytes a sequence but launches a single kernel.

Shape suffixes: B batch, T time, C model width, H query heads, K key/value heads, D head width, N = B * T.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import rotary_angles, rotate


def positions_in_documents(document_ids_BT: Tensor, branches_BT: Tensor | None = None) -> Tensor:
    """Distance of each token from the first token of its document in the same row, other branches not counted.

    Args:
        document_ids_BT: integers; equal neighbours belong to one document.
        branches_BT: integers; 0 is the prompt, every other number a branch that continues it. None is no branches.

    Returns:
        int64 positions [B, T], 0 at every start of a document and of a row.
    """
    columns = torch.arange(document_ids_BT.shape[1], device=document_ids_BT.device).expand_as(document_ids_BT)
    begins = _changes(document_ids_BT)
    first = torch.where(begins, columns, 0).cummax(dim=1).values
    if branches_BT is None:
        return columns - first
    first_of_branch = torch.where(begins | _changes(branches_BT), columns, 0).cummax(dim=1).values
    is_prompt = branches_BT == 0
    prompt_end = torch.where(is_prompt, columns + 1, torch.where(begins, columns, 0)).cummax(dim=1).values
    return torch.where(is_prompt, columns, prompt_end + columns - first_of_branch) - first


def _changes(x_BT: Tensor) -> Tensor:
    """True where a value differs from its left neighbour, and in the first column."""
    changes = torch.ones_like(x_BT, dtype=torch.bool)
    changes[:, 1:] = x_BT[:, 1:] != x_BT[:, :-1]
    return changes


@dataclass(frozen=True)
class AttentionLayout:
    """Who attends to whom, worked out once a batch and shared by all layers.

    Attributes:
        angles: cosine and sine of the rotary angles, each [B, T, 1, D / 2].
        is_list: whether documents are given by their lengths.
        lengths: of the documents in reading order (they sum to B * T) if so, each as the lengths of its prompt and of
            its branches; a document without branches is a prompt alone.
        mask: boolean [B, 1, T, T], True where attention is allowed, or None.
    """

    angles: tuple[Tensor, Tensor]
    lengths: tuple[tuple[int, ...], ...] = ()
    mask: Tensor | None = None
    is_list: bool = False

    @classmethod
    def of(
        cls, document_ids_BT: Tensor, head_width: int, theta: float, branches_BT: Tensor | None = None
    ) -> "AttentionLayout":
        """Layout of packed rows: the list of lengths on a CPU, the dense mask on other devices."""
        positions = positions_in_documents(document_ids_BT, branches_BT)
        angles = rotary_angles(positions, head_width, theta)
        if document_ids_BT.device.type == "cpu":
            return cls(angles, lengths=document_lengths(document_ids_BT, branches_BT), is_list=True)
        return cls(angles, mask=dense_mask(document_ids_BT, branches_BT))

    @classmethod
    def causal(cls, positions_BT: Tensor, head_width: int, theta: float) -> "AttentionLayout":
        """Layout of rows that hold one document each."""
        return cls(rotary_angles(positions_BT, head_width, theta))


def dense_mask(document_ids_BT: Tensor, branches_BT: Tensor | None = None) -> Tensor:
    """Boolean [B, 1, T, T], True where a position (row) may attend to another (column)."""
    allowed = document_ids_BT[:, None, :, None] == document_ids_BT[:, None, None, :]
    if branches_BT is not None:
        keys = branches_BT[:, None, None, :]
        allowed &= (keys == 0) | (keys == branches_BT[:, None, :, None])
    return allowed.tril()


def document_lengths(document_ids_BT: Tensor, branches_BT: Tensor | None = None) -> tuple[tuple[int, ...], ...]:
    """Lengths of the prompt and of every branch of each document, in reading order."""
    begins = _changes(document_ids_BT)
    cuts = begins if branches_BT is None else begins | _changes(branches_BT)
    starts = cuts.flatten().nonzero().flatten()
    lengths = torch.diff(starts, append=starts.new_tensor([cuts.numel()])).tolist()
    if branches_BT is None:
        return tuple((length,) for length in lengths)
    documents: list[list[int]] = []
    is_begin, branch = begins.flatten()[starts].tolist(), branches_BT.flatten()[starts].tolist()
    for length, new, number in zip(lengths, is_begin, branch, strict=True):
        if new:
            documents.append([length] if number == 0 else [0, length])
        else:
            documents[-1].append(length)
    return tuple(map(tuple, documents))


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
    """Causal attention of each document with itself, branch by branch.

    Args:
        q_BTHD: queries; k_BTKD, v_BTKD: keys and values, K dividing H.
        layout: holds the document lengths in reading order, summing to B * T.

    Returns:
        [B, T, H, D], equal to masked attention over the whole rows.
    """
    # `split` and `cat` are each other's backward: slicing would write one full-size gradient a document.
    sizes = [sum(lengths) for lengths in layout.lengths]
    parts = zip(*(x.flatten(0, 1).split(sizes) for x in (q_BTHD, k_BTKD, v_BTKD)), layout.lengths, strict=True)
    documents = [_attend_document(*part) for part in parts]
    return torch.cat(documents).view_as(q_BTHD)


def _attend_document(q_LHD: Tensor, k_LKD: Tensor, v_LKD: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """A prompt alone, or with its branches: the first one continues it, each further one attends to it and to
    itself.
    """
    if len(lengths) <= 2:
        return _attend(q_LHD, k_LKD, v_LKD)
    prompt, first, *further = lengths
    sizes = (prompt + first, *further)
    queries, keys, values = (x.split(sizes) for x in (q_LHD, k_LKD, v_LKD))
    outputs = [_attend(queries[0], keys[0], values[0])]
    for query, key, value in zip(queries[1:], keys[1:], values[1:], strict=True):
        mask = torch.ones(len(key), prompt + len(key), dtype=torch.bool, device=key.device).tril(prompt)
        shared = (torch.cat((keys[0][:prompt], key)), torch.cat((values[0][:prompt], value)))
        outputs.append(_attend(query, *shared, mask))
    return torch.cat(outputs)


def _attend(q_LHD: Tensor, k_SKD: Tensor, v_SKD: Tensor, mask_LS: Tensor | None = None) -> Tensor:
    """Causal attention, or by a mask where queries are the last of the keys' positions."""
    q_1HLD, k_1KSD, v_1KSD = (x.transpose(0, 1)[None] for x in (q_LHD, k_SKD, v_SKD))
    y_1HLD = F.scaled_dot_product_attention(
        q_1HLD, k_1KSD, v_1KSD, attn_mask=mask_LS, is_causal=mask_LS is None, enable_gqa=True
    )
    return y_1HLD[0].transpose(0, 1)
