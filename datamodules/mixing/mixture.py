"""Which tokens are in sample number i: a pure function, whatever the number of ranks, workers or restarts.

Shuffling a list and remembering where one was needs state that must be saved, sharded and trusted. Here the
number of a sample says its source and its window by arithmetic, so there is nothing to restore but one integer.
The price is that the mixture's weights are rounded to 1/4096.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import xxhash
from torch.utils.data import Dataset, Sampler

from common.errors import InputError
from datamodules.mixing.skipped_samples import SkippedSamples
from datamodules.shards.format import Shard

BLOCK = 4096
"""Samples in a block: every block holds the sources in the exact proportion of their weights."""

IGNORE = -100
"""Label of padding, PyTorch's own default."""

PADDING = -1
"""Number of a sample that holds no label: it keeps ranks in step where there is nothing left to evaluate."""


def permute(index: int, length: int, seed: int) -> int:
    """Position of `index` in a pseudo-random permutation of range(length), without holding the permutation.

    A four-round Feistel network over the next even power of two, walked until it lands inside (Black & Rogaway 2002,
    "cycle walking"; fewer than four steps on average).
    """
    half_bits = max((length - 1).bit_length() + 1, 2) // 2
    mask = (1 << half_bits) - 1
    while True:
        left, right = index >> half_bits, index & mask
        for round_number in range(4):
            mixed = xxhash.xxh3_64_intdigest(right.to_bytes(8, "little"), seed=(seed + round_number) & (2**64 - 1))
            left, right = right, left ^ (mixed & mask)
        index = left << half_bits | right
        if index < length:
            return index


class WindowedSource:
    """The documents of one source and split, cut into windows of `length` + 1 tokens that overlap by one.

    The one token shared with the next window is the last label here and the first input there.

    Args:
        shards: shards of the source; windows run on from one to the next.
        length: inputs in a window.
        keep_partial: keep the short window at a shard's end, padded, so that every token is predicted once.
    """

    def __init__(self, shards: Sequence[Shard], length: int, keep_partial: bool = False) -> None:
        self.shards, self.length = list(shards), length
        self._ends = np.cumsum([shard.record.tokens for shard in self.shards], dtype=np.int64)
        self.tokens = int(self._ends[-1]) if self.shards else 0
        # The first token of a window is never a label, hence the - 1.
        labels = max(self.tokens - 1, 0)
        self._count = -(-labels // length) if keep_partial else labels // length

    def __len__(self) -> int:
        return self._count

    def window(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Window number `index`.

        Returns:
            tokens int64 [n + 1] with n <= length; the ordinal of each token's document within the window, int64
            [n + 1]; the ids of those documents, uint64.
        """
        start = index * self.length
        stop = min(start + self.length + 1, self.tokens)
        tokens: list[np.ndarray] = []
        documents: list[np.ndarray] = []
        ids: list[np.ndarray] = []
        counted = 0
        for number in range(int(np.searchsorted(self._ends, start, side="right")), len(self.shards)):
            shard = self.shards[number]
            before = int(self._ends[number]) - shard.record.tokens
            if before >= stop:
                break
            begin, end = max(start - before, 0), min(stop - before, shard.record.tokens)
            first = int(np.searchsorted(shard.offsets, begin, side="right")) - 1
            last = int(np.searchsorted(shard.offsets, end, side="left"))
            cuts = np.clip(shard.offsets[first : last + 1], begin, end)
            tokens.append(shard.tokens[begin:end].astype(np.int64))
            documents.append(counted + np.repeat(np.arange(last - first), np.diff(cuts)))
            ids.append(shard.ids[first:last])
            counted += last - first
        return np.concatenate(tokens), np.concatenate(documents), np.concatenate(ids)


@dataclass(frozen=True)
class Segment:
    """A stretch of samples mixed with the same weights.

    Attributes:
        first: its first sample number.
        slots: samples of each source in a block, int64 [sources], 4,096 in all.
        before: windows of each source consumed by earlier samples, int64 [sources].
        seed: of the order within blocks.
    """

    first: int
    slots: np.ndarray
    before: np.ndarray
    seed: int


class Mixture:
    """Source and window of each sample of an endless, weighted stream.

    Every source runs through its windows in a new pseudo-random order each epoch, sources interleave in the
    proportion of their weights within every block of 4,096 samples. Weights may change at a sample: a new block begins
    there, and every source continues with the window that comes next.

    Args:
        sizes: windows in each source.
        weights: share of samples from each source, any positive scale.
        seed: of all orders.

    Raises:
        InputError: for a weight that is not positive or rounds to nothing, or a source without a window.
    """

    def __init__(self, sizes: Mapping[str, int], weights: Mapping[str, float], seed: int) -> None:
        self.names, self.sizes, self.seed = list(sizes), dict(sizes), seed
        for name in self.names:
            if not sizes[name]:
                raise InputError(
                    f"source {name} holds no whole window of training tokens after cleaning: "
                    "lower sequence_length, add text or leave the source out"
                )
        self._segments: list[Segment] = []
        self._blocks: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}
        self.change(0, slots_of(weights, self.names))

    def change(self, first: int, slots: np.ndarray) -> None:
        """Mix otherwise from sample number `first` on; what was said of later samples is forgotten.

        Args:
            first: where the first block of the new mixture begins.
            slots: samples of each source in a block, int64 [sources], from `slots_of`; 0 leaves a source out.
        """
        self._segments = [segment for segment in self._segments if segment.first < first]
        before = self._consumed(first) if self._segments else np.zeros(len(self.names), dtype=np.int64)
        seed = xxhash.xxh3_64_intdigest(f"from {first}".encode(), seed=self.seed) if first else self.seed
        self._segments.append(Segment(first, slots, before, seed))
        self._blocks.clear()

    def locate(self, sample: int) -> tuple[str, int, int]:
        """Source, epoch of that source, and window of a sample."""
        segment, block, slot = self._place(sample)
        source, before = self._block(segment, block)
        chosen = int(source[slot])
        name = self.names[chosen]
        rank = int(segment.before[chosen]) + block * int(segment.slots[chosen]) + int(before[slot])
        epoch, position = divmod(rank, self.sizes[name])
        key = xxhash.xxh3_64_intdigest(f"{name}/{epoch}".encode(), seed=self.seed)
        return name, epoch, permute(position, self.sizes[name], key)

    def consumed(self, sample: int) -> dict[str, int]:
        """Windows of each source in samples 0 .. `sample` - 1, repetitions included."""
        return dict(zip(self.names, self._consumed(sample).tolist(), strict=True))

    def _consumed(self, sample: int) -> np.ndarray:
        segment, block, slot = self._place(sample)
        partly = np.bincount(self._block(segment, block)[0][:slot], minlength=len(self.names))
        return segment.before + block * segment.slots + partly

    def _place(self, sample: int) -> tuple[Segment, int, int]:
        """The segment of a sample, its block there and its slot in that."""
        segment = self._segments[bisect_right(self._segments, sample, key=lambda segment: segment.first) - 1]
        return segment, *divmod(sample - segment.first, BLOCK)

    def _block(self, segment: Segment, block: int) -> tuple[np.ndarray, np.ndarray]:
        """Source of each slot of a block, and how many slots before it in the block have the same source."""
        key = (segment.first, block)
        if key not in self._blocks:
            generator = np.random.Generator(np.random.Philox(key=[segment.seed, block]))
            source = generator.permutation(np.repeat(np.arange(len(self.names)), segment.slots))
            before = np.empty(BLOCK, dtype=np.int64)
            for index in range(len(self.names)):
                here = source == index
                before[here] = np.arange(here.sum())
            self._blocks = {key: (source, before)}
        return self._blocks[key]


def slots_of(weights: Mapping[str, float], names: Sequence[str]) -> np.ndarray:
    """Samples of each source in a block, int64, 4,096 in all: largest remainders get what rounding down left over.

    Raises:
        InputError: for a weight that is not positive or rounds to nothing.
    """
    total = sum(weights[name] for name in names)
    for name in names:
        if not weights[name] > 0 or weights[name] / total < 1 / BLOCK:
            raise InputError(
                f"sources.{name}.weight={weights[name]}: must be at least 1/{BLOCK} of the sum of weights, "
                "or leave the source out"
            )
    exact = np.array([weights[name] for name in names]) / total * BLOCK
    slots = np.floor(exact).astype(np.int64)
    order = np.argsort(slots - exact, kind="stable")
    slots[order[: BLOCK - slots.sum()]] += 1
    return slots


class EvaluationOrder:
    """A fixed, finite order for evaluation: up to `most` windows of each source, spread evenly over it.

    Args:
        sizes: windows in each source.
        most: windows taken from each, or None for all.
    """

    def __init__(self, sizes: Mapping[str, int], most: int | None) -> None:
        self._taken = [
            [(name, int(window)) for window in np.linspace(0, size - 1, min(size, most or size)).round()]
            for name, size in sizes.items()
        ]
        self._order = [pair for taken in self._taken for pair in taken]

    def samples_by_source(self) -> list[list[int]]:
        """Sample numbers of each source."""
        ends = np.cumsum([0, *(len(taken) for taken in self._taken)]).tolist()
        return [list(range(start, end)) for start, end in pairwise(ends)]

    def locate(self, sample: int) -> tuple[str, int, int]:
        """Source, epoch (always 0) and window of a sample."""
        name, window = self._order[sample]
        return name, 0, window


Locate = Callable[[int], tuple[str, int, int]]


class PackedWindows(Dataset[dict[str, Any]]):
    """Samples ready to be batched: `self[i]` is a function of i alone.

    Args:
        sources: windows by source name.
        locate: sample number to source, epoch and window.
        token_bytes: bytes of text each token id stands for.
        pad: id that fills short windows; its label is ignored.
    """

    def __init__(
        self, sources: Mapping[str, WindowedSource], locate: Locate, token_bytes: np.ndarray, pad: int
    ) -> None:
        self.sources, self.locate, self.token_bytes, self.pad = dict(sources), locate, token_bytes, pad

    def __getitem__(self, sample: int) -> dict[str, Any]:
        """int64 arrays `tokens`, `labels`, `document_ids`, `label_bytes` [length], and `sample`, `source`."""
        if sample == PADDING:
            return ignore_labels(self[0]) | {"sample": PADDING}
        name, _, window = self.locate(sample)
        source = self.sources[name]
        ids, documents, _ = source.window(window)
        short = source.length - (len(ids) - 1)
        labels = np.pad(ids[1:], (0, short), constant_values=IGNORE)
        return {
            "tokens": np.pad(ids[:-1], (0, short), constant_values=self.pad),
            "labels": labels,
            # Padding is a document of its own, so that no real token attends to it.
            "document_ids": np.pad(documents[:-1], (0, short), constant_values=-1),
            "label_bytes": np.where(labels == IGNORE, 0, self.token_bytes[labels]),
            "sample": sample,
            "source": name,
        }


def ignore_labels(window: dict[str, Any]) -> dict[str, Any]:
    """The same window with nothing to predict in it."""
    nothing = {"labels": np.full_like(window["labels"], IGNORE), "label_bytes": np.zeros_like(window["label_bytes"])}
    return window | nothing


class DistributedBatchSampler(Sampler[list[int]]):
    """Endless batches of sample numbers for one of several data-parallel ranks.

    Sample numbers are dealt out to ranks in turn, so that the set of samples in a global batch does not depend on
    how many ranks share it.

    Args:
        start: gives the first sample number not yet consumed, asked whenever an iteration begins.
        batch_sizes: gives the samples in each of a rank's batches from there on, endlessly.
        rank, ranks: which share of how many.
        skipped: samples that are left out; null for none.
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
    """Batches by their list of sample numbers: what a DataLoader's sampler yields is the batch's whole identity."""

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
