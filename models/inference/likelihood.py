"""Log-likelihoods of answers under a decoder: what perplexities and multiple-choice accuracies are made of."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from tqdm import tqdm

from common.constants import IGNORE
from models.decoder import Decoder


@torch.inference_mode()
def log_likelihoods(
    decoder: Decoder, batches: Iterable[dict[str, Any]], answers: int, show_progress: bool = True
) -> list[float]:
    """log p(answer | context) in nats of every answer.

    Args:
        decoder: on any device.
        batches: `tokens`, `labels`, `document_ids`, `branch_ids`, `response_ids` [1, T]; `number` [A] of each answer.
        answers: in all batches; an answer in several batches or parts gets their sum.
        show_progress: with a bar.
    """
    device = decoder.tok_embeddings.weight.device
    total = torch.zeros(answers, dtype=torch.float64)
    for batch in tqdm(batches, desc="scoring", unit=" batches", disable=not show_progress):
        placed = {name: value.to(device) for name, value in batch.items()}
        hidden = decoder(placed["tokens"], placed["document_ids"], branch_ids_BT=placed["branch_ids"])
        learned = placed["labels"] != IGNORE
        values = decoder.output.log_probabilities(hidden[learned], placed["labels"][learned])
        numbers = placed["number"][placed["response_ids"][learned]]
        total.index_add_(0, numbers.cpu(), values.double().cpu())
    return total.tolist()


def accuracies(
    likelihoods: Sequence[float], golds: Sequence[int], lengths: Sequence[Sequence[int]]
) -> dict[str, float]:
    """Share of questions whose right answer is the likeliest, plain and a character, with standard errors.

    Args:
        likelihoods: of all answers, question by question.
        golds: number of the right answer of each question.
        lengths: characters of each answer.
    """
    hits: dict[str, list[float]] = {"accuracy": [], "accuracy_norm": []}
    start = 0
    for gold, sizes in zip(golds, lengths, strict=True):
        mine = torch.tensor(likelihoods[start : start + len(sizes)], dtype=torch.float64)
        start += len(sizes)
        hits["accuracy"].append(float(mine.argmax() == gold))
        hits["accuracy_norm"].append(float((mine / torch.tensor(sizes)).argmax() == gold))
    found: dict[str, float] = {"questions": len(golds)}
    for name, values in hits.items():
        mean = sum(values) / len(values)
        found[name] = mean
        found[f"{name}_standard_error"] = (mean * (1 - mean) / max(len(values) - 1, 1)) ** 0.5
    return found
