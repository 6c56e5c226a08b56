"""Log-likelihoods of responses under a decoder, for perplexity and multiple-choice accuracy.

All responses of a batch are scored in one packed row, each context once; the price is a numbering of the responses
through all batches.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from tqdm import tqdm

from common.constants import IGNORE
from models.decoder import Decoder


@torch.inference_mode()
def log_likelihoods(
    decoder: Decoder, batches: Iterable[dict[str, Any]], responses: int, show_progress: bool = True
) -> list[float]:
    """log p(response | context) in nats of each response.

    Args:
        decoder: language model, on any device.
        batches: packed rows with `tokens`, `labels`, `document_ids`, `branch_ids`, `response_ids` [1, T], and `number`
            [A], the number of each response in all batches.
        responses: count of the responses in all batches; one that is in several batches gets the sum.
        show_progress: whether to show a progress bar.
    """
    device = decoder.tok_embeddings.weight.device
    total = torch.zeros(responses, dtype=torch.float64)
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
    """Multiple-choice accuracy, plain and normalized by length, with standard errors.

    Args:
        likelihoods: log-likelihoods of all answers, question by question.
        golds: index of the right answer of each question.
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
