"""Sequence packing: rows filled with whole conversations, and preference pairs laid end to end.

Conversations of different length in a rectangle waste half of it. Rows here hold as many whole ones as fit, each a
document of its own that attends to nothing else and counts its positions from zero. A pair is a document with
branches: prompt, then each answer, which sees the prompt and itself but not the other answer, so that the prompt is
computed once.

Shape suffixes: B rows, T time, P pairs, A = 2 P answers (chosen, rejected, chosen, ...).
"""

from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from common.constants import IGNORE

Part = dict[str, np.ndarray]
"""One example laid out: int64 arrays of one length, by the names they have in a batch."""


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


def lay_out_conversation(tokens: np.ndarray, trained: np.ndarray) -> Part:
    """Inputs and labels of a conversation: a label is the next token where that one is learned."""
    return {"tokens": tokens[:-1], "labels": np.where(trained[1:], tokens[1:], IGNORE)}


def lay_out_pair(prompt: np.ndarray, answers: Sequence[np.ndarray]) -> Part:
    """A prompt and its answers as one document with branches.

    The token before an answer predicts its first token, and there is one first token for each answer: every branch
    therefore begins with a copy of the prompt's last token. Its last token (end of text) is there to be read by a
    reward model and predicts nothing.

    Args:
        prompt: token ids, at least one.
        answers: token ids of each answer, at least one each.

    Returns:
        `tokens`, `labels`, `branch_ids` (0 prompt, 1 + k answer k) and `response_ids` (k where the label is one of
        answer k, else -1).
    """
    parts = [(prompt[:-1], np.full(len(prompt) - 1, IGNORE), 0)]
    for number, answer in enumerate(answers, start=1):
        parts.append((np.append(prompt[-1:], answer), np.append(answer, IGNORE), number))
    labels = np.concatenate([labels for _, labels, _ in parts])
    branches = np.concatenate([np.full(len(tokens), branch) for tokens, _, branch in parts])
    return {
        "tokens": np.concatenate([tokens for tokens, _, _ in parts]),
        "labels": labels,
        "branch_ids": branches,
        "response_ids": np.where(labels == IGNORE, -1, branches - 1),
    }


def fill_row(parts: Sequence[Part], length: int, pad: int) -> Part:
    """Parts one after another, each a document, and the rest of the row a document of padding."""
    filler = {"tokens": pad, "labels": IGNORE, "branch_ids": 0, "response_ids": -1}
    row = {}
    for name in parts[0]:
        joined = np.concatenate([part[name] for part in parts])
        row[name] = np.pad(joined, (0, length - len(joined)), constant_values=filler[name])
    documents = np.repeat(np.arange(len(parts)), [len(part["tokens"]) for part in parts])
    row["document_ids"] = np.pad(documents, (0, length - len(documents)), constant_values=-1)
    return row


def stack(rows: Sequence[Part]) -> dict[str, Any]:
    """Rows of one length as int64 tensors [B, T]."""
    return {name: torch.from_numpy(np.stack([row[name] for row in rows])).long() for name in rows[0]}
