"""The user's own text in the formats text is passed around in: JSON lines, JSON, Parquet, plain text.

Invalid bytes and rows are dropped with a reason, never guessed at: who wrote the file can mend it.
"""

import codecs
import io
import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import IO, Any, cast

import pyarrow
import pyarrow.parquet

from datamodules.document import Document, text_or_reason, unless_surrogates
from datamodules.readers.base import InputFile
from datamodules.readers.bounded import bounded_lines, open_bounded, read_whole
from datamodules.readers.paths import PathReader

ROWS_IN_BATCH = 256
TOO_LARGE = Document(None, reason="too_large")


def is_blank(line: bytes) -> bool:
    """Whether a line holds nothing but white space, after a byte-order mark if there is one."""
    return not line.removeprefix(codecs.BOM_UTF8).strip()


def parse_json(raw: bytes | None) -> Any:
    """The JSON value in bytes, or a `Document` with the reason why there is none; None stands for too many bytes."""
    document = TOO_LARGE if raw is None else text_or_reason(raw)
    if document.text is None:
        return document
    try:
        return json.loads(document.text)
    except (ValueError, RecursionError):
        return Document(None, reason="invalid_json")


class Files(PathReader):
    """The user's own text: JSONL, JSON, Parquet, plain text and Markdown, by suffix; compressed or not.

    Args:
        paths: see `PathReader`.
        text_key: key of the text in JSON objects, column of the text in Parquet.
        max_megabytes: see `Reader`.
        downloads: see `PathReader`.
        url_key: key or column of the address, taken where it is there.
        licence_key: of the licence.
        date_key: of the date.
        maximum_document_megabytes: see `PathReader`; of a JSON file that is one value, or of a row of JSON lines, all
            keys count.
    """

    SUFFIXES: tuple[str, ...] = (".jsonl", ".json", ".parquet", ".txt", ".md", ".rst")

    def __init__(
        self,
        paths: list[str],
        text_key: str = "text",
        max_megabytes: float | None = None,
        downloads: str | None = "data/downloads",
        url_key: str = "url",
        licence_key: str = "license",
        date_key: str = "date",
        maximum_document_megabytes: float = 64,
    ) -> None:
        super().__init__(paths, max_megabytes, downloads, maximum_document_megabytes)
        self.text_key, self.url_key, self.licence_key, self.date_key = text_key, url_key, licence_key, date_key

    def documents(self, path: str, file: InputFile) -> Iterator[Document]:
        """One document a JSON line or object, a Parquet row or a text file; what cannot be read has a reason."""
        kind = self.format_of(file.name)
        if kind == ".parquet":
            with pyarrow.parquet.ParquetFile(path) as table:
                yield from self._read_table(table.schema_arrow, table.iter_batches, self.limit)
            return
        with open_bounded(path) as stream:
            if kind == ".jsonl":
                yield from self._read_lines(bounded_lines(stream, self.limit))
            elif kind == ".json":
                yield from self._read_json(stream)
            else:
                yield text_or_reason(read_whole(stream, self.limit))

    def _read_lines(self, lines: Iterable[bytes | None]) -> Iterator[Document]:
        for line in lines:
            if line is None or not is_blank(line):
                yield self._row(parse_json(line))

    def _read_json(self, stream: IO[bytes]) -> Iterator[Document]:
        """JSON lines under the name .json, as C4 has them, or else one value: an object or an array of objects."""
        lines = bounded_lines(stream, self.limit)
        first = next((line for line in lines if line is None or not is_blank(line)), b"")
        if first is None or isinstance(parse_json(first), dict):
            yield from self._read_lines(itertools.chain([first], lines))
            return
        whole = first + read_whole(stream, self.limit)
        value = parse_json(whole)
        if isinstance(value, list):
            yield from map(self._row, value)
        elif isinstance(value, dict):
            yield self._row(value)
        else:
            yield from self._read_lines(bounded_lines(cast(IO[bytes], io.BytesIO(whole)), self.limit))

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
            url=_told(row.get(self.url_key)),
            licence=_told(row.get(self.licence_key)),
            date=_told(row.get(self.date_key)),
        )

    def _read_table(self, schema: pyarrow.Schema, batches: Any, limit: int) -> Iterator[Document]:
        """Rows of a table in Arrow; texts are read as bytes, so that invalid UTF-8 is found and not passed on.

        Args:
            schema: of the table.
            batches: called with `batch_size` in rows and the names of `columns`, gives record batches.
            limit: bytes of a text at most.
        """
        if self.text_key not in schema.names:
            yield Document(None, reason="missing_text_key")
            return
        about = [key for key in (self.url_key, self.licence_key, self.date_key) if key in schema.names]
        for batch in batches(batch_size=ROWS_IN_BATCH, columns=list(dict.fromkeys([self.text_key, *about]))):
            column = batch.column(batch.schema.names.index(self.text_key))
            if not (pyarrow.types.is_string(column.type) or pyarrow.types.is_large_string(column.type)):
                column = column.cast(pyarrow.large_string())
            texts = column.cast(pyarrow.large_binary())
            told = [batch.column(batch.schema.names.index(key)) for key in about]
            for number, value in enumerate(texts):
                raw = value.as_buffer() if value.is_valid else None
                if raw is None:
                    yield Document(None, reason="missing_text_key")
                elif raw.size > limit:
                    yield TOO_LARGE
                else:
                    row = {key: column[number].as_py() for key, column in zip(about, told, strict=True)}
                    yield self._with_provenance(text_or_reason(raw.to_pybytes()), row)


def _told(value: Any) -> str | None:
    """What a row says of itself as text that can be stored: lists are joined, dates are ISO 8601."""
    if value is None or isinstance(value, dict):
        return None
    if isinstance(value, list):
        value = ", ".join(str(part) for part in value)
    text = value.isoformat() if hasattr(value, "isoformat") else str(value)
    return text.encode("utf-8", "backslashreplace").decode()[:2000] or None
