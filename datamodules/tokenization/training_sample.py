"""Training sample of the tokenizer: documents from all over each source, in the configured shares.

Blocks of documents that follow each other are taken, evenly spaced: files that are sorted by language or subject are
all represented, and only the parts of files that give something are read.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow.compute
import pyarrow.parquet
from tqdm import tqdm

from common.errors import InputError

MAX_BLOCK_BYTES, BLOCKS = 2**20, 256
"""Bytes of documents that are taken together at most, and blocks that a source gives at least."""


def sample_texts(files: Sequence[Path], weights: Mapping[str, float] | None, size: int) -> Iterator[str]:
    """Training documents of about `size` bytes, spread evenly over each source.

    Which they are depends on the order of documents alone, not on the files they are cut into.

    Args:
        files: files of curated documents, in order.
        weights: share of each source; None for that of its training documents in all.
        size: bytes of all sources together.

    Raises:
        InputError: for a weight of an unknown source.
    """
    present = _training_bytes(files)
    if weights is not None and (unknown := sorted({*weights} - {*present})):
        raise InputError(f"tokenizer.weights names {unknown[0]}, the sources of text are {', '.join(sorted(present))}")
    shares = dict(present) if weights is None else dict(weights)
    total = sum(shares.values())
    samplers = {name: _Spread(size * shares.get(name, 0) / max(total, 1e-9), whole) for name, whole in present.items()}
    with tqdm(desc="sampling text for the tokenizer", unit="B", unit_scale=True) as progress:
        for path in files:
            with pyarrow.parquet.ParquetFile(path) as file:
                for group in range(file.metadata.num_row_groups):
                    if all(sampler.is_done for sampler in samplers.values()):
                        return
                    facts = file.read_row_group(group, columns=["source", "split", "bytes"]).to_pydict()
                    taken = []
                    for row, (source, split, length) in enumerate(zip(*facts.values(), strict=True)):
                        if split == "train" and samplers[source].takes(length):
                            taken.append(row)
                            progress.update(length)
                    if taken:
                        yield from file.read_row_group(group, columns=["text"])["text"].take(taken).to_pylist()


class _Spread:
    """Choice of documents of one source, in their order: blocks as soon as less than the wanted share was taken.

    Args:
        wanted: bytes to take.
        whole: bytes of all documents.
    """

    def __init__(self, wanted: float, whole: int) -> None:
        self.wanted, self.share = wanted, min(1.0, wanted / max(whole, 1))
        self.block = min(MAX_BLOCK_BYTES, wanted / BLOCKS)
        self.taken = self.seen = self.in_block = 0
        self.is_taking = self.share > 0

    @property
    def is_done(self) -> bool:
        return self.taken >= self.wanted

    def takes(self, length: int) -> bool:
        """Whether the next document, of `length` bytes, is in the sample."""
        if self.in_block >= self.block:
            self.in_block, self.is_taking = 0, self.taken <= self.share * self.seen
        chosen = self.is_taking and not self.is_done
        self.in_block += length
        self.seen += length
        self.taken += length * chosen
        return chosen


def _training_bytes(files: Sequence[Path]) -> dict[str, int]:
    """Bytes of each source's training documents."""
    found: dict[str, int] = {}
    for path in files:
        table = pyarrow.parquet.read_table(path, columns=["source", "split", "bytes"])
        table = table.filter(pyarrow.compute.equal(table["split"], "train"))
        sums = table.group_by("source").aggregate([("bytes", "sum")]).to_pydict()
        for name, size in zip(sums["source"], sums["bytes_sum"], strict=True):
            found[name] = found.get(name, 0) + size
    return found
