"""File reader: JSON lines, JSON, Parquet and plain text.

Invalid bytes and rows are dropped with a reason, never guessed at: who wrote the file can mend it.
"""

import codecs
import io
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import IO, Any, cast

import pyarrow
import pyarrow.parquet

from common.errors import InputError
from common.path_lists import PathList
from datamodules.readers.base import InputFile
from datamodules.readers.document import Document, text_or_reason, unless_surrogates
from datamodules.readers.formats.arrow_values import is_text, plain_text, storage_type, stored, text_bytes, text_of
from datamodules.readers.formats.bounded_streams import bounded_lines, open_bounded, read_whole
from datamodules.readers.formats.parquet import ROWS_IN_BATCH, parquet_batches
from datamodules.readers.json_stream import TOO_LARGE, array_elements, parse_json, skip_blanks
from datamodules.readers.long_texts import announce_cut, cut_at_paragraphs
from datamodules.readers.paths import PathReader


def is_blank(line: bytes) -> bool:
    """True if a line holds nothing but white space, after a byte-order mark if there is one."""
    return not line.removeprefix(codecs.BOM_UTF8).strip()


class Files(PathReader):
    """The user's own text: JSONL, JSON, Parquet, plain text and Markdown, by suffix; compressed or not.

    Args:
        paths: see `PathReader`.
        text_key: key of the text in JSON objects, column of the text in Parquet.
        max_megabytes: see `Reader`.
        downloads: see `PathReader`.
        url_key: key or column of the address, taken where it is there.
        license_key: of the license.
        date_key: of the date.
        max_document_megabytes: see `PathReader`; of a JSON file that is one object, or of a row of JSON lines or of
            an array, all keys count.
        path_key: of the document's own path, by which `CodeQuality` knows HTML from Python: max_stars_repo_path in The
            Stack and StarCoder's data. Null: rows have none.
        cut_characters: texts longer than this are cut at paragraphs, else at line ends or spaces, into documents of at
            most as many, each of which may be in another split; the first one is named. Null cuts none.

    Raises:
        InputError: for a length to cut at below 1,000.
    """

    SUFFIXES: tuple[str, ...] = (".jsonl", ".json", ".parquet", ".txt", ".md", ".rst")

    def __init__(
        self,
        paths: PathList,
        text_key: str = "text",
        max_megabytes: float | None = None,
        downloads: str | None = "data/downloads",
        url_key: str = "url",
        license_key: str = "license",
        date_key: str = "date",
        max_document_megabytes: float = 64,
        path_key: str | None = None,
        cut_characters: int | None = None,
    ) -> None:
        super().__init__(paths, max_megabytes, downloads, max_document_megabytes)
        if cut_characters is not None and cut_characters < 1000:
            raise InputError(f"cut_characters={cut_characters}: must be at least 1,000, 100,000 is usual, or null")
        self.path_key, self.cut_characters = path_key, cut_characters
        self.text_key, self.url_key, self.license_key, self.date_key = text_key, url_key, license_key, date_key

    def documents(self, path: str, file: InputFile) -> Iterator[Document]:
        """One document a JSON line or object, a Parquet row or a text file; what cannot be read has a reason."""
        for document in self._whole_documents(path, file):
            if self.cut_characters is None or len(document.text or "") <= self.cut_characters:
                yield document
                continue
            announce_cut(file.name, self.cut_characters)
            for part in cut_at_paragraphs(document.text or "", self.cut_characters):
                yield replace(document, text=part)

    def _whole_documents(self, path: str, file: InputFile) -> Iterator[Document]:
        kind = self.format_of(file.name)
        if kind == ".parquet":
            # Pages with a checksum are compared with it: a flipped bit may decode without an error.
            with pyarrow.parquet.ParquetFile(path, page_checksum_verification=True) as table:
                yield from self._read_table(table.schema_arrow, partial(parquet_batches, path, table), self.max_bytes)
            return
        with open_bounded(path) as stream:
            if kind == ".jsonl":
                yield from self._read_lines(bounded_lines(stream, self.max_bytes))
            elif kind == ".json":
                yield from self._read_json(stream)
            else:
                yield text_or_reason(read_whole(stream, self.max_bytes))

    def _read_lines(self, lines: Iterable[bytes | None]) -> Iterator[Document]:
        for line in lines:
            if line is None or not is_blank(line):
                yield self._row(parse_json(line))

    def _read_json(self, stream: IO[bytes]) -> Iterator[Document]:
        """JSON lines under the name .json, as C4 has them, or else one value: an object or an array of objects."""
        if skip_blanks(stream) == b"[":
            yield from map(self._row, map(parse_json, array_elements(stream, self.max_bytes)))
            yield from self._read_lines(bounded_lines(stream, self.max_bytes))
            return
        lines = bounded_lines(stream, self.max_bytes)
        first = next((line for line in lines if line is None or not is_blank(line)), b"")
        if first is None or isinstance(parse_json(first), dict):
            yield from self._read_lines(itertools.chain([first], lines))
            return
        whole = first + read_whole(stream, self.max_bytes)
        value = parse_json(whole)
        if isinstance(value, dict):
            yield self._row(value)
        else:
            yield from self._read_lines(bounded_lines(cast(IO[bytes], io.BytesIO(whole)), self.max_bytes))

    def _row(self, value: Any) -> Document:
        """The document of a row."""
        if isinstance(value, Document):
            return value
        text = value.get(self.text_key) if isinstance(value, dict) else None
        if not isinstance(text, str):
            return Document(None, reason="missing_text_key")
        return self._with_provenance(unless_surrogates(text), value)

    def _with_provenance(self, document: Document, row: dict[str, Any]) -> Document:
        return replace(
            document,
            url=plain_text(row.get(self.url_key)),
            license=plain_text(row.get(self.license_key)),
            date=plain_text(row.get(self.date_key)),
            file=plain_text(row.get(self.path_key)) if self.path_key else None,
        )

    def _read_table(self, schema: pyarrow.Schema, batches: Any, max_bytes: int) -> Iterator[Document]:
        """Rows of a table in Arrow; texts are read as bytes, so that invalid UTF-8 is found and not passed on.

        Args:
            schema: of the table.
            batches: called with the names of columns, gives record batches of a bounded number of bytes.
            limit: bytes of a text at most.
        """
        if self.text_key not in schema.names or not is_text(storage_type(schema.field(self.text_key).type)):
            yield Document(None, reason="missing_text_key")
            return
        keys = (self.url_key, self.license_key, self.date_key, self.path_key)
        about = [key for key in keys if key is not None and key in schema.names]
        for batch in batches(list(dict.fromkeys([self.text_key, *about]))):
            texts = text_bytes(stored(batch.column(batch.schema.names.index(self.text_key))))
            metadata = [batch.column(batch.schema.names.index(key)) for key in about]
            for number, raw in enumerate(texts):
                if raw is None:
                    yield Document(None, reason="missing_text_key")
                elif raw.size > max_bytes:
                    yield TOO_LARGE
                else:
                    row = {key: text_of(column[number]) for key, column in zip(about, metadata, strict=True)}
                    yield self._with_provenance(text_or_reason(raw.to_pybytes()), row)


def sliced(batch: pyarrow.RecordBatch) -> Iterator[pyarrow.RecordBatch]:
    """A batch in pieces of `ROWS_IN_BATCH` rows, without a copy."""
    for start in range(0, batch.num_rows, ROWS_IN_BATCH):
        yield batch.slice(start, ROWS_IN_BATCH)
