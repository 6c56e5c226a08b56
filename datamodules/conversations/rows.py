"""Row sources: instruction and preference rows read from files, or made from Python docstrings.

A row is a plain dictionary whatever it came from, and says what it is by its keys, as the public data sets do. What
cannot be a conversation becomes a reason, counted like every other document dropped.
"""

import ast
import json
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pyarrow

from common.errors import InputError
from common.path_lists import PathList
from datamodules.readers.document import Document, text_or_reason, unless_surrogates
from datamodules.readers.files import Files
from datamodules.readers.installed import PythonSources, definitions, parse_python

Row = dict[str, Any]


class Rows(ABC):
    """A list of rows in a fixed order."""

    @abstractmethod
    def rows(self) -> Iterator[Row | str]:
        """Every row, or the reason why there is none."""

    @abstractmethod
    def identity(self) -> Any:
        """Identity of the rows for fingerprints, JSON-able: all that they are a function of."""


class _RowFiles(Files):
    """Documents that are whole rows, as JSON."""

    SUFFIXES = (".jsonl", ".json", ".parquet")

    def _row(self, value: Any) -> Document:
        if isinstance(value, Document):
            return value
        if not isinstance(value, dict):
            return Document(None, reason="no_object")
        return unless_surrogates(json.dumps(value, ensure_ascii=False, default=str))

    def _read_table(self, schema: pyarrow.Schema, batches: Any, max_bytes: int) -> Iterator[Document]:
        for batch in batches(batch_size=1024):
            yield from map(self._row, batch.to_pylist())


class FileRows(Rows):
    """Rows of JSON lines, JSON arrays and Parquet tables; .gz and .zst are decompressed.

    Args:
        paths: files or folders; URLs as for `readers.PathReader`.
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
        """Names, sizes and times of change of the files."""
        return [[file.name, file.size, file.changed] for file in self.reader.files()]


class DocstringRows(Rows):
    """Functions of the Python source on this machine, each with its own docstring and that of another function.

    The prompt is the source without the docstring; chosen is the function's own docstring, rejected is another's. Every
    docstring is chosen and rejected equally often, so that knowing one says nothing of whether it is right here.
    Both keys of instructions (`prompt`, `response`) and of preferences (`prompt`, `chosen`, `rejected`) are there. A
    module's functions are one group, which never parts between training and validation.

    Args:
        distributions: installed packages to read beside the standard library; null takes all of them.
        max_megabytes: Python source to read at most.
        max_lines: longest function; longer ones are passed over.
        negatives: rows of each function, with as many other docstrings; 1 for instructions. With few of them a model
            that has seen a docstring chosen learns to reject it the next time, which is right in training only.
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
        """One row a function, in the order of a hash of the modules' names; each docstring is there once."""
        own: dict[str, Row] = {}
        for file in self.reader.files():
            document = text_or_reason(Path(file.location).read_bytes())
            tree = parse_python(document.text) if document.text is not None else None
            if tree is None:
                yield document.reason or "invalid_python"
                continue
            for source, docstring in documented_functions(tree, self.max_lines):
                if unless_surrogates(source + docstring).text is not None:
                    own.setdefault(docstring, {"prompt": source, "chosen": docstring, "group": file.name})
        pairs, random = list(own.values()), Random(self.seed)
        for _ in range(self.negatives):
            order = list(range(len(pairs)))
            random.shuffle(order)
            # A single cycle through all of them: none gets its own.
            following = dict(zip(order, order[1:] + order[:1], strict=True))
            for number, row in enumerate(pairs):
                other = pairs[following[number]]["chosen"]
                yield row | {"response": row["chosen"], "rejected": other}

    def identity(self) -> Any:
        """The files and the settings."""
        files = [[file.name, file.size, file.changed] for file in self.reader.files()]
        return [files, self.max_lines, self.negatives, self.seed]


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
