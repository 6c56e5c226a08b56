"""Example store: token ids of examples in segments, memory-mapped.

An instruction is one segment with a mark on each token that is learned. A preference is a prompt and its responses,
each a segment of its own, so that the prompt can be computed once for all of them. Made once, whole or not at all,
like every stage of preparation.

Examples are written as they are made and never held together: memory does not grow with the data. An example may bring
the row it was made from, which is then kept beside its tokens.
"""

import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import xxhash
from tqdm import tqdm

from common.artifacts import verified, write_checksums
from common.console import announce
from common.constants import SPLITS
from common.errors import InputError
from datamodules.conversations.messages import Unusable
from datamodules.conversations.rows import Row
from datamodules.shards.format import token_dtype

SUMMARY = "summary.json"
_ARRAYS = ("tokens", "trained", "offsets", "margins", "probabilities")
ROWS, ROW_ENDS = "rows.jsonl", "row_ends.npy"


@dataclass(frozen=True)
class Example:
    """One example as it is stored.

    Attributes:
        segments: token ids: one list for an instruction; prompt, chosen, rejected for a preference.
        trained: for every token of every segment, whether it is learned.
        group: examples of one group never part between training and validation.
        margin: of a preference.
        cut: what was shortened to fit: "prompt", "response", "conversation".
        probability: of a preference, that chosen is the better response.
        row: kept with the example; all examples bring one, or none does.
        unread: keys of the row's turns that nothing reads.
    """

    segments: list[list[int]]
    trained: list[list[bool]]
    group: str
    margin: float = 0.0
    cut: tuple[str, ...] = ()
    probability: float = 1.0
    row: Row | None = None
    unread: tuple[str, ...] = ()


@dataclass
class Counts:
    """Counts of kept and dropped rows."""

    rows: int = 0
    kept: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))
    tokens: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    cut: Counter[str] = field(default_factory=Counter)
    unread: Counter[str] = field(default_factory=Counter)
    excerpts: dict[str, list[str]] = field(default_factory=dict)
    advice: dict[str, str] = field(default_factory=dict)

    def drop(self, reason: str, row: Row | None, advice: str = "") -> None:
        """Count a dropped row and keep the beginning of the first three for each reason, and the first advice."""
        self.dropped[reason] += 1
        if advice:
            self.advice.setdefault(reason, advice)
        kept = self.excerpts.setdefault(reason, [])
        if row is not None and len(kept) < 3:
            kept.append(json.dumps(row, ensure_ascii=False)[:300])

    def table(self, name: str) -> str:
        """Lines for the terminal."""
        lines = [f"{name}: {self.rows:,} rows, kept {sum(self.kept.values()):,}, {self.tokens:,} tokens"]
        lines += [f"  {split:<28}{count:>10,}" for split, count in self.kept.items()]
        lines += [f"  dropped: {reason:<19}{count:>10,}" for reason, count in sorted(self.dropped.items())]
        lines += [f"  shortened: {what:<17}{count:>10,}" for what, count in sorted(self.cut.items())]
        lines += [f"  key not read: {key:<14}{count:>10,}" for key, count in sorted(self.unread.items())]
        return "\n".join(lines)

    def refuse_nothing(self, fraction: float) -> None:
        """Refuse a split without an example.

        Raises:
            InputError: with the reasons, and what rows would need where none of them is of a known format.
        """
        if all(self.kept.values()):
            return
        split = next(split for split, kept in self.kept.items() if not kept)
        reasons = ", ".join(f"{reason} {count}" for reason, count in self.dropped.most_common()) or "none"
        advice = f"add rows, or change validation_fraction={fraction}"
        if self.dropped and not any(self.kept.values()):
            advice = self.advice.get(self.dropped.most_common(1)[0][0], advice)
        raise InputError(f"{self.rows} rows leave no example for {split} (dropped: {reasons}): {advice}")


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
        fraction: share of groups in the validation split.
        seed: of the choice.
        vocabulary_size: decides the integers' width.

    Raises:
        InputError: when nothing is left to train on or to validate with.
    """
    counts = Counts()
    with ExitStack() as stack:
        writers = {split: stack.enter_context(_Writer(folder, split, vocabulary_size)) for split in SPLITS}
        for row in tqdm(rows, desc="tokenizing", unit=" rows"):
            counts.rows += 1
            if isinstance(row, str):
                counts.drop(row, None)
                continue
            try:
                example = convert(row)
            except Unusable as reason:
                counts.drop(str(reason), row, reason.advice)
                continue
            counts.cut.update(example.cut)
            counts.unread.update(example.unread)
            split = split_of(example.group, fraction, seed)
            writers[split].add(example)
            counts.kept[split] += 1
            counts.tokens += sum(map(len, example.segments))
    counts.refuse_nothing(fraction)
    (folder / SUMMARY).write_text(json.dumps(vars(counts), indent=1), encoding="utf-8")
    write_checksums(folder, *sorted(file.name for file in folder.iterdir()))
    announce(counts.table(folder.name.removeprefix(".").removesuffix(".partial")))
    return counts


class _GrowingArray:
    """An array on disk that rows are added to, in numpy's format.

    Args:
        path: of a new file.
        dtype: of its elements.
        width: elements in a row; None is an array of one dimension.
    """

    def __init__(self, path: Path, dtype: Any, width: int | None = None) -> None:
        self.dtype, self.width, self.rows = np.dtype(dtype), width, 0
        self._file = path.open("wb")
        self._header()

    def _header(self) -> None:
        # numpy leaves room in a header for a first dimension of 21 digits.
        shape = (self.rows,) if self.width is None else (self.rows, self.width)
        descr = np.lib.format.dtype_to_descr(self.dtype)
        header = {"descr": descr, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)

    def add(self, values: Sequence[Any]) -> None:
        """Add one row, or the elements of a one-dimensional array."""
        self._file.write(np.asarray(values, dtype=self.dtype).tobytes())
        self.rows += len(values) if self.width is None else 1

    def close(self) -> None:
        """Write how many there are."""
        with self._file:
            self._file.seek(0)
            self._header()


class _Writer:
    """Writes the examples of one split as they come."""

    def __init__(self, folder: Path, split: str, vocabulary_size: int) -> None:
        self.folder, self.split = folder, split
        self.tokens = self._array("tokens", token_dtype(vocabulary_size))
        self.trained = self._array("trained", bool)
        self.margins, self.probabilities = (self._array(name, np.float32) for name in ("margins", "probabilities"))
        self.offsets: _GrowingArray | None = None
        self.row_ends: _GrowingArray | None = None

    def _array(self, name: str, dtype: Any, width: int | None = None) -> _GrowingArray:
        return _GrowingArray(self.folder / f"{self.split}-{name}.npy", dtype, width)

    def __enter__(self) -> Self:
        return self

    def add(self, example: Example) -> None:
        """One more."""
        if self.offsets is None:
            self.offsets = self._array("offsets", np.int64, len(example.segments) + 1)
            if example.row is not None:
                self.rows = (self.folder / f"{self.split}-{ROWS}").open("wb")
                self.row_ends = _GrowingArray(self.folder / f"{self.split}-{ROW_ENDS}", np.int64)
        start = self.tokens.rows
        self.offsets.add(list(itertools.accumulate(map(len, example.segments), initial=start)))
        for segment, trained in zip(example.segments, example.trained, strict=True):
            self.tokens.add(segment)
            self.trained.add(trained)
        self.margins.add([example.margin])
        self.probabilities.add([example.probability])
        if self.row_ends is not None:
            self.rows.write(json.dumps(example.row, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")
            self.row_ends.add([self.rows.tell()])

    def __exit__(self, *error: object) -> None:
        for array in (self.tokens, self.trained, self.margins, self.probabilities, self.offsets, self.row_ends):
            if array is not None:
                array.close()
        if self.row_ends is not None:
            self.rows.close()


class Examples:
    """The examples of one split, opened for reading.

    Args:
        folder: of a finished stage.
        split: `train` or `validation`.

    Attributes:
        offsets: int64 [examples, segments + 1], where each segment begins, and the last one's end.
        margins, probabilities: float32 [examples].
        has_rows: whether the rows are there that examples were made from.
    """

    def __init__(self, folder: Path, split: str) -> None:
        arrays = {
            name: np.load(verified(folder / f"{split}-{name}.npy"), mmap_mode="r", allow_pickle=False)
            for name in _ARRAYS
        }
        self._tokens, self._trained = arrays["tokens"], arrays["trained"]
        self.offsets = arrays["offsets"]
        self.margins, self.probabilities = arrays["margins"], arrays["probabilities"]
        ends = folder / f"{split}-{ROW_ENDS}"
        self.has_rows = ends.exists()
        if self.has_rows:
            self._row_ends = np.load(verified(ends), mmap_mode="r", allow_pickle=False)
            self._rows = np.memmap(verified(folder / f"{split}-{ROWS}"), dtype=np.uint8, mode="r")

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
            for begin, end in itertools.pairwise(cuts)
        ]

    def row(self, number: int) -> Row:
        """The row that an example was made from."""
        begin = self._row_ends[number - 1] if number else 0
        row: Row = json.loads(self._rows[begin : self._row_ends[number]].tobytes())
        return row


def read_summary(folder: Path) -> dict[str, Any]:
    """Counts of the rows of finished examples."""
    loaded: dict[str, Any] = json.loads(verified(folder / SUMMARY).read_text(encoding="utf-8"))
    return loaded
