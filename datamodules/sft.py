"""SFT data module: conversations packed into rows, for supervised fine-tuning.

Rows are packed once, over the whole data set, and shuffled as rows each epoch, so examples that share a row always do.
In return a row's number determines its content, and every step knows the number of trained tokens over all ranks.
"""

from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from common import packed_rows
from common.errors import InputError
from datamodules.conversation_data import ConversationDataModule
from datamodules.conversations.example_store import Example, Examples
from datamodules.conversations.messages import Unusable
from datamodules.conversations.packing import lay_out_conversation, pack, stack
from datamodules.conversations.row_formats import group_of, instruction
from datamodules.conversations.rows import Row, Rows
from datamodules.mixing.samplers import EpochOrder, StepBatch
from datamodules.mixing.windows import PADDING, ignore_labels


class PackedConversations(Dataset[dict[str, Any]]):
    """Batches of rows of conversations.

    Args:
        examples: the conversations.
        length: tokens in a row.
        pad: fills rows.
        token_bytes: bytes of text of each token id.
        order_seed: of the order in every epoch; by default sample number i is row i.
    """

    def __init__(
        self, examples: Examples, length: int, pad: int, token_bytes: np.ndarray, order_seed: int | None = None
    ) -> None:
        self.examples, self.length, self.pad, self.token_bytes = examples, length, pad, token_bytes
        # A conversation's last token is a label only.
        self.rows = pack((examples.lengths[:, 0] - 1).tolist(), length)
        trained = examples.trained_tokens
        self.labels = np.array([trained[row].sum() for row in self.rows])
        self.order = None if order_seed is None else EpochOrder(len(self.rows), order_seed)

    def __len__(self) -> int:
        return len(self.rows)

    def row_of(self, sample: int) -> int:
        """The row behind a sample's number."""
        return sample if self.order is None else self.order[sample]

    def row(self, number: int) -> packed_rows.Row:
        """Arrays `tokens`, `labels`, `document_ids`, `label_bytes` [length]."""
        conversations = [lay_out_conversation(*self.examples.segments(example)[0]) for example in self.rows[number]]
        row = packed_rows.join_documents(conversations, self.length, self.pad)
        return row | {"label_bytes": np.where(row["labels"] < 0, 0, self.token_bytes[row["labels"]])}

    def __getitem__(self, key: StepBatch) -> dict[str, Any]:
        rows = [self.row(self.row_of(max(sample, 0))) for sample in key.samples]
        rows = [ignore_labels(row) if s == PADDING else row for s, row in zip(key.samples, rows, strict=True)]
        batch = stack(rows) | {"sample": torch.tensor(key.samples), "source": "instructions", "few_labels": True}
        if len(key.step):
            # This batch's share of its step: the mean over batches and ranks is then the mean over labels.
            total = sum(int(self.labels[self.row_of(sample)]) for sample in key.step)
            batch["label_count"] = torch.tensor(total * len(key.samples) / len(key.step))
        return batch


class SFTData(ConversationDataModule):
    """Conversations for supervised fine-tuning: the assistant's turns are trained on.

    Args:
        folder: folder of prepared examples; reused when the inputs and settings are the same.
        rows: source of conversations: `messages`, or `prompt` and `response`.
        sequence_length: tokens in a row; a longer conversation is cut at its end.
        validation_fraction: share of groups of conversations in the validation split.
        validation_rows: packed rows evaluated at most, chosen by a hash; null for all.
        shared: arguments of `ConversationDataModule`.

    Raises:
        InputError: for a size that cannot work, or no tokenizer.
    """

    name = "instructions"

    def __init__(
        self,
        folder: str,
        rows: Rows,
        sequence_length: int = 512,
        validation_fraction: float = 0.02,
        validation_rows: int | None = None,
        **shared: Any,
    ) -> None:
        super().__init__(folder, rows, validation_fraction=validation_fraction, **shared)
        if sequence_length < 2 or (validation_rows is not None and validation_rows < 1):
            raise InputError(
                f"sequence_length={sequence_length}, validation_rows={validation_rows}: need at least 2 tokens, 1 row"
            )
        self.sequence_length, self.validation_rows = sequence_length, validation_rows

    def settings(self) -> dict[str, Any]:
        """Tokens of the longest conversation."""
        return {"sequence_length": self.sequence_length}

    def convert(self, row: Row) -> Example:
        """The conversation, cut at its end where it is too long."""
        messages = instruction(row)
        encoded = self.template.encode(messages)
        most = self.sequence_length + 1
        ids, trained = encoded.ids[:most], encoded.trained[:most]
        if not any(trained):
            raise Unusable("response_truncated_away")
        cut = ("conversation",) if len(encoded.ids) > most else ()
        return Example([ids], [trained], group_of(row, messages), cut=cut)

    def setup(self, stage: str) -> None:
        """Open the examples and pack them."""
        super().setup(stage)
        further = (self.sequence_length, self.tokenizer.pad, self.tokenizer.token_bytes())
        self.train_rows = PackedConversations(self.examples["train"], *further, order_seed=self.seed)
        self.validation_dataset = PackedConversations(self.examples["validation"], *further)

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """An endless loader that begins at the first sample not yet consumed."""
        return self.batch_loader(self.train_rows, self.training_keys())

    def val_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Each validation row once."""
        keys = self.evaluation_sample(len(self.validation_dataset), self.validation_rows)
        return self.batch_loader(self.validation_dataset, keys)

    def test_dataloader(self) -> DataLoader[dict[str, Any]]:
        """The validation rows."""
        return self.val_dataloader()

    def predict_dataloader(self) -> DataLoader[dict[str, Any]]:
        """The validation rows."""
        return self.val_dataloader()
