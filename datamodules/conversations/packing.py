"""Sequence packing: which conversations share a row, and the labels of one (the loss mask).

Conversations of different length in a rectangle waste half of it. Rows here hold as many whole ones as fit, each a
document of its own that attends to nothing else and counts its positions from zero. How documents and branches lie in
a row, `common.packed_rows` says.

Shape suffixes: B rows, T tokens of a row.
"""

from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from common.constants import IGNORE
from common.packed_rows import Row


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Rows of example numbers whose lengths sum to at most `capacity`: best fit, the longest first.

    Args:
        lengths: of every example, none above `capacity`.
        capacity: of a row.

    Returns:
        Rows; each example is in exactly one. Best fit decreasing needs at most 11/9 of the fewest rows possible, and
        one more (Johnson 1973).
    """
    rows: list[list[int]] = []
    free: list[tuple[int, int]] = []  # (space left, row), sorted
    for number in np.argsort(-np.asarray(lengths), kind="stable").tolist():
        length = int(lengths[number])
        place = bisect_left(free, (length, -1))
        if place == len(free):
            rows.append([])
            space, row = capacity, len(rows) - 1
        else:
            space, row = free.pop(place)
        rows[row].append(number)
        if space > length:
            insort(free, (space - length, row))
    return rows


def lay_out_conversation(tokens: np.ndarray, trained: np.ndarray) -> Row:
    """Inputs and labels of a conversation: a label is the next token where that one is learned."""
    return {"tokens": tokens[:-1], "labels": np.where(trained[1:], tokens[1:], IGNORE)}


def stack(rows: Sequence[Row]) -> dict[str, Any]:
    """Rows of one length as int64 tensors [B, T]."""
    return {name: torch.from_numpy(np.stack([row[name] for row in rows])).long() for name in rows[0]}
