"""Classes that YAML names and the user wrote: another class, or another line of it, is another folder."""

import functools
import importlib
import importlib.metadata
import itertools
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import datamodules
from common.fingerprint import NEUTRAL, class_fingerprint, forget_sources, users_class_fingerprint
from datamodules import FileRows, SFTData
from datamodules.curation.config import CurationConfig, TextSource
from datamodules.curation.pipeline import curation_fingerprint
from datamodules.readers import Files
from tests.helpers.corpus import ROOT

SHOUTING = """
from datamodules import FileRows
from my_words import loud


class Shouting(FileRows):
    def __init__(self, paths, volume=1):
        super().__init__(paths)
        self.volume = volume

    def rows(self):
        for row in super().rows():
            yield row | {"response": loud(row["response"])}


class Louder(Shouting):
    pass
"""
WORDS = "def loud(text):\n    return text.upper()\n"
Written = Callable[..., ModuleType]


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Written]:
    """Writes modules of the user's into a new folder each time, and imports the first as a new process would."""
    numbers = itertools.count()

    def write(**sources: str) -> ModuleType:
        folder = tmp_path / f"user-{next(numbers)}"
        folder.mkdir()
        for name, source in sources.items():
            sys.modules.pop(name, None)
            (folder / f"{name}.py").write_text(source)
        monkeypatch.syspath_prepend(folder)
        return importlib.import_module(next(iter(sources)))

    yield write
    for name in ("my_rows", "my_words", "my_steps"):
        sys.modules.pop(name, None)


def test_a_class_is_its_name_its_source_and_what_it_imports(written: Written) -> None:
    def key(name: str = "Shouting", rows: str = SHOUTING, words: str = WORDS) -> tuple[str, str]:
        cls = getattr(written(my_rows=rows, my_words=words), name)
        return class_fingerprint(cls), users_class_fingerprint(cls)

    first = key()
    assert key() == first  # in another folder
    assert key(rows=SHOUTING.replace("class Louder", "# A comment.\nclass Louder")) == first
    others = [
        key("Louder"),
        key(rows=SHOUTING.replace('loud(row["response"])', 'loud(row["response"]) + "!"')),
        key(words=WORDS.replace("upper", "title")),
    ]
    for place in (0, 1):
        found = [one[place] for one in (first, *others)]
        assert len({*found}) == len(found)
    assert class_fingerprint(FileRows) != class_fingerprint(SFTData)


PACKAGES = {
    "from .helper import made": "helper.py",
    "from . import helper": "helper.py",
    "from .helper.deep import made": "helper/deep.py",
    "from ..helper import made": "../helper.py",
    "def late():\n    from .helper import made": "helper.py",
    "import importlib\nhelper = importlib.import_module('.helper', __package__)": "helper.py",
    "helper = __import__('my_package.inner.helper')": "helper.py",
}
"""How a module of the package `my_package.inner` imports another, and where that is."""


@pytest.mark.parametrize("line", PACKAGES)
@pytest.mark.parametrize("with_init", [True, False])
def test_what_a_package_of_the_users_imports_counts(
    line: str, with_init: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative imports too, and in packages with and without `__init__.py`; a comment there does not."""
    inner = tmp_path / "my_package" / "inner"
    helper = inner / PACKAGES[line]
    helper.parent.mkdir(parents=True, exist_ok=True)
    inner.mkdir(exist_ok=True)
    for folder in {inner.parent, inner, helper.resolve().parent} if with_init else ():
        (folder / "__init__.py").touch()
    helper.write_text("def made(text):\n    return text\n")
    source = f"from datamodules import FileRows\n{line}\nclass Mine(FileRows):\n    'Rows.'\n"
    (inner / "rows.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)

    def keys() -> list[str]:
        forget_sources()
        cls = importlib.import_module("my_package.inner.rows").Mine
        return [class_fingerprint(cls), users_class_fingerprint(cls)]

    try:
        first = keys()
        helper.write_text("# A comment.\ndef made(text):\n    return text\n")
        assert keys() == first
        helper.write_text("def made(text):\n    return text.upper()\n")
        edited = keys()
        (inner / "rows.py").write_text(f"{source}    shout = True\n")
        assert [len({*each}) for each in zip(first, edited, keys(), strict=True)] == [3, 3]
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "my_package"]:
            del sys.modules[name]


def test_a_class_without_a_file_counts_by_its_code() -> None:
    def made(source: str) -> type:
        namespace: dict[str, Any] = {"__name__": "notebook", "FileRows": FileRows}
        exec(source, namespace)
        found: type = namespace["Mine"]
        return found

    one, same, other = (
        made(f"class Mine(FileRows):\n    def rows(self):\n        yield {{'a': {value}}}\n") for value in (1, 1, 2)
    )
    for fingerprint_of in (class_fingerprint, users_class_fingerprint):
        assert fingerprint_of(one) == fingerprint_of(same) != fingerprint_of(other)


def test_rows_of_another_class_or_setting_are_other_data(
    written: Written, tokenizer_file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": f"question {i}", "response": f"answer {i}"}) for i in range(40)))

    def learned(rows: Any) -> tuple[Path, str]:
        data = SFTData(
            str(tmp_path / "data"), rows, tokenizer=str(tokenizer_file), chat_template="plain", validation_fraction=0.3
        )
        data.setup("fit")
        return data.run_stages(), data.tokenizer.decode(data.examples["train"].segments(0)[0][0].tolist())

    plain, text = learned(FileRows(str(path)))
    module = written(my_rows=SHOUTING, my_words=WORDS)
    shouting, shouted = learned(module.Shouting(str(path)))
    assert shouting != plain
    assert text != text.upper()
    assert "ANSWER" in shouted
    assert learned(module.Shouting(str(path)))[0] == shouting
    edited = written(my_rows=SHOUTING, my_words=WORDS.replace("upper", "title"))
    folders = [
        plain,
        shouting,
        learned(module.Shouting(str(path), volume=2))[0],
        learned(edited.Shouting(str(path)))[0],
    ]
    assert len({*folders}) == len(folders)

    class Own(SFTData):
        def convert(self, row: Any) -> Any:
            return super().convert(row | {"response": "the same"})

    own = Own(str(tmp_path / "data"), FileRows(str(path)), tokenizer=str(tokenizer_file), validation_fraction=0.3)
    assert own.run_stages() not in folders


STEPS = """
from datamodules.curation.filters.base import Filter, Threshold
from datamodules.readers import Files


class Mine(Files):
    def _row(self, value):
        return super()._row(value)


class Dots(Filter):
    def measures(self, text):
        return {"dots": text.length()}

    def thresholds(self):
        return {"dots": Threshold("dots", "<", 3)}
"""


def test_readers_and_filters_of_the_users_are_in_the_key_of_curation(written: Written, tmp_path: Path) -> None:
    def key(source: str = STEPS, reader: str = "Mine") -> str:
        module = written(my_steps=source)
        readers = {"Mine": module.Mine, "Files": Files}
        sources = {"web": TextSource(readers[reader](str(tmp_path)), [module.Dots()])}
        return curation_fingerprint(sources, {"web": []}, None, 0.1, 0, CurationConfig())

    keys = [
        key(),
        key(reader="Files"),
        key(STEPS.replace('"<", 3', '"<", 4')),
        key(STEPS.replace("return super()._row(value)", "return super()._row({})")),
    ]
    assert key() == keys[0]
    assert len({*keys}) == len(keys)


def test_a_recipe_follows_the_users_own_classes(written: Written) -> None:
    from commands.recipe.dependencies import sources_of

    written(my_rows=SHOUTING, my_words=WORDS)
    found = sources_of({"data.init_args.rows.class_path": "my_rows.Shouting"}, [])
    assert {"my_rows.py", "my_words.py", "datamodules/conversations/rows.py"} <= {*found}
    assert sources_of({"x.class_path": "json.JSONDecoder"}, []) == {}


OURS = re.compile(r"^\s*(?:from|import) ((?:datamodules|common)\.[\w.]+)", re.MULTILINE)
ANY = re.compile(r"^\s*(?:from|import) ([A-Za-z]\w*)", re.MULTILINE)


def files_behind(module: str) -> Iterator[Path]:
    """Source files of this project that a module imports, found by their text and not by what is under test."""
    waiting, seen = [module], set[str]()
    while waiting:
        name = waiting.pop()
        path = ROOT / f"{name.replace('.', '/')}.py"
        if name not in seen and path.is_file():
            seen.add(name)
            yield path
            waiting += OURS.findall(path.read_text())


@pytest.mark.parametrize("name", [name for name in datamodules.__all__ if not name.endswith(("Data", "Rows"))])
def test_every_library_that_a_reader_or_a_step_imports_is_in_its_key(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cls = getattr(datamodules, name)
    if not cls.__module__.startswith(("datamodules.readers.", "datamodules.curation.")):
        pytest.skip("neither reads nor changes text")
    watching = {"common.fingerprint", "common.artifacts", "common.files", "common.compute.daft_engine"}
    imports = {
        found
        for path in files_behind(cls.__module__)
        if ".".join(path.relative_to(ROOT).with_suffix("").parts) not in watching
        for found in ANY.findall(path.read_text())
    }
    owners = importlib.metadata.packages_distributions()
    libraries = {found for found in imports - NEUTRAL if found in owners and not (ROOT / found).exists()}
    before, version = class_fingerprint(cls), importlib.metadata.version

    def with_another(changed: str, of: str) -> str:
        return "0.0.0" if of == changed else version(of)

    for library in sorted(libraries):
        (distribution, *_) = owners[library]
        with monkeypatch.context() as patch:
            patch.setattr(importlib.metadata, "version", functools.partial(with_another, distribution))
            assert class_fingerprint(cls) != before, f"{name} is made by {distribution}, its version is in no key"
