"""Row sources: instruction and preference rows read from files, or made from Python docstrings.

A row is a plain dictionary whatever it came from, and says what it is by its keys, as the public data sets do. What
cannot be a conversation becomes a reason, counted like every other document dropped.
"""

import ast
import json
import os
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Iterator
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import pyarrow

from common.errors import InputError
from common.path_lists import PathList, expand_pattern
from datamodules.readers.base import Reader, stable_hash, with_contents
from datamodules.readers.document import Document, text_or_reason, unless_surrogates
from datamodules.readers.files import Files
from datamodules.readers.formats.arrow_values import python_value
from datamodules.readers.installed import PythonSources, definitions, parse_python
from datamodules.readers.json_stream import TOO_LARGE

Row = dict[str, Any]
GROUPS = 256
"""Groups of modules: enough of them that a share of 1 % is some, few enough that one of 24 MB has 20 functions."""


class Rows(ABC):
    """A list of rows in a fixed order."""

    @abstractmethod
    def rows(self) -> Iterator[Row | str]:
        """Every row, or the reason why there is none."""

    @abstractmethod
    def identity(self) -> Any:
        """Identity of the rows for fingerprints, JSON-able: all that they are a function of."""


def listed(reader: Reader) -> list[list[Any]]:
    """Names, sizes and checksums of the files that a reader reads."""
    return [file.identity for file in with_contents(reader.files())]


def settings_of(rows: Rows) -> dict[str, str]:
    """Attributes of rows but for their reader, as text."""
    return {name: repr(value) for name, value in sorted(vars(rows).items()) if name != "reader"}


class _RowFiles(Files):
    """Documents that are whole rows, as JSON."""

    SUFFIXES = (".jsonl", ".json", ".parquet")

    def named_paths(self) -> list[str]:
        """Paths, and for a pattern the folders and files of rows that it matches."""
        found = []
        for path in self.paths:
            matches = [match for match in expand_pattern(path) if os.path.isdir(match) or self.format_of(match)]
            found += matches or [path]
        return list(dict.fromkeys(found))

    def _row(self, value: Any) -> Document:
        if isinstance(value, Document):
            return value
        if not isinstance(value, dict):
            return Document(None, reason="no_object")
        return unless_surrogates(json.dumps(value, ensure_ascii=False, default=str))

    def _read_table(self, schema: pyarrow.Schema, batches: Any, max_bytes: int) -> Iterator[Document]:
        for batch in batches(schema.names):
            for number in range(batch.num_rows):
                document = self._row(_table_row(batch, number))
                yield TOO_LARGE if document.text is not None and len(document.text) > max_bytes else document


def _table_row(batch: pyarrow.RecordBatch, number: int) -> Row | Document:
    """A row of a table as JSON has it, or the reason why it cannot be."""
    try:
        row: Row = _plain(
            {name: python_value(batch.column(place)[number]) for place, name in enumerate(batch.schema.names)}
        )
    except UnicodeDecodeError:
        return Document(None, reason="invalid_utf8")
    except (ValueError, OverflowError):  # a date before year 1 or after 9999
        return Document(None, reason="invalid_value")
    return row


def _plain(value: Any) -> Any:
    """A value of a table as the JSON that it is.

    A null is an absent key: a table gives every row, and every part of it, the keys of all. Bytes are text, as many
    writers leave the mark of text out; a decimal is a number, a date ISO 8601.
    """
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return value.isoformat() if isinstance(value, date | time) else value


class FileRows(Rows):
    """Rows of JSON lines, JSON arrays and Parquet tables; .gz and .zst are decompressed.

    Args:
        paths: files, folders, or patterns with `*` that match either; URLs as for `readers.PathReader`.
        max_megabytes: read at most this much.
        downloads: folder of what URLs name, copied once.
    """

    def __init__(
        self, paths: PathList, max_megabytes: float | None = None, downloads: str | None = "data/downloads"
    ) -> None:
        self.reader = _RowFiles(paths, max_megabytes=max_megabytes, downloads=downloads)

    def rows(self) -> Iterator[Row | str]:
        """File by file, in the order of a hash of their names."""
        for file in self.reader.files():
            for document in self.reader.read(file):
                yield json.loads(document.text) if document.text is not None else str(document.reason)

    def identity(self) -> Any:
        """Names, sizes and checksums of the files, and what a class of its own was given beside them."""
        return [listed(self.reader), settings_of(self)]


class DocstringRows(Rows):
    """Functions of the Python source on this machine, each with its own docstring and that of another function.

    The prompt is the source without the docstring; chosen is the function's own docstring, rejected is another's. Every
    docstring is chosen and rejected equally often, so that knowing one says nothing of whether it is right here.
    Both keys of instructions (`prompt`, `response`) and of preferences (`prompt`, `chosen`, `rejected`) are there.

    Modules are put into `GROUPS` groups by a hash, and other docstrings are those of the same group. A group never
    parts between training and validation, so that whatever the share of validation no docstring of it is trained on,
    as a right or as a wrong one. A function that is alone in its group has no `chosen` and `rejected`.

    Args:
        distributions: installed packages to read beside the standard library; null takes all of them.
        max_megabytes: Python source to read at most.
        max_lines: longest function; longer ones are passed over.
        negatives: rows of each function, with as many other docstrings, fewer where its group has fewer; 1 for
            instructions. With few of them a model that has seen a docstring chosen learns to reject it the next time,
            which is right in training only.
        seed: seed of the assignment of other docstrings.
    """

    def __init__(
        self,
        distributions: list[str] | None = None,
        max_megabytes: float | None = 24,
        max_lines: int = 20,
        negatives: int = 1,
        seed: int = 0,
    ) -> None:
        if negatives < 1:
            raise InputError(f"negatives={negatives}: must be at least 1")
        self.reader = PythonSources(distributions, standard_library=True, max_megabytes=max_megabytes)
        self.max_lines, self.negatives, self.seed = max_lines, negatives, seed

    def rows(self) -> Iterator[Row | str]:
        """One row a function, in the order of a hash of the modules' names; each docstring and prompt is there once."""
        own: dict[str, Row] = {}
        prompts: set[str] = set()
        for file in self.reader.files():
            document = text_or_reason(Path(file.location).read_bytes())
            tree = parse_python(document.text) if document.text is not None else None
            if tree is None:
                yield document.reason or "invalid_python"
                continue
            for source, docstring in documented_functions(tree, self.max_lines):
                is_text = unless_surrogates(source + docstring).text is not None
                if is_text and docstring not in own and source not in prompts:
                    prompts.add(source)
                    own[docstring] = {"prompt": source, "response": docstring, "group": docstring_group(file.name)}
        members: dict[str, list[str]] = {}
        for docstring, row in own.items():
            members.setdefault(row["group"], []).append(docstring)
        places: dict[str, int] = {}
        for name, group in members.items():
            Random(f"{self.seed}/{name}").shuffle(group)
            places |= {docstring: place for place, docstring in enumerate(group)}
        for further in range(1, self.negatives + 1):
            for docstring, row in own.items():
                group, place = members[row["group"]], places[docstring]
                # Round the group, one step further in each turn: none gets its own, and none the same one twice.
                if further < len(group):
                    yield row | {"chosen": docstring, "rejected": group[(place + further) % len(group)]}
                elif further == 1:
                    yield row

    def identity(self) -> Any:
        """The files and the settings."""
        return [listed(self.reader), settings_of(self)]


def docstring_group(module: str) -> str:
    """Group of a module, by its name alone: the same one whatever else is read."""
    return f"docstrings/{stable_hash(module) % GROUPS}"


def documented_functions(tree: ast.Module, max_lines: int) -> Iterator[tuple[str, str]]:
    """(source without its docstring, first paragraph of the docstring) of every function that has both."""
    for node, _ in definitions(tree, ""):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        docstring = ast.get_docstring(node)
        if not docstring or len(node.body) < 2:
            continue
        lines = ast.unparse(_without_docstring(node)).splitlines()
        summary = " ".join(textwrap.dedent(docstring).split("\n\n")[0].split())
        # A nested function or a message may say the same again, and give the response away.
        if len(lines) <= max_lines and len(summary) >= 16 and summary not in " ".join(" ".join(lines).split()):
            yield "\n".join(lines) + '\n"""', summary


def _without_docstring(node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
    bare = type(node)(**dict(ast.iter_fields(node)))
    bare.body = node.body[1:]
    return ast.copy_location(bare, node)
