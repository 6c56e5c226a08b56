"""Benchmark texts: every text of evaluation sets, with its file and row.

Knowing every benchmark's fields would find fewer texts that do not matter and miss those of the next benchmark: so
every string counts unless fields are named.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from common.errors import InputError
from datamodules.readers.base import distinct_tails, provenance_name
from datamodules.readers.formats.arrow_values import python_value
from datamodules.readers.paths import walk

SUFFIXES = (".jsonl", ".json", ".parquet", ".txt")
COMPRESSIONS = (".gz", ".zst", ".bz2")


def evaluation_files(paths: list[str]) -> list[tuple[Path, str]]:
    """The files named, and those of known suffixes below the folders named, in order, each with its name.

    A name begins with the last part of the path that was given, or with as many as distinguish the paths.

    Raises:
        InputError: for a path that does not exist, holds no such file, or is of another format.
    """
    found: list[tuple[Path, str]] = []
    roots = list(dict.fromkeys(Path(os.path.abspath(Path(entry).expanduser())) for entry in paths))
    for root, label in zip(roots, distinct_tails(roots), strict=True):
        if not root.exists():
            raise InputError(f"path {root} does not exist: correct it in the configuration")
        files = sorted(path for path in walk(root) if path.is_file())
        readable = [path for path in files if _suffix(path) in SUFFIXES]
        if not readable:
            raise InputError(f"path {root} holds no file ending in {', '.join(SUFFIXES)}: name or convert the files")
        found += [(path, provenance_name(label / path.relative_to(root))) for path in readable]
    return found


def evaluation_texts(path: Path, keys: list[str] | None) -> Iterator[tuple[int, str]]:
    """Number of the row, from 1, and text; every string value of the row, at any depth, or those under given keys.

    A row is a line of JSONL, an element of a JSON array (another value is one row), a row of Parquet; a text file is
    one text, so that words run on over its line ends, and one row.

    Raises:
        InputError: for a file that cannot be read.
    """
    try:
        for number, row in enumerate(_rows(path), start=1):
            for text in _strings(row, keys, wanted=keys is None):
                yield number, text
    except (ValueError, OSError, RecursionError, pyarrow.ArrowException) as error:
        raise InputError(f"evaluation set {path} cannot be read ({error}): repair it or leave it out") from error


def _suffix(path: Path) -> str:
    name = path.name.lower()
    for compression in COMPRESSIONS:
        name = name.removesuffix(compression)
    return Path(name).suffix


def _rows(path: Path) -> Iterator[Any]:
    suffix = _suffix(path)
    if suffix == ".parquet":
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(1024):
                for number in range(batch.num_rows):
                    # A text of invalid UTF-8 or a date beyond Python must not lose the texts beside it.
                    columns = zip(batch.schema.names, batch.columns, strict=True)
                    yield {name: python_value(column[number], lenient=True) for name, column in columns}
        return
    with pyarrow.input_stream(str(path), compression="detect") as stream:
        content = stream.read().decode("utf-8-sig")
    if suffix == ".jsonl":
        # Not splitlines(): JSON strings may hold other line ends than line feeds.
        yield from (json.loads(line) for line in content.split("\n") if line.strip())
    elif suffix == ".json":
        value = json.loads(content)
        yield from value if isinstance(value, list) else [value]
    else:
        yield content


def _strings(value: Any, keys: list[str] | None, wanted: bool) -> Iterator[str]:
    """Strings within a value; below a wanted key everything is wanted."""
    if isinstance(value, bytes):  # many writers of Parquet leave the mark of text out
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        if wanted:
            yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _strings(inner, keys, wanted or (keys is not None and key in keys))
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _strings(inner, keys, wanted)
