"""Packed batch: prompts with branched responses in one row, as `Decoder.forward` takes it.

Each prompt is computed once for all its responses, and no token is padding; the price is that a row has documents and
branches, which attention must keep apart. A response's log-probabilities and score are those of its prompt and itself
alone, whatever else is in the row.

Shape suffixes: T tokens of the row, N tokens of all its responses, A responses, C model width.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from common.constants import IGNORE
from common.packed_rows import branched_document, join_documents, response_ends
from models.decoder import Decoder

Document = tuple[Sequence[int], Sequence[Sequence[int]]]
"""Token ids of a prompt and of each of its responses."""


@dataclass(frozen=True)
class PackedResponses:
    """One row of prompts and their responses; the tokens of the responses are in the order of the responses.

    Attributes:
        tokens, document_ids: int64 [1, T]; a document is a prompt with its responses.
        branch_ids: int64 [1, T], 0 for prompts; None where each prompt has one response.
        positions: int64 [N], the position whose hidden state predicts each response token.
        targets: int64 [N], those tokens.
        response_ids: int64 [N], the response of each, ascending.
        lengths: int64 [A], tokens of each response.
        ends: int64 [A], the position of each response's last token; None where the row leaves it out.
    """

    tokens: Tensor
    document_ids: Tensor
    branch_ids: Tensor | None
    positions: Tensor
    targets: Tensor
    response_ids: Tensor
    lengths: Tensor
    ends: Tensor | None

    def to(self, device: torch.device) -> Self:
        """The same row on a device."""
        tensors: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        moved: dict[str, Any] = {
            name: None if x is None else x.to(device, non_blocking=True) for name, x in tensors.items()
        }
        return replace(self, **moved)


def pack_responses(
    documents: Sequence[Document], *, keep_last_token: bool = False, multiple: int = 1, pad: int = 0
) -> PackedResponses:
    """One row of prompts with their responses, on the CPU.

    Args:
        documents: prompts and their responses, no sequence empty; see `group_by_prompt`.
        keep_last_token: keep each response's last token, whose hidden state has its score (`response_scores`).
        multiple: the row's length is rounded up to a multiple of it, so that kernels meet few shapes.
        pad: token id of the padding.
    """
    laid_out = [branched_document(prompt, responses, keep_last_token) for prompt, responses in documents]
    size = sum(len(document["tokens"]) for document in laid_out)
    row = join_documents(laid_out, -(-size // multiple) * multiple, pad)
    learned = row["labels"] != IGNORE
    lengths = [len(response) for _, responses in documents for response in responses]
    rows = {name: torch.from_numpy(row[name])[None] for name in ("tokens", "document_ids", "branch_ids")}
    return PackedResponses(
        tokens=rows["tokens"],
        document_ids=rows["document_ids"],
        branch_ids=rows["branch_ids"] if row["branch_ids"].any() else None,
        positions=torch.from_numpy(np.flatnonzero(learned)),
        targets=torch.from_numpy(row["labels"][learned]),
        response_ids=torch.from_numpy(row["response_ids"][learned]),
        lengths=torch.tensor(lengths),
        ends=torch.from_numpy(response_ends(row)) if keep_last_token else None,
    )


def group_by_prompt(pairs: Iterable[tuple[Sequence[int], Sequence[int]]]) -> list[Document]:
    """Documents of (prompt, response) pairs: neighbors with equal prompts share one."""
    documents: list[tuple[Sequence[int], list[Sequence[int]]]] = []
    for prompt, response in pairs:
        if documents and list(documents[-1][0]) == list(prompt):
            documents[-1][1].append(response)
        else:
            documents.append((prompt, [response]))
    return list(documents)


def row_states(decoder: Decoder, packed: PackedResponses) -> Tensor:
    """Hidden states of the whole row, [T, C], on the decoder's device."""
    states: Tensor = decoder(packed.tokens, packed.document_ids, branch_ids_BT=packed.branch_ids)[0]
    return states


def response_states(decoder: Decoder, packed: PackedResponses) -> Tensor:
    """Hidden states that predict the response tokens, [N, C]."""
    return row_states(decoder, packed)[packed.positions]


def response_log_probabilities(decoder: Decoder, packed: PackedResponses, temperature: float = 1.0) -> Tensor:
    """log p(token | prompt, response so far) of every response token in nats, float32 [N], with its gradient.

    Args:
        decoder: language model on the row's device.
        packed: the row.
        temperature: divisor of the logits, that of the sampling.
    """
    return decoder.output.log_probabilities(response_states(decoder, packed) / temperature, packed.targets)


def response_kl(decoder: Decoder, reference: Decoder, packed: PackedResponses, temperature: float = 1.0) -> Tensor:
    """KL(decoder || reference) of the next token before every response token in nats, exact, float32 [N]."""
    p, q = (response_states(model, packed) / temperature for model in (decoder, reference))
    return decoder.output.kl(p, reference.output, q)


def response_scores(decoder: Decoder, packed: PackedResponses) -> Tensor:
    """Scalar output at the last token of every response, float32 [A].

    Args:
        decoder: reward model (`DecoderConfig.scalar_output`) on the row's device.
        packed: row with `keep_last_token`.

    Raises:
        ValueError: for a row without those tokens.
    """
    if packed.ends is None:
        raise ValueError("scores are read at the last token of a response: pack with keep_last_token=True")
    return decoder.output.scores(row_states(decoder, packed)[packed.ends])


def sum_by_response(values_N: Tensor, packed: PackedResponses) -> Tensor:
    """Sum of a value over the tokens of each response, [A]."""
    return values_N.new_zeros(len(packed.lengths)).index_add(0, packed.response_ids, values_N)
