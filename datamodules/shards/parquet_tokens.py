"""Pre-tokenized text: a column of token ids in Parquet, taken as it is.

There is no text to filter, deduplicate or mask: that is left to the maker of the tokens. The ids mean something with
one tokenizer only, which the configuration must name.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import xxhash

from common.errors import InputError
from common.path_lists import PathList, path_list
from datamodules.readers.base import InputFile, Reader, distinct_tails, provenance_name, stable_hash
from datamodules.readers.document import Document
from datamodules.readers.paths import is_visible, walk
from datamodules.shards.format import ShardRecord, ShardWriter
from datamodules.tokenization.base import Tokenizer

BATCH_ROWS = 256


class ParquetTokens(Reader):
    """Documents as lists of token ids, a row each; BOS and EOS are added where they are missing.

    Args:
        paths: Parquet files, or folders of them.
        column: of lists of integers.
        max_megabytes: see `Reader`.
    """

    def __init__(self, paths: PathList, column: str = "input_ids", max_megabytes: float | None = None) -> None:
        super().__init__(max_megabytes)
        # Absolute at once: a worker on a cluster has another working directory.
        self.paths, self.column = [os.path.abspath(os.path.expanduser(path)) for path in path_list(paths)], column

    def candidates(self) -> Iterator[InputFile]:
        """Every Parquet file, named from the last parts of its path.

        Raises:
            InputError: when a path does not exist.
        """
        roots = [Path(path) for path in self.paths]
        for root, tail in zip(roots, distinct_tails(roots), strict=True):
            if not root.exists():
                raise InputError(f"{root} does not exist: correct `paths` of ParquetTokens")
            found = [path for path in walk(root, is_visible) if path == root or _is_parquet(path.name)]
            if not found:
                raise InputError(
                    f"{root} holds no file ending in .parquet that is not hidden or a link out of it: correct `paths` "
                    "of ParquetTokens"
                )
            for path in found:
                if file := InputFile.at(path, provenance_name(tail / path.relative_to(root))):
                    yield file

    def read(self, file: InputFile) -> Iterator[Document]:
        """Nothing: there is no text; `TokenFile` reads the tokens."""
        return iter(())


@dataclass(frozen=True)
class TokenFile:
    """A Parquet file of a source of tokens.

    Attributes:
        source: its name.
        file: where it is.
        column: of lists of integers.
        validation_fraction: share of documents in the validation split, chosen by a hash of their position.
        seed: of that choice.
    """

    source: str
    file: InputFile
    column: str
    validation_fraction: float
    seed: int

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.file.size

    def write(self, folder: Path, number: int, tokenizer: Tokenizer) -> list[ShardRecord]:
        """Write its shards and return their records.

        Raises:
            InputError: for a file without the column, a null in it, or an id that the tokenizer does not have.
        """
        writers = {
            split: ShardWriter(folder, split, self.source, tokenizer, number) for split in ("train", "validation")
        }
        sizes = tokenizer.token_bytes()
        for ids, tokens, lengths in self._batches(len(tokenizer)):
            keys = [xxhash.xxh3_64_intdigest(int(i).to_bytes(8, "little"), seed=self.seed) for i in ids]
            validation = np.array(keys, dtype=np.uint64) < np.uint64(self.validation_fraction * 2**64)
            of_document = np.repeat(validation, lengths)
            for split, own, part in (("train", ~validation, ~of_document), ("validation", validation, of_document)):
                writers[split].write_encoded(ids[own], tokens[part], lengths[own], int(sizes[tokens[part]].sum()))
        for writer in writers.values():
            writer.close()
        return [record for writer in writers.values() for record in writer.records]

    def _batches(self, vocabulary_size: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Ids of documents, their tokens one after another, and the length of each."""
        try:
            with pyarrow.parquet.ParquetFile(self.file.location) as parquet:
                yield from self._checked(parquet, vocabulary_size)
        except (pyarrow.ArrowInvalid, OSError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{self.file.location} cannot be read as Parquet ({reason}): leave it out") from error

    def _checked(
        self, parquet: pyarrow.parquet.ParquetFile, vocabulary_size: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        place, name = self.file.location, provenance_name(self.file.name)
        kind = _column_type(parquet.schema_arrow, self.column)
        if kind is None or not (_is_list(kind) and pyarrow.types.is_integer(kind.value_type)):
            raise InputError(
                f"{place}: column {self.column!r} is {kind or 'not there'}, need lists of integers: name it in "
                "`column` of ParquetTokens"
            )
        row = 0
        for batch in parquet.iter_batches(BATCH_ROWS, columns=[self.column]):
            lists = batch.column(0).cast(pyarrow.large_list(kind.value_type))
            flat = lists.flatten()
            if lists.null_count or flat.null_count:
                raise InputError(
                    f"{place}: {self.column} holds a null in rows {row} .. {row + len(lists) - 1}: leave such rows out"
                )
            tokens, lengths = flat.to_numpy(), np.diff(lists.offsets.to_numpy())
            wrong = (tokens < 0) | (tokens >= vocabulary_size)
            if wrong.any():
                first = int(wrong.argmax())
                where = row + int(np.searchsorted(np.cumsum(lengths), first, side="right"))
                raise InputError(
                    f"{place}: {self.column} of row {where} holds id {tokens[first]}, the tokenizer's are 0 .. "
                    f"{vocabulary_size - 1}: name the tokenizer these ids were made with"
                )
            rows = range(row, row + len(lists))
            yield np.array([stable_hash(f"{self.source}\0{name}\0{i}") for i in rows], dtype=np.uint64), tokens, lengths
            row += len(lists)


def _is_parquet(name: str) -> bool:
    return name.endswith(".parquet") and is_visible(name)


def _column_type(schema: Any, column: str) -> Any:
    return schema.field(column).type if column in schema.names else None


def _is_list(kind: Any) -> bool:
    types = pyarrow.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))
