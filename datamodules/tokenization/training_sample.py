"""Training sample of the tokenizer: the first documents of each source, in the configured shares.

Documents are taken in their order instead of at random: only the files at the beginning are read. Near the beginning of
a source that is sorted by subject the sample is not representative.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow.compute
import pyarrow.parquet
from tqdm import tqdm

from common.errors import InputError


def sample_texts(files: Sequence[Path], weights: Mapping[str, float] | None, size: int) -> Iterator[str]:
    """Training documents of about `size` bytes, those that come first of each source.

    Which they are depends on the order of documents alone, not on the files they are cut into. Only files and parts of
    files that give something are read whole.

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
    left = {name: size * shares.get(name, 0) / max(total, 1e-9) for name in present}
    with tqdm(desc="sampling text for the tokenizer", unit="B", unit_scale=True) as progress:
        for path in files:
            with pyarrow.parquet.ParquetFile(path) as file:
                for group in range(file.metadata.num_row_groups):
                    if max(left.values(), default=0) <= 0:
                        return
                    facts = file.read_row_group(group, columns=["source", "split", "bytes"]).to_pydict()
                    taken = []
                    for row, (source, split, length) in enumerate(zip(*facts.values(), strict=True)):
                        if split == "train" and left[source] > 0:
                            left[source] -= length
                            taken.append(row)
                            progress.update(length)
                    if taken:
                        yield from file.read_row_group(group, columns=["text"])["text"].take(taken).to_pylist()


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
