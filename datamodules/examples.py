"""Examples on disk: token ids in segments, read through memory maps.

An instruction is one segment with a mark on each token that is learned. A preference is a prompt and its answers,
each a segment of its own, so that the prompt can be computed once for all of them. Made once, whole or not at all,
like every stage of preparation.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from lightning.pytorch.utilities import rank_zero_info
from tqdm import tqdm

from datamodules.conversations import Unusable
from datamodules.rows import Row
from datamodules.shards import token_dtype
from datamodules.stages import verified, write_checksums
from errors import InputError

SUMMARY = "summary.json"
SPLITS = ("train", "validation")
_ARRAYS = ("tokens", "trained", "offsets", "margins", "probabilities")


@dataclass(frozen=True)
class Example:
    """One example as it is stored.

    Attributes:
        segments: token ids: one list for an instruction; prompt, chosen, rejected for a preference.
        trained: for every token of every segment, whether it is learned.
        group: examples of one group never part between training and validation.
        margin: of a preference.
        cut: what was shortened to fit: "prompt", "answer", "conversation".
        probability: of a preference, that chosen is the better answer.
    """

    segments: list[list[int]]
    trained: list[list[bool]]
    group: str
    margin: float = 0.0
    cut: tuple[str, ...] = ()
    probability: float = 1.0


@dataclass
class Counts:
    """What became of the rows."""

    rows: int = 0
    kept: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))
    tokens: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    cut: Counter[str] = field(default_factory=Counter)
    excerpts: dict[str, list[str]] = field(default_factory=dict)

    def drop(self, reason: str, row: Row | None) -> None:
        """Count a dropped row and keep the beginning of the first three for each reason."""
        self.dropped[reason] += 1
        kept = self.excerpts.setdefault(reason, [])
        if row is not None and len(kept) < 3:
            kept.append(json.dumps(row, ensure_ascii=False)[:300])

    def table(self, name: str) -> str:
        """Lines for the terminal."""
        lines = [f"{name}: {self.rows:,} rows, kept {sum(self.kept.values()):,}, {self.tokens:,} tokens"]
        lines += [f"  {split:<28}{count:>10,}" for split, count in self.kept.items()]
        lines += [f"  dropped: {reason:<19}{count:>10,}" for reason, count in sorted(self.dropped.items())]
        lines += [f"  shortened: {what:<17}{count:>10,}" for what, count in sorted(self.cut.items())]
        return "\n".join(lines)


def split_of(group: str, fraction: float, seed: int) -> str:
    """`validation` for a fraction of all groups, by a hash: the same on every machine and for every order."""
    return SPLITS[xxhash.xxh3_64_intdigest(group.encode(), seed=seed) < fraction * 2**64]


def write_examples(
    folder: Path,
    rows: Iterable[Row | str],
    convert: Callable[[Row], Example],
    fraction: float,
    seed: int,
    vocabulary_size: int,
) -> Counts:
    """Convert rows and write them into a folder, training and validation apart.

    Args:
        folder: empty.
        rows: rows, or reasons why there is none.
        convert: makes the example; raises `Unusable` with the reason to drop it.
        fraction: of groups held out.
        seed: of the choice.
        vocabulary_size: decides the integers' width.

    Raises:
        InputError: when nothing is left to train on or to validate with.
    """
    counts = Counts()
    kept: dict[str, list[Example]] = {split: [] for split in SPLITS}
    for row in tqdm(rows, desc="tokenising", unit=" rows"):
        counts.rows += 1
        if isinstance(row, str):
            counts.drop(row, None)
            continue
        try:
            example = convert(row)
        except Unusable as reason:
            counts.drop(str(reason), row)
            continue
        counts.cut.update(example.cut)
        split = split_of(example.group, fraction, seed)
        kept[split].append(example)
        counts.kept[split] += 1
        counts.tokens += sum(map(len, example.segments))
    for split, examples in kept.items():
        if not examples:
            reasons = ", ".join(f"{reason} {count}" for reason, count in counts.dropped.most_common()) or "none"
            raise InputError(
                f"{counts.rows} rows leave no example for {split} (dropped: {reasons}): add rows, or change "
                f"validation_fraction={fraction}"
            )
        _write(folder, split, examples, vocabulary_size)
    (folder / SUMMARY).write_text(json.dumps(vars(counts), indent=1), encoding="utf-8")
    files = [f"{split}-{array}.npy" for split in SPLITS for array in _ARRAYS]
    write_checksums(folder, *files, SUMMARY)
    rank_zero_info(counts.table(folder.name.removeprefix(".").removesuffix(".partial")))
    return counts


def _write(folder: Path, split: str, examples: list[Example], vocabulary_size: int) -> None:
    segments = [segment for example in examples for segment in example.segments]
    width = len(examples[0].segments)
    ends = np.cumsum([len(segment) for segment in segments], dtype=np.int64).reshape(-1, width)
    offsets = np.column_stack((np.concatenate(([0], ends[:-1, -1])), ends))
    arrays = {
        "tokens": np.concatenate([np.asarray(s, dtype=token_dtype(vocabulary_size)) for s in segments]),
        "trained": np.concatenate([np.asarray(t, dtype=bool) for example in examples for t in example.trained]),
        "offsets": offsets,
        "margins": np.asarray([example.margin for example in examples], dtype=np.float32),
        "probabilities": np.asarray([example.probability for example in examples], dtype=np.float32),
    }
    for name, array in arrays.items():
        np.save(folder / f"{split}-{name}.npy", array)


class Examples:
    """The examples of one split, opened for reading.

    Args:
        folder: of a finished stage.
        split: `train` or `validation`.

    Attributes:
        offsets: int64 [examples, segments + 1], where each segment begins, and the last one's end.
        margins, probabilities: float32 [examples].
    """

    def __init__(self, folder: Path, split: str) -> None:
        arrays = {
            name: np.load(verified(folder / f"{split}-{name}.npy"), mmap_mode="r", allow_pickle=False)
            for name in _ARRAYS
        }
        self._tokens, self._trained = arrays["tokens"], arrays["trained"]
        self.offsets = arrays["offsets"]
        self.margins, self.probabilities = arrays["margins"], arrays["probabilities"]

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each segment, int64 [examples, segments]."""
        return np.diff(self.offsets, axis=1)

    @property
    def trained_tokens(self) -> np.ndarray:
        """Learned tokens of each example, int64 [examples]; a conversation's first token never is."""
        ends = np.concatenate(([0], np.cumsum(self._trained, dtype=np.int64)))
        return ends[self.offsets[:, -1]] - ends[self.offsets[:, 0]]

    def segments(self, number: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Tokens int64 and marks bool of each segment of an example."""
        cuts = self.offsets[number]
        return [
            (self._tokens[begin:end].astype(np.int64), np.asarray(self._trained[begin:end]))
            for begin, end in pairwise(cuts)
        ]


def read_summary(folder: Path) -> dict[str, Any]:
    """What became of the rows of a finished stage."""
    loaded: dict[str, Any] = json.loads(verified(folder / SUMMARY).read_text(encoding="utf-8"))
    return loaded
