"""Random tokens in random documents: synthetic data for comparing layouts and measuring speed.

Sample number i is a function of (seed, i), as with real data. Tokens follow a first-order chain that a model can
learn, so that gradients stay alive and losses fall.
"""

from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset

from common.errors import InputError
from datamodules.mixing.batch_size_warmup import BatchSizeWarmup
from datamodules.mixing.windows import PADDING, ignore_labels
from datamodules.resumable import ResumableDataModule


class RandomWindows(Dataset[dict[str, Any]]):
    """Windows of `length` tokens; every token is its predecessor plus one or, now and then, any token."""

    def __init__(self, vocabulary_size: int, length: int, seed: int, boundaries: float = 4) -> None:
        self.vocabulary_size, self.length, self.seed, self.boundaries = vocabulary_size, length, seed, boundaries

    def __getitem__(self, sample: int) -> dict[str, Any]:
        generator = np.random.Generator(np.random.Philox(key=[self.seed, max(sample, 0)]))
        jumps = generator.random(self.length + 1) < 0.2
        steps = np.where(jumps, generator.integers(self.vocabulary_size, size=self.length + 1), 1)
        tokens = steps.cumsum() % self.vocabulary_size
        window = {
            "tokens": tokens[:-1],
            "labels": tokens[1:],
            "document_ids": (generator.random(self.length) < self.boundaries / self.length).cumsum(),
            "label_bytes": np.ones(self.length, dtype=np.int64),
            "sample": sample,
            "source": "random",
        }
        return ignore_labels(window) if sample == PADDING else window


class RandomTokens(ResumableDataModule):
    """An endless stream of random windows, and a few others for validation.

    Args:
        vocabulary_size: number of token ids.
        sequence_length: tokens in a window.
        batch_size: windows in a micro-batch of one rank.
        validation_windows: windows evaluated.
        seed: of all tokens.
        workers: processes that read ahead.
        boundaries: ends of documents in a window, on average.
        batch_size_warmup: smaller batches at first; null for none.
    """

    def __init__(
        self,
        vocabulary_size: int = 256,
        sequence_length: int = 64,
        batch_size: int = 4,
        validation_windows: int = 8,
        seed: int = 0,
        workers: int = 0,
        boundaries: float = 4,
        batch_size_warmup: BatchSizeWarmup | None = None,
    ) -> None:
        super().__init__(batch_size, workers, batch_size_warmup)
        if min(vocabulary_size, sequence_length, batch_size, validation_windows) < 1 or boundaries < 0:
            raise InputError(
                f"vocabulary_size={vocabulary_size}, sequence_length={sequence_length}, batch_size={batch_size}, "
                f"validation_windows={validation_windows}, boundaries={boundaries}: all must be at least 1, the last 0"
            )
        self.vocabulary_size, self.sequence_length = vocabulary_size, sequence_length
        self.validation_windows, self.source_names, self.seed = validation_windows, ["random"], seed
        self.boundaries = boundaries
        self.train_windows = RandomWindows(vocabulary_size, sequence_length, 2 * seed, boundaries)
        self.validation_dataset = RandomWindows(vocabulary_size, sequence_length, 2 * seed + 1, boundaries)

    def order(self) -> dict[str, Any]:
        """Everything the windows are a function of."""
        names = ("vocabulary_size", "sequence_length", "seed", "boundaries")
        return {name: getattr(self, name) for name in names}

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """An endless loader that begins at the first sample not yet consumed."""
        return self.loader(self.train_windows, self.training_batches())

    def val_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Every validation window once."""
        return self.loader(self.validation_dataset, self.evaluation_batches([list(range(self.validation_windows))]))

    def test_dataloader(self) -> DataLoader[dict[str, Any]]:
        """The validation windows."""
        return self.val_dataloader()

    def predict_dataloader(self) -> DataLoader[dict[str, Any]]:
        """The validation windows."""
        return self.val_dataloader()
