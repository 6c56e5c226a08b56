"""Batch samplers: sample numbers of each data-parallel rank, batch by batch.

A sample number is its whole identity, so samplers hold no list and no state beside where they begin. Losses are divided
by what a whole optimizer step holds, which is why a batch can carry the samples of its step.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import xxhash
from torch.utils.data import Dataset, Sampler

from datamodules.mixing.mixture import permute
from datamodules.mixing.skipped_samples import SkippedSamples
from datamodules.mixing.windows import PADDING


class DistributedBatchSampler(Sampler[list[int]]):
    """Endless batches of sample numbers for one of several data-parallel ranks.

    Ranks take sample numbers in turn, so that the samples of a global batch do not depend on the number of ranks.

    Args:
        start: function of the first sample number not yet consumed, called when an iteration begins.
        batch_sizes: function of the sizes of a rank's batches from there on, endless.
        rank, ranks: data-parallel rank, and their number.
        skipped: samples that training skips; None for none.
    """

    def __init__(
        self,
        start: Callable[[], int],
        batch_sizes: Callable[[], Iterator[int]],
        rank: int,
        ranks: int,
        skipped: SkippedSamples | None = None,
    ) -> None:
        self.start, self.batch_sizes, self.rank, self.ranks = start, batch_sizes, rank, ranks
        self.skipped = skipped or SkippedSamples()

    def __iter__(self) -> Iterator[list[int]]:
        first = self.start()
        for batch_size in self.batch_sizes():
            yield self.skipped.take(self.skipped.after(first, self.rank * batch_size), batch_size)
            first = self.skipped.after(first, batch_size * self.ranks)


class BatchDataset(Dataset[dict[str, Any]]):
    """Dataset whose items are whole batches: the sampler yields a batch's sample numbers."""

    def __init__(self, windows: Dataset[dict[str, Any]]) -> None:
        self.windows = windows

    def __getitem__(self, samples: list[int]) -> dict[str, Any]:
        return collate([self.windows[sample] for sample in samples])


def collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Stack samples into int64 tensors; `source` becomes the one name they share, or "mixture"."""
    # A batch of nothing but padding has a source too, whose sums it leaves as they are.
    names = {sample["source"] for sample in samples if sample["sample"] != PADDING} or {samples[0]["source"]}
    keys = ("tokens", "labels", "document_ids", "label_bytes", "sample")
    batch: dict[str, Any] = {key: torch.from_numpy(np.stack([s[key] for s in samples])).long() for key in keys}
    batch["source"] = names.pop() if len(names) == 1 else "mixture"
    return batch


class EpochOrder:
    """Epoch order: sample number to item, all items once per epoch, in a new pseudo-random order each time.

    Args:
        items: number of items.
        seed: seed of all orders.
    """

    def __init__(self, items: int, seed: int) -> None:
        self.items, self.seed = items, seed

    def __getitem__(self, sample: int) -> int:
        epoch, position = divmod(sample, self.items)
        return permute(position, self.items, xxhash.xxh3_64_intdigest(f"epoch/{epoch}".encode(), seed=self.seed))


class StepBatch(NamedTuple):
    """Samples of a micro-batch, and of its whole optimizer step over all ranks; the latter empty outside training."""

    samples: list[int]
    step: Sequence[int]


class StepBatchSampler(Sampler[StepBatch]):
    """Sampler of micro-batches with the samples of their optimizer step, by which losses are normalized.

    Args:
        batches: batches of this rank, beginning with a step.
        samples_per_step: samples of a step over all ranks and accumulated batches.
    """

    def __init__(self, batches: DistributedBatchSampler, samples_per_step: int) -> None:
        self.batches, self.samples_per_step = batches, samples_per_step

    def __iter__(self) -> Iterator[StepBatch]:
        first, taken, skipped = self.batches.start(), 0, self.batches.skipped
        for samples in self.batches:
            if taken == self.samples_per_step:
                first, taken = skipped.after(first, taken), 0
            if taken == 0:
                step = skipped.take(first, self.samples_per_step)
            taken += len(samples) * self.batches.ranks
            yield StepBatch(samples, step)
