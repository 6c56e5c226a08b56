"""Arguments that take a list of paths take a single path as well."""

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from jsonargparse import ArgumentParser

import datamodules
from common.path_lists import path_list

NAMES = ("paths", "domains")
"""Arguments that hold paths."""


def takers() -> list[tuple[type, str]]:
    """Classes that YAML names, with their arguments that take a list of paths."""
    found = []
    for name in datamodules.__all__:
        value = getattr(datamodules, name)
        if inspect.isclass(value):
            found += [(value, argument) for argument in inspect.signature(value).parameters if argument in NAMES]
    return found


def test_every_class_with_such_an_argument_is_found() -> None:
    names = {taker.__name__ for taker, _ in takers()}
    assert {"Files", "CommonCrawl", "CodeFiles", "Books", "FileRows", "ParquetTokens", "Decontaminate"} <= names
    assert {"WordList", "UrlBlocklist", "HtmlFiles", "ArxivSources", "JatsArticles", "WikipediaDump"} <= names


@pytest.mark.parametrize(("taker", "argument"), takers(), ids=lambda value: getattr(value, "__name__", value))
def test_a_single_path_is_a_list_of_one(taker: type, argument: str, tmp_path: Path) -> None:
    """Given from Python and as the command line reads YAML."""
    path = tmp_path / "file.jsonl"
    path.write_text(json.dumps({"text": "one two three four five six seven eight nine ten"}) + "\n")
    parser = ArgumentParser()
    parser.add_class_arguments(taker, "made")

    def made(given: str | list[str]) -> Any:
        parsed = parser.instantiate_classes(parser.parse_object({"made": {argument: given}})).made
        assert stored(parsed, argument) == stored(taker(**{argument: given}), argument)
        return stored(parsed, argument)

    assert made(str(path)) == made([str(path)]) == [str(path)]


def stored(made: Any, argument: str) -> Any:
    holder = made.reader if isinstance(made, datamodules.FileRows) else made
    return getattr(holder, argument)


@pytest.mark.parametrize("given", ["a", ["a"], ("a",)])
def test_paths_become_a_list(given: str | list[str]) -> None:
    assert path_list(given) == ["a"]


READERS: dict[str, Callable[[Any], Any]] = {"Files": datamodules.Files, "ParquetTokens": datamodules.ParquetTokens}


@pytest.mark.parametrize("name", READERS)
def test_a_single_path_is_read(name: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": ["text"], "input_ids": [[1, 2]]}), path)
    both = [[file.location for file in READERS[name](given).files()] for given in (str(path), [str(path)])]
    assert both[0] == both[1] == [str(path)]
