"""Prompt data module: prompts with their rows, for reinforcement learning.

A batch is lists of token ids, not a padded tensor: the rollout engine decides what is generated together and in which
layout. Rows come along whole, because the reward alone knows which of their keys it needs.
"""

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch.utils.data import DataLoader, Dataset

from common.constants import SPLITS
from common.errors import InputError
from datamodules.conversation_data import ConversationDataModule
from datamodules.conversations.example_store import Example, Examples
from datamodules.conversations.messages import Unusable
from datamodules.conversations.row_formats import group_of, question
from datamodules.conversations.rows import Row, Rows
from datamodules.mixing.samplers import EpochOrder, StepBatch


class PromptBatches(Dataset[dict[str, Any]]):
    """Batches of prompts.

    Args:
        examples: with their rows.
        order_seed: of the order in every epoch; by default sample number i is example i.
    """

    def __init__(self, examples: Examples, order_seed: int | None = None) -> None:
        self.examples = examples
        self.order = None if order_seed is None else EpochOrder(len(examples), order_seed)

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, key: StepBatch) -> dict[str, Any]:
        """`prompts`, token ids that end where a response begins; `rows`, the rows they come from; `sample`, int64 [B],
        numbers that no other prompt of the run has, -1 for a prompt that only fills the batch; `source`.
        """
        numbers = [max(sample, 0) for sample in key.samples]
        numbers = numbers if self.order is None else [self.order[number] for number in numbers]
        return {
            "prompts": [self.examples.segments(number)[0][0].tolist() for number in numbers],
            "rows": [self.examples.row(number) for number in numbers],
            "sample": torch.tensor(key.samples),
            "source": "prompts",
        }


class PromptData(ConversationDataModule):
    """Prompts for reinforcement learning, each with the row that a reward needs.

    The position in the order counts batches, not optimizer steps: the learner decides how many steps it takes on one
    batch.

    Args:
        folder: folder of prepared prompts; reused when the inputs and settings are the same.
        rows: source of prompts: `prompt` and the keys that a reward needs; rows of `datamodules.PreferenceData` and
            `datamodules.SFTData` do too.
        max_prompt_tokens: tokens of a prompt; a longer one is dropped, since half a question is another question.
        batch_size: prompts in a batch of one rank.
        validation_prompts: prompts evaluated at most, chosen by a hash; null for all.
        shared: arguments of `ConversationDataModule`.

    Raises:
        InputError: for a size that cannot work, or no tokenizer.
    """

    name = "prompts"

    def __init__(
        self,
        folder: str,
        rows: Rows,
        max_prompt_tokens: int = 256,
        batch_size: int = 16,
        validation_prompts: int | None = None,
        **shared: Any,
    ) -> None:
        super().__init__(folder, rows, batch_size=batch_size, **shared)
        if max_prompt_tokens < 1 or (validation_prompts is not None and validation_prompts < 1):
            raise InputError(
                f"max_prompt_tokens={max_prompt_tokens}, validation_prompts={validation_prompts}: need at least 1 each"
            )
        self.max_prompt_tokens, self.validation_prompts = max_prompt_tokens, validation_prompts
        self.counted_batches = 0

    def settings(self) -> dict[str, Any]:
        """Tokens of the longest prompt."""
        return {"max_prompt_tokens": self.max_prompt_tokens}

    def convert(self, row: Row) -> Example:
        """The prompt up to where its response begins, with its row."""
        messages = question(row)
        ids = self.template.encode_prompt(messages)
        if not ids:
            raise Unusable("empty_prompt")
        if len(ids) > self.max_prompt_tokens:
            raise Unusable("prompt_too_long")
        return Example([ids], [[False] * len(ids)], group_of(row, messages), row=row)

    def setup(self, stage: str) -> None:
        """Open the prompts."""
        super().setup(stage)
        self.train_prompts = PromptBatches(self.examples["train"], order_seed=self.seed)
        self.validation_dataset = PromptBatches(self.examples["validation"])

    def every_row(self) -> Iterator[Row]:
        """Rows of all prompts, so that a reward can refuse one before training."""
        for split in SPLITS:
            examples = self.examples[split]
            yield from map(examples.row, range(len(examples)))

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """An endless loader that begins at the first prompt not yet learned from."""
        return self.batch_loader(self.train_prompts, self.training_keys())

    def val_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Each validation prompt once."""
        keys = self.evaluation_sample(len(self.validation_dataset), self.validation_prompts)
        return self.batch_loader(self.validation_dataset, keys)

    def test_dataloader(self) -> DataLoader[dict[str, Any]]:
        """The validation prompts."""
        return self.val_dataloader()

    def predict_dataloader(self) -> DataLoader[dict[str, Any]]:
        """The validation prompts."""
        return self.val_dataloader()

    # The position

    def position(self) -> int:
        """First sample number not yet in a batch that was learned from."""
        if self.trainer is None:
            return self.consumed_samples
        batches = self._learned_batches() - self.counted_batches
        return self.consumed_samples + batches * self.batch_size * self.ranks()[1]

    def _learned_batches(self) -> int:
        # Counted when a batch's training step is over, before anything is saved.
        total = cast(Any, self.trainer).fit_loop.epoch_loop.batch_progress.total
        return int(total.processed)

    def state_dict(self) -> dict[str, Any]:
        """The position, and batches learned from so far; earlier ones may have been of another size."""
        # A batch is learned from in any number of optimizer steps: what those consumed is no property of theirs.
        return super().state_dict() | {"counted_batches": self._learned_batches(), "segments": []}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where the checkpoint stopped."""
        super().load_state_dict(state_dict)
        self.counted_batches = state_dict["counted_batches"]
