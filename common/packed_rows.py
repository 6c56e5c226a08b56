"""Packed rows of prompts with branched responses: token ids, labels, document ids and branch ids as arrays.

One layout for preference pairs, multiple choice, rollouts and reward scores, read by `models.decoder.Decoder.forward`.
It holds arrays and not tensors, so that data modules and models may both import it. A prompt is computed once for all
its responses; the price is one more token per response, a copy of the prompt's last token.

Shape suffixes: T tokens of a row.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from common.constants import IGNORE

Row = dict[str, NDArray[np.int64]]
"""Arrays [T] by their names in a batch (`common.contracts.PackedBatch`)."""

PADDING: dict[str, int] = {"labels": IGNORE, "branch_ids": 0, "response_ids": -1, "document_ids": -1, "is_end": False}
"""Values of positions behind the last document; `tokens` take the tokenizer's padding."""


def branched_document(
    prompt: Sequence[int] | NDArray[np.int64],
    responses: Sequence[Sequence[int] | NDArray[np.int64]],
    keep_last_token: bool = True,
) -> Row:
    """One document: a prompt and its responses as branches.

    The token before a response predicts its first token, and each response has its own first token: every branch
    begins with a copy of the prompt's last token. A single response continues its prompt and is no branch.

    Args:
        prompt: token ids, at least one.
        responses: token ids of each response; one without tokens is scored at the prompt's last token.
        keep_last_token: whether a response's last token is in the row, where a reward model reads its score; it
            predicts nothing, so that log-probabilities do not need it.

    Returns:
        `tokens` [T]; `labels` [T], the next token where that is one of a response; `branch_ids` [T], 0 for the prompt
        and 1 + k for response k; `response_ids` [T], k where the label is one of response k, else -1; `is_end` [T],
        true at the last token of each response.

    Raises:
        ValueError: for an empty prompt, or an empty response whose log-probability would have no token.
    """
    if not len(prompt) or not (keep_last_token or all(len(response) for response in responses)):
        raise ValueError("a prompt and its responses need at least one token each")
    begin = np.asarray(prompt, dtype=np.int64)
    parts = [(begin[:-1], np.full(len(begin) - 1, IGNORE), 0)]
    for branch, response in enumerate(responses, start=int(len(responses) > 1)):
        following = np.asarray(response, dtype=np.int64)
        tokens, labels = np.append(begin[-1:], following), np.append(following, IGNORE)
        size = len(tokens) if keep_last_token else len(tokens) - 1
        parts.append((tokens[:size], labels[:size], branch))
    labels = np.concatenate([labels for _, labels, _ in parts])
    numbers = np.repeat(np.arange(-1, len(responses)), [len(tokens) for tokens, _, _ in parts])
    return {
        "tokens": np.concatenate([tokens for tokens, _, _ in parts]),
        "labels": labels,
        "branch_ids": np.concatenate([np.full(len(tokens), branch) for tokens, _, branch in parts]),
        "response_ids": np.where(labels == IGNORE, -1, numbers),
        "is_end": np.isin(np.arange(len(labels)), np.cumsum([len(tokens) for tokens, _, _ in parts])[1:] - 1),
    }


def join_documents(documents: Sequence[Row], length: int | None = None, pad: int = 0) -> Row:
    """One row of documents end to end, the rest of it padding.

    Args:
        documents: at least one; all have the same names.
        length: tokens of the row T; that of the documents by default.
        pad: token id of the padding.

    Returns:
        The arrays of the documents joined, `response_ids` numbered through the row; `document_ids` [T], counted from
        0, -1 for padding.
    """
    size = sum(len(document["tokens"]) for document in documents)
    missing = (size if length is None else length) - size
    row: Row = {}
    for name in documents[0]:
        parts = [document[name] for document in documents]
        if name == "response_ids":
            counts = [int(document["is_end"].sum()) for document in documents]
            firsts = np.cumsum(counts) - counts
            parts = [np.where(part < 0, -1, part + first) for part, first in zip(parts, firsts, strict=True)]
        row[name] = np.pad(np.concatenate(parts), (0, missing), constant_values=PADDING.get(name, pad))
    numbers = np.repeat(np.arange(len(documents)), [len(document["tokens"]) for document in documents])
    row["document_ids"] = np.pad(numbers, (0, missing), constant_values=PADDING["document_ids"])
    return row


def response_ends(row: Row) -> NDArray[np.int64]:
    """Position of the last token of each response, int64 [A], in a row that keeps those tokens."""
    return np.flatnonzero(row["is_end"])
