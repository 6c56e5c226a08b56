"""Training windows: the token stream of a source cut into samples of one length, documents packed end to end.

A window may begin and end inside a document, so no token is padding and no document is too long. The price is that a
document's beginning is out of sight in the windows after its first; attention never crosses a document's border.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from common.constants import IGNORE
from datamodules.shards.format import Shard

PADDING = -1
"""Number of a sample that holds no label: it keeps ranks in step where there is nothing left to evaluate."""


class WindowedSource:
    """Windows of one source and split: `length` + 1 tokens, overlapping by one.

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


Locate = Callable[[int], tuple[str, int, int]]


class PackedWindows(Dataset[dict[str, Any]]):
    """Dataset of packed training windows; item i is a function of i alone.

    Args:
        sources: windows by source name.
        locate: sample number to source, epoch and window.
        token_bytes: UTF-8 bytes of each token id, int32 [vocabulary].
        pad: token id of padding; its label is ignored.
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
    """The window with all labels ignored."""
    nothing = {"labels": np.full_like(window["labels"], IGNORE), "label_bytes": np.zeros_like(window["label_bytes"])}
    return window | nothing
