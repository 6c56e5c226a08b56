"""Which tokens are in sample number i: a pure function, whatever the number of ranks, workers or restarts.

Shuffling a list and remembering where one was needs state that must be saved, sharded and trusted. Here the
number of a sample says its source and its window by arithmetic, so there is nothing to restore but one integer.
The price is that the mixture's weights are rounded to 1/4096.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import xxhash
from torch.utils.data import Dataset, Sampler

from datamodules.shards import Shard
from errors import InputError

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
        shards: shards of the source; no window spans two.
        length: inputs in a window.
        keep_partial: keep the short window at a shard's end, padded, so that every token is predicted once.
    """

    def __init__(self, shards: Sequence[Shard], length: int, keep_partial: bool = False) -> None:
        self.shards, self.length = list(shards), length
        # The first token of a window is never a label, hence the - 1.
        labels = [max(len(shard.tokens) - 1, 0) for shard in self.shards]
        counts = [-(-count // length) if keep_partial else count // length for count in labels]
        self._ends = np.cumsum(counts, dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def window(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Window number `index`.

        Returns:
            tokens int64 [n + 1] with n <= length; the ordinal of each token's document within the window, int64
            [n + 1]; the ids of those documents, uint64.
        """
        number = int(np.searchsorted(self._ends, index, side="right"))
        shard = self.shards[number]
        start = (index - (int(self._ends[number - 1]) if number else 0)) * self.length
        stop = min(start + self.length + 1, len(shard.tokens))
        first = int(np.searchsorted(shard.offsets, start, side="right")) - 1
        last = int(np.searchsorted(shard.offsets, stop, side="left"))
        cuts = np.clip(shard.offsets[first : last + 1], start, stop)
        documents = np.repeat(np.arange(last - first), np.diff(cuts))
        return shard.tokens[start:stop].astype(np.int64), documents, shard.ids[first:last]


class Mixture:
    """Source and window of each sample of an endless, weighted stream.

    Every source runs through its windows in a new pseudo-random order each epoch, sources interleave in the
    proportion of their weights within every block of 4,096 samples.

    Args:
        sizes: windows in each source.
        weights: share of samples from each source, any positive scale.
        seed: of all orders.

    Raises:
        InputError: for a weight that is not positive or rounds to nothing, or a source without a window.
    """

    def __init__(self, sizes: Mapping[str, int], weights: Mapping[str, float], seed: int) -> None:
        self.names, self.sizes, self.seed = list(sizes), dict(sizes), seed
        total = sum(weights[name] for name in self.names)
        for name in self.names:
            if not weights[name] > 0 or weights[name] / total < 1 / BLOCK:
                raise InputError(
                    f"sources.{name}.weight={weights[name]}: must be at least 1/{BLOCK} of the sum of weights, "
                    "or leave the source out"
                )
            if not sizes[name]:
                raise InputError(
                    f"source {name} holds no whole window of training tokens after cleaning: "
                    "lower sequence_length, add text or leave the source out"
                )
        exact = np.array([weights[name] for name in self.names]) / total * BLOCK
        self.slots = np.floor(exact).astype(np.int64)
        # Largest remainders get the slots that rounding down left over.
        order = np.argsort(self.slots - exact, kind="stable")
        self.slots[order[: BLOCK - self.slots.sum()]] += 1

    def locate(self, sample: int) -> tuple[str, int, int]:
        """Source, epoch of that source, and window of a sample."""
        block, slot = divmod(sample, BLOCK)
        source, before = self._block(block)
        chosen = int(source[slot])
        name = self.names[chosen]
        rank = block * int(self.slots[chosen]) + int(before[slot])
        epoch, position = divmod(rank, self.sizes[name])
        key = xxhash.xxh3_64_intdigest(f"{name}/{epoch}".encode(), seed=self.seed)
        return name, epoch, permute(position, self.sizes[name], key)

    def _block(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        """Source of each slot of a block, and how many slots before it in the block have the same source."""
        cached = getattr(self, "_cached_block", None)
        if cached is None or cached[0] != block:
            generator = np.random.Generator(np.random.Philox(key=[self.seed, block]))
            source = generator.permutation(np.repeat(np.arange(len(self.names)), self.slots))
            before = np.empty(BLOCK, dtype=np.int64)
            for index in range(len(self.names)):
                here = source == index
                before[here] = np.arange(here.sum())
            self._cached_block = cached = (block, source, before)
        return cached[1], cached[2]


class EvenlySpread:
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


class GlobalBatches(Sampler[list[int]]):
    """Endless batches of sample numbers for one of several data-parallel ranks.

    Sample numbers are dealt out to ranks in turn, so that the set of samples in a global batch does not depend on
    how many ranks share it.

    Args:
        start: gives the first sample number not yet consumed, asked whenever an iteration begins.
        batch_sizes: gives the samples in each of a rank's batches from there on, endlessly.
        rank, ranks: which share of how many.
    """

    def __init__(self, start: Callable[[], int], batch_sizes: Callable[[], Iterator[int]], rank: int, ranks: int):
        self.start, self.batch_sizes, self.rank, self.ranks = start, batch_sizes, rank, ranks

    def __iter__(self) -> Iterator[list[int]]:
        first = self.start()
        for batch_size in self.batch_sizes():
            mine = first + self.rank * batch_size
            yield list(range(mine, mine + batch_size))
            first += batch_size * self.ranks


class Batches(Dataset[dict[str, Any]]):
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
