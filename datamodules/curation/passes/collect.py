"""Pass 0: read the files of all sources into pieces of bounded size on disk.

Neither a generator function nor a data source of Daft holds its reader back: both run to the end of a file before the
first row of it is looked at (measured, 0.7.26). So a file of any size is first read into pieces of a bounded number of
bytes, which costs a copy of the raw text on disk until it is filtered; a plan over one piece then needs memory for that
piece, whatever it came from.
"""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import daft
import pyarrow
import pyarrow.parquet
from daft import DataType, col

from common.compute.daft_engine import spread
from common.errors import InputError
from common.files import write_atomically
from common.fingerprint import fingerprint
from datamodules.readers.base import InputFile, Reader, provenance_name, stable_hash
from datamodules.readers.document import Document
from datamodules.readers.formats.bounded_streams import DAMAGE, uncompressed_name

RAW_SCHEMA = pyarrow.schema(
    {
        "id": pyarrow.uint64(),
        "path": pyarrow.large_string(),
        "group": pyarrow.large_string(),
        "url": pyarrow.large_string(),
        "license": pyarrow.large_string(),
        "date": pyarrow.large_string(),
        "file": pyarrow.large_string(),
        "bytes": pyarrow.int64(),
        "text": pyarrow.large_string(),
        "reason": pyarrow.large_string(),
    }
)
CONTAINERS = (".jsonl", ".json", ".parquet", ".arrow")
"""Suffixes of files of many documents, whose name says nothing of the kind of those."""
ROW_BYTES = 1024
"""Bytes that a document counts beside its text: a piece of a million one-word documents is not small in memory."""
BATCH_BYTES = 4 * 2**20
"""Bytes of documents held as Python objects while a piece is written."""


@dataclass(frozen=True)
class Chunk:
    """Input files of one source that are read together.

    Attributes:
        source: name of the source.
        number: position among the chunks of the source.
        files: input files, in order.
        name: source, number and fingerprint of all that went into the chunk.
    """

    source: str
    number: int
    files: tuple[InputFile, ...]
    name: str

    @property
    def size(self) -> int:
        """Bytes of the files."""
        return sum(file.size for file in self.files)

    def pieces(self, folder: Path) -> list[Path] | None:
        """Its pieces in a folder, or None as long as not all are there."""
        marker = folder / f"{self.name}.json"
        if not marker.is_file():
            return None
        return [self.piece(folder, number) for number in range(json.loads(marker.read_text(encoding="utf-8")))]

    def piece(self, folder: Path, number: int) -> Path:
        """Path of a piece."""
        return folder / f"{self.name}.{number:05}.parquet"

    def mark_done(self, folder: Path, pieces: int) -> None:
        """Write the marker that all pieces are there."""
        with write_atomically(folder / f"{self.name}.json") as path:
            path.write_text(json.dumps(pieces), encoding="utf-8")


def chunk_files(inputs: Mapping[str, Sequence[InputFile]], chunk_bytes: int, key: str) -> list[Chunk]:
    """Group the files of each source, in the order of a hash of their names, to about `chunk_bytes`.

    Args:
        inputs: files by source, in any order.
        chunk_bytes: a chunk is closed when it has as many, so that a larger file is a chunk of its own.
        key: fingerprint of everything else that decides what becomes of a chunk.
    """
    chunks: list[Chunk] = []
    for source in sorted(inputs):
        groups: list[list[InputFile]] = [[]]
        size = 0
        for file in sorted(inputs[source], key=lambda file: (stable_hash(file.name), file.name)):
            if groups[-1] and size + file.size > chunk_bytes:
                groups.append([])
                size = 0
            groups[-1].append(file)
            size += file.size
        for number, group in enumerate(groups):
            digits = fingerprint(key, source, chunk_bytes, [file.identity for file in group])
            chunks.append(Chunk(source, number, tuple(group), f"{source}-{number:05}-{digits}"))
    return chunks


def collect(chunks: Sequence[Chunk], readers: Mapping[str, Reader], folder: Path, piece_bytes: int) -> None:
    """Read chunks into pieces of at most about `piece_bytes`, each on any worker.

    The pieces that an interrupted run left are not written again: a document too large for the rest of a piece does
    not start another, so where pieces end depends on nothing but the documents.

    Args:
        chunks: what to read.
        readers: by source.
        folder: where the pieces go; seen by all workers.
        piece_bytes: UTF-8 bytes of text, and `ROW_BYTES` for each document.
    """
    missing = [chunk for chunk in chunks if chunk.pieces(folder) is None]
    if not missing:
        return

    @daft.func(return_dtype=DataType.int64())
    def read(number: int) -> int:
        return write_pieces(missing[number], readers[missing[number].source], folder, piece_bytes)

    # Rows are numbers and the files are in the function: a path need not be text.
    spread(pyarrow.table({"chunk": list(range(len(missing)))})).select(read(col("chunk"))).collect()


def write_pieces(chunk: Chunk, reader: Reader, folder: Path, piece_bytes: int) -> int:
    """Write the pieces of a chunk, then their marker; returns the number of pieces."""
    documents = itertools.chain.from_iterable(read_file(reader, chunk.source, file) for file in chunk.files)
    for number in itertools.count():
        if (first := next(documents, None)) is None:
            chunk.mark_done(folder, number)
            return number
        rows = _until(itertools.chain([first], documents), piece_bytes)
        path = chunk.piece(folder, number)
        if path.exists():
            for _ in rows:
                pass
            continue
        with (
            write_atomically(path) as partial,
            # Lightly packed: it is read once and removed.
            pyarrow.parquet.ParquetWriter(partial, RAW_SCHEMA, compression="lz4", use_dictionary=False) as writer,
        ):
            while batch := list(_until(rows, BATCH_BYTES)):
                writer.write_table(pyarrow.Table.from_pylist(batch, RAW_SCHEMA))
    raise AssertionError("unreachable")


def _until(rows: Iterator[dict[str, Any]], size: int) -> Iterator[dict[str, Any]]:
    """Rows up to the one that brings their size to `size`."""
    for row in rows:
        yield row
        size -= row["bytes"] + ROW_BYTES
        if size <= 0:
            return


def read_file(reader: Reader, source: str, file: InputFile) -> Iterator[dict[str, Any]]:
    """Documents of a file as rows; a file that cannot be opened or parsed ends in one dropped document."""
    path, documents = provenance_name(file.name), reader.read(file)
    is_container = uncompressed_name(path).endswith(CONTAINERS)
    for ordinal in itertools.count():
        try:
            document = next(documents)
        except StopIteration:
            return
        except InputError:
            raise
        except OSError:
            document = Document(None, reason="unreadable_file")
            documents = iter(())
        except DAMAGE:
            document = Document(None, reason="damaged_file")
            documents = iter(())
        yield {
            "id": stable_hash(f"{source}\0{path}\0{ordinal}"),
            "path": path,
            "group": _storable(document.group) or f"{path}#{ordinal}",
            "url": _storable(document.url),
            "license": _storable(document.license),
            "date": _storable(document.date),
            "file": _storable(document.file) or (None if is_container else path),
            "bytes": 0 if document.text is None else len(document.text.encode()),
            "text": document.text,
            "reason": document.reason,
        }


def _storable(value: str | None) -> str | None:
    # Names in JSON may hold lone surrogates.
    return None if value is None else value.encode("utf-8", "backslashreplace").decode()
