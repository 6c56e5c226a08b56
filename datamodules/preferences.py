"""Preference data module: pairs of a chosen and a rejected response, for reward models and DPO.

A batch is a fixed number of pairs laid end to end in one row, without padding but for the last few tokens. Losses and
papers count pairs, so every batch has equally many. The price is a length that changes from batch to batch.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import xxhash
from torch.utils.data import DataLoader, Dataset

from common.errors import InputError
from common.packed_rows import branched_document, join_documents, response_ends
from datamodules.conversation_data import ConversationDataModule
from datamodules.conversations.chat_template import Encoded
from datamodules.conversations.example_store import Example, Examples
from datamodules.conversations.messages import Unusable, unlearned
from datamodules.conversations.packing import stack
from datamodules.conversations.row_formats import group_of, preference
from datamodules.conversations.rows import Row, Rows
from datamodules.mixing.samplers import EpochOrder, StepBatch
from datamodules.mixing.windows import PADDING

ROUND_TO = 64
"""Rows are padded to a multiple of this many tokens, which tensor parallelism cuts along the sequence."""


class PairBatches(Dataset[dict[str, Any]]):
    """Dataset of batches of preference pairs.

    Args:
        examples: prompt, chosen, rejected.
        pad: fills the row.
        order_seed: of the order in every epoch; by default sample number i is example i.
        max_tokens: tokens of a prompt and an unrelated response.

    Attributes:
        unrelated: lay out another prompt's chosen response as a third one, from which KTO estimates a KL divergence.
        reference: float32 [examples, responses], log-probabilities under the reference; None where they are not known.
        is_soft: whether any pair's label is in doubt.
    """

    def __init__(self, examples: Examples, pad: int, order_seed: int | None = None, max_tokens: int = 512) -> None:
        self.examples, self.pad, self.max_tokens = examples, pad, max_tokens
        self.order = None if order_seed is None else EpochOrder(len(examples), order_seed)
        self.unrelated = False
        self.reference: np.ndarray | None = None
        self.is_soft = bool((examples.probabilities != 1).any())

    def __len__(self) -> int:
        return len(self.examples)

    def responses(self, example: int) -> list[np.ndarray]:
        """Token ids of an example's responses."""
        _, *responses = (tokens for tokens, _ in self.examples.segments(example))
        if self.unrelated:
            responses.append(self.unrelated_response(example))
        return responses

    def unrelated_response(self, example: int) -> np.ndarray:
        """Token ids of the response to another prompt, the same in every epoch, as many as fit behind this one's.

        Raises:
            InputError: when hardly any example has another prompt.
        """
        prompt, *own = (tokens for tokens, _ in self.examples.segments(example))
        for attempt in range(64):
            other = xxhash.xxh3_64_intdigest(f"unrelated/{example}/{attempt}".encode()) % len(self)
            other_prompt, response, _ = (tokens for tokens, _ in self.examples.segments(other))
            if not any(
                np.array_equal(*both) for both in ((prompt, other_prompt), (own[0], response), (own[1], response))
            ):
                return response[: self.max_tokens - len(prompt)]
        raise InputError(
            "loss KTO estimates a KL divergence from responses to other prompts, and these pairs share one: take "
            "pairs of more prompts, or another loss"
        )

    def __getitem__(self, key: StepBatch) -> dict[str, Any]:
        """One row [1, T] and its pairs.

        Returns:
            `tokens`, `labels`, `document_ids`, `branch_ids` [1, T]; `response_ids` [1, T], which response of the batch
            a label belongs to, -1 for none; `ends` [A], where in the row each response's last token is; `lengths` [A],
            labels of each; `margins`, `example` [P], the example's number or -1 for a pair that only fills the batch;
            `probabilities` [P], that chosen is better, where any label of the data is in doubt; `reference` [A] if it
            is known; `sample` [P]; `source`.
        """
        chosen = [-1 if s == PADDING else s if self.order is None else self.order[s] for s in key.samples]
        documents = [
            branched_document(self.examples.segments(max(number, 0))[0][0], self.responses(max(number, 0)))
            for number in chosen
        ]
        total = sum(len(document["tokens"]) for document in documents)
        row = join_documents(documents, -(-total // ROUND_TO) * ROUND_TO, self.pad)
        ends = response_ends(row)
        del row["is_end"]
        batch = stack([row]) | {
            "ends": torch.from_numpy(ends),
            "lengths": torch.from_numpy(np.bincount(row["response_ids"][row["response_ids"] >= 0])),
            "margins": torch.from_numpy(self.examples.margins[np.maximum(chosen, 0)]),
            "example": torch.tensor(chosen),
            "sample": torch.tensor(key.samples),
            "source": "preferences",
        }
        if self.is_soft:
            batch["probabilities"] = torch.from_numpy(self.examples.probabilities[np.maximum(chosen, 0)])
        if self.reference is not None:
            batch["reference"] = torch.from_numpy(self.reference[np.maximum(chosen, 0)].reshape(-1))
        return batch


class PreferenceData(ConversationDataModule):
    """Preference pairs: a chosen and a rejected response to one prompt.

    Args:
        folder: folder of prepared pairs; reused when the inputs and settings are the same.
        rows: source of pairs: `prompt`, `chosen`, `rejected`, or two transcripts in HH's format;
            `preference_probability` makes a soft label.
        max_tokens: tokens of a prompt with the longer of its responses. A longer prompt loses its beginning, as much as
            is needed; responses lose their end only where less than a quarter of this would be left for the prompt.
        validation_pairs: pairs evaluated at most, chosen by a hash; null for all.
        shared: arguments of `ConversationDataModule`.

    Raises:
        InputError: for a size that cannot work, or no tokenizer.
    """

    name = "preferences"

    def __init__(
        self, folder: str, rows: Rows, max_tokens: int = 512, validation_pairs: int | None = None, **shared: Any
    ) -> None:
        super().__init__(folder, rows, **shared)
        if max_tokens < 8 or (validation_pairs is not None and validation_pairs < 1):
            raise InputError(
                f"max_tokens={max_tokens}, validation_pairs={validation_pairs}: need at least 8 tokens and 1 pair"
            )
        self.max_tokens, self.validation_pairs = max_tokens, validation_pairs

    def settings(self) -> dict[str, Any]:
        """Tokens of the longest pair."""
        return {"max_tokens": self.max_tokens}

    def convert(self, row: Row) -> Example:
        """The pair's prompt and responses, shortened where they are too long."""
        pair = preference(row)
        sides = [self.template.encode([*unlearned(pair.prompt), response]) for response in pair.sides()]
        segments, cut = shorten(sides[0], sides[1], self.max_tokens)
        if not segments[0]:
            raise Unusable("empty_prompt")
        if segments[1] == segments[2]:
            raise Unusable("responses_truncated_to_equal" if cut else "equal_responses")
        trained = [[False] * len(segments[0]), *([True] * len(response) for response in segments[1:])]
        return Example(segments, trained, group_of(row, pair.prompt), pair.margin, cut, pair.probability)

    def setup(self, stage: str) -> None:
        """Open the pairs."""
        super().setup(stage)
        pad = self.tokenizer.pad
        self.train_pairs = PairBatches(self.examples["train"], pad, order_seed=self.seed, max_tokens=self.max_tokens)
        self.validation_dataset = PairBatches(self.examples["validation"], pad, max_tokens=self.max_tokens)

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """An endless loader that begins at the first sample not yet consumed."""
        return self.batch_loader(self.train_pairs, self.training_keys())

    def val_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Each validation pair once."""
        keys = self.evaluation_sample(len(self.validation_dataset), self.validation_pairs)
        return self.batch_loader(self.validation_dataset, keys)

    def test_dataloader(self) -> DataLoader[dict[str, Any]]:
        """The validation pairs."""
        return self.val_dataloader()

    def predict_dataloader(self) -> DataLoader[dict[str, Any]]:
        """The validation pairs."""
        return self.val_dataloader()

    def every_pair(self, split: str) -> DataLoader[dict[str, Any]]:
        """All pairs of a split by example number, this rank's share of them."""
        pairs = PairBatches(self.examples[split], self.tokenizer.pad, max_tokens=self.max_tokens)
        pairs.unrelated = self.validation_dataset.unrelated
        return self.batch_loader(pairs, self.evaluation_keys(len(pairs)))

    @property
    def has_margins(self) -> bool:
        """True if any pair says by how much one response is better."""
        return any(examples.margins.any() for examples in self.examples.values())

    def use_unrelated_responses(self) -> None:
        """Lay out a third, unrelated response with each pair."""
        self.train_pairs.unrelated = self.validation_dataset.unrelated = True

    # Log-probabilities of a reference, which `alignment.preferences.precomputed_reference` computes and stores

    @property
    def pairs_key(self) -> str:
        """Identity of the pairs and of how many responses each is laid out with."""
        return f"{self.run_stages().name}{'-with-unrelated' * self.validation_dataset.unrelated}"

    def attach_reference(self, log_probabilities: Mapping[str, np.ndarray]) -> None:
        """Give batches the reference's log-probabilities, float32 [examples, responses] by split."""
        self.train_pairs.reference = log_probabilities["train"]
        self.validation_dataset.reference = log_probabilities["validation"]


def shorten(chosen: Encoded, rejected: Encoded, max_tokens: int) -> tuple[list[list[int]], tuple[str, ...]]:
    """Prompt, chosen and rejected of at most `max_tokens` tokens together with the longer response, and what was cut.

    The response and its end are what is learned: the prompt gives way first, from its beginning, and keeps its first
    token. Only where the prompt would have less than a quarter left do responses lose their end.

    Raises:
        Unusable: when the two prompts differ, which a template that looks at the response can bring about.
    """
    (prompt, first), (other, second) = chosen.prompt_and_response(), rejected.prompt_and_response()
    if prompt != other:
        raise Unusable("different_prompts")
    room = max_tokens - max(len(first), len(second))
    left = max(room, min(len(prompt), max_tokens // 4))
    cut = [name for name, is_cut in (("prompt", len(prompt) > left), ("response", left > room)) if is_cut]
    if len(prompt) > left:
        prompt = [prompt[0], *prompt[len(prompt) - left + 1 :]]
    return [prompt, first[: max_tokens - left], second[: max_tokens - left]], tuple(cut)
