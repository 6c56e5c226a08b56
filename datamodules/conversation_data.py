"""Base of the SFT, preference and prompt data modules: rows -> chat template -> tokenized examples on disk."""

from abc import abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import xxhash

from common.artifacts import build_artifact
from common.constants import SPLITS
from common.content_checksums import checksum_cache
from common.errors import InputError
from common.fingerprint import class_fingerprint, fingerprint
from datamodules.conversations.chat_template import ChatTemplate, TemplateRefusalError
from datamodules.conversations.example_store import Example, Examples, read_summary, write_examples
from datamodules.conversations.messages import Unusable, unread_keys
from datamodules.conversations.rows import Row, Rows
from datamodules.mixing.samplers import EpochOrder, StepBatch
from datamodules.resumable import DATA_STATE, ResumableDataModule
from datamodules.tokenization.base import Tokenizer
from datamodules.tokenization.files import find_tokenizer, load_tokenizer, own_template, restore, unused_code

BATCHING = ("datamodules.mixing", "datamodules.resumable", "datamodules.conversations.packing")
"""Modules that decide batches and no example on disk."""


class ConversationDataModule(ResumableDataModule):
    """Base data module of examples made from rows with a trained tokenizer.

    Args:
        folder: folder of prepared examples; reused when the inputs and settings are the same.
        rows: source of the rows.
        tokenizer: folder of a run, or tokenizer file; by default that of the model's `init_from`.
        chat_template: `chatml`, `plain`, `transcript` or a Jinja file; null takes the tokenizer's own, else ChatML.
        batch_size: samples in a micro-batch of one rank.
        validation_fraction: share of groups in the validation split. A group is a row's `group`, else all that comes
            before the first response.
        seed: seed of the sample order.
        split_seed: seed of the validation split; members of an ensemble share it, and so do a reward model and the
            prompts it scores, so that neither is evaluated on what the other was trained on.
        workers: processes that read ahead; 0 reads in the training process.

    Raises:
        InputError: for a size that cannot work, or no tokenizer.
    """

    folder: Path
    """Folder of prepared data."""
    name: str
    """Kind of the examples, in the names of folders and metrics."""

    def __init__(
        self,
        folder: str,
        rows: Rows,
        tokenizer: str | None = None,
        chat_template: str | None = None,
        batch_size: int = 8,
        validation_fraction: float = 0.05,
        seed: int = 0,
        split_seed: int = 0,
        workers: int = 0,
    ) -> None:
        super().__init__(batch_size, workers)
        if not 0 < validation_fraction < 1:
            raise InputError(f"validation_fraction={validation_fraction}: must lie between 0 and 1")
        for name, value in (("seed", seed), ("split_seed", split_seed)):
            if not 0 <= value < 2**63:
                raise InputError(f"{name}={value}: must lie between 0 and 2^63")
        if tokenizer is None:
            raise InputError("no tokenizer: give model.init_args.init_from, or name one in data.init_args.tokenizer")
        path = find_tokenizer(Path(tokenizer))
        if chat_template is None:
            chat_template = own_template(path) or "chatml"
        self.folder, self.rows = Path(folder), rows
        self.tokenizer = load_tokenizer(path)
        self.template = ChatTemplate(chat_template, self.tokenizer)
        self.vocabulary_size = len(self.tokenizer)
        self.validation_fraction, self.seed, self.split_seed = validation_fraction, seed, split_seed
        self.source_names = [self.name]
        self.prepared: Path | None = None

    @abstractmethod
    def convert(self, row: Row) -> Example:
        """The example of a row.

        Raises:
            Unusable: with the reason, for a row that makes no example.
        """

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Settings that `convert` depends on, beside the tokenizer and the template."""

    def _convert(self, row: Row) -> Example:
        try:
            return replace(self.convert(row), unread=unread_keys(row))
        except TemplateRefusalError as refusal:
            raise Unusable(f"refused_by_template: {str(refusal)[:80]}") from refusal

    def prepare_data(self) -> None:
        """Make the examples if they are not on disk (Lightning calls this on one process per node)."""
        self.run_stages()

    def run_stages(self) -> Path:
        """Folder of the prepared examples, made if it is not there."""
        if self.prepared is None:
            with checksum_cache(self.folder):
                rows = self.rows.identity()
            key = fingerprint(
                rows,
                xxhash.xxh3_64_hexdigest(self.tokenizer.model),
                self.template.source,
                self.settings(),
                self.validation_fraction,
                self.split_seed,
                class_fingerprint(type(self), type(self.rows), without=(*BATCHING, *unused_code(self.tokenizer))),
            )

            def make(into: Path) -> None:
                write_examples(
                    into, self.rows.rows(), self._convert, self.validation_fraction, self.split_seed,
                    self.vocabulary_size,
                )  # fmt: skip

            self.prepared = build_artifact(self.folder, self.name, key, make)
        return self.prepared

    def setup(self, stage: str) -> None:
        """Open and verify the examples."""
        folder = self.run_stages()
        self.examples = {split: Examples(folder, split) for split in SPLITS}

    def evaluation_sample(self, items: int, limit: int | None) -> list[StepBatch]:
        """Batches over items of the validation split once, at most `limit` of them.

        Which ones is decided by a hash of their places, as neighboring rows are alike: of one file, of one
        length. Those of a lower limit are among those of a higher one.

        Args:
            items: number of items in the split.
            limit: items evaluated at most; None for all.
        """
        order = EpochOrder(items, seed=0)
        chosen = range(items) if limit is None or limit >= items else sorted(order[place] for place in range(limit))
        return [StepBatch(batch, range(0)) for batch in self.evaluation_batches([list(chosen)])]

    def summary(self) -> dict[str, Any]:
        """Counts of kept and dropped rows, as `write_examples` stores them."""
        return read_summary(self.run_stages())

    def order(self) -> dict[str, Any]:
        """The examples and the order's seed."""
        return {"examples": self.run_stages().name, "seed": self.seed}

    def state_dict(self) -> dict[str, Any]:
        """The position, and the tokenizer itself, without which the weights mean nothing."""
        return super().state_dict() | {
            "tokenizer": torch.frombuffer(bytearray(self.tokenizer.model), dtype=torch.uint8),
        }

    def tokenizer_of(self, checkpoint: dict[str, Any]) -> Tokenizer:
        """The tokenizer a checkpoint was trained with."""
        return restore(bytes(checkpoint[DATA_STATE]["tokenizer"].tolist()))
