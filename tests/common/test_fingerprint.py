"""Fingerprints of code: what decides a result changes its key, and nothing else does."""

import importlib.metadata
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from common import fingerprint
from datamodules.curation.config import CurationConfig, TextSource
from datamodules.curation.filters.gopher import GopherQuality
from datamodules.curation.pipeline import curation_fingerprint
from datamodules.prepare import shards_fingerprint, tokenizer_fingerprint
from datamodules.readers import Files
from datamodules.tokenization.base import TokenizerSettings
from tests.helpers.corpus import ROOT

Keys = Callable[..., SimpleNamespace]


def copy_project(folder: Path) -> Path:
    """What the keys are computed from."""
    for package in ("common", "datamodules"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture(scope="module")
def unedited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this project; its files are read once for all tests."""
    return copy_project(tmp_path_factory.mktemp("unedited"))


@pytest.fixture
def keys(unedited: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Keys:
    """Keys of the three stages of a copy of this project, where asked for after an edit of one source file."""

    def compute(file: str | None = None, old: str = "", new: str = "") -> SimpleNamespace:
        copy = unedited if file is None else copy_project(tmp_path / "edited")
        if file is not None:
            source = (copy / file).read_text(encoding="utf-8")
            assert source.count(old) >= 1
            (copy / file).write_text(source.replace(old, new, 1), encoding="utf-8")
        monkeypatch.setattr(fingerprint, "ROOT", copy)
        sources = {"web": TextSource(Files([str(unedited)]), [GopherQuality()])}
        documents = curation_fingerprint(sources, {"web": []}, None, 0.1, 0, CurationConfig())
        settings = TokenizerSettings()
        tokenizer = tokenizer_fingerprint("documents", settings)
        shards = shards_fingerprint("tokenizer", settings, [])
        return SimpleNamespace(documents=documents, tokenizer=tokenizer, shards=shards)

    return compute


def changed(before: SimpleNamespace, after: SimpleNamespace) -> set[str]:
    return {name for name, key in vars(before).items() if vars(after)[name] != key}


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        ("datamodules/curation/filters/gopher.py", "# Paragraphs are", "# A paragraph is", set()),
        ("datamodules/curation/filters/gopher.py", '"""Quality rules of', '"""The quality rules of', set()),
        ("datamodules/curation/filters/gopher.py", "dots >= 3", "dots >= 4", {"documents"}),
        ("datamodules/curation/words/split.py", "HAS_LETTER,", "HAS_LETTER, HAS_LETTER,", {"documents"}),
        ("datamodules/curation/filters/fineweb.py", "lines += 1", "lines += 2", set()),
        ("datamodules/tokenization/bpe.py", "node >>= 1", "node >>= 2", {"tokenizer", "shards"}),
        ("datamodules/tokenization/hugging_face.py", "len(token) == 6", "len(token) == 7", set()),
        ("datamodules/tokenization/training_sample.py", 'split == "train"', 'split == "all"', {"tokenizer"}),
        ("datamodules/shards/format.py", '"<u2"', '">u2"', {"shards"}),
        ("datamodules/curation/reports/explain.py", "SHOWN = 160", "SHOWN = 80", set()),
        ("datamodules/mixing/mixture.py", "BLOCK = 4096", "BLOCK = 2048", set()),
        ("datamodules/resumable.py", 'DATA_STATE = "data"', 'DATA_STATE = "position"', set()),
        ("common/artifacts.py", "checksums.json", "sums.json", set()),
        ("common/compute/hashing.py", "np.uint64(33)", "np.uint64(32)", {"documents", "tokenizer", "shards"}),
    ],
)
def test_an_edit_changes_the_keys_of_what_it_decides(keys: Keys, file: str, old: str, new: str, expected: set) -> None:
    assert changed(keys(), keys(file, old, new)) == expected


@pytest.mark.parametrize(
    ("library", "expected"),
    [
        ("daft", {"documents", "shards"}),
        ("sentencepiece", {"tokenizer", "shards"}),
        ("tokenizers", set()),
        ("torch", set()),
        ("ray", set()),
    ],
)
def test_another_version_of_a_library_changes_the_keys_of_what_it_decides(
    keys: Keys, monkeypatch: pytest.MonkeyPatch, library: str, expected: set[str]
) -> None:
    before, version = keys(), importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.0.0" if name == library else version(name))
    assert changed(before, keys()) == expected


def test_inputs_of_any_order_and_machine_have_one_fingerprint() -> None:
    assert fingerprint.fingerprint({"a": 1, "b": [None, "é"]}) == fingerprint.fingerprint({"b": [None, "é"], "a": 1})
    assert fingerprint.fingerprint({"a": 1}) == "cb37d88f474d"
    assert fingerprint.fingerprint(1, 2) != fingerprint.fingerprint([1, 2])


def test_a_prefix_of_a_name_is_a_package_and_not_a_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "ROOT", tmp_path)
    for name in ("first", "second", "second_more"):
        (tmp_path / f"{name}.py").write_text("x = 1\n")
    (tmp_path / "first.py").write_text("import second\nimport second_more\n")
    found = fingerprint.import_closure([tmp_path / "first.py"], ("second",))
    assert {path.name for path in found} == {"first.py", "second_more.py"}
