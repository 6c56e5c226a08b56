"""Prepared data without its raw text: it is trained on, continued and verified from a folder that may be read-only."""

import errno
import os
import shutil
from pathlib import Path
from typing import Any, NoReturn

import pytest

from commands.data.prepare import prepare as prepare_command
from common import artifacts, content_checksums
from common.errors import InputError
from datamodules import pretraining
from datamodules.curation.config import TextSource
from datamodules.pretraining import PretrainingData
from datamodules.readers import Files
from datamodules.tokenization.base import TokenizerSettings
from tests.helpers.corpus import sentences


def data(root: Path, **others: Any) -> PretrainingData:
    settings: dict[str, Any] = {
        "sources": {"text": TextSource(Files(str(root / "texts")))},
        "tokenizer": TokenizerSettings(vocabulary_size=400),
        "sequence_length": 16,
        "near_duplicates": None,
        "validation_fraction": 0.2,
        "workers": 0,
    }
    return PretrainingData(str(root / "data"), **settings | others)


def write_raw(root: Path) -> None:
    (root / "texts").mkdir()
    for number in range(20):
        (root / f"texts/{number}.txt").write_text(sentences(number, 30))


def samples(found: PretrainingData) -> list[list[int]]:
    found.setup("fit")
    return [found.train_windows[number]["tokens"].tolist() for number in range(5)]


def test_training_continues_after_the_raw_text_was_deleted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_raw(tmp_path)
    first = data(tmp_path)
    expected, order = samples(first), first.order()
    shutil.rmtree(tmp_path / "texts")
    capsys.readouterr()
    again = data(tmp_path)
    assert (samples(again), again.order()) == (expected, order)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "raw text is not there" in line]
    assert "texts does not exist" in line
    assert "prepared from it with these settings" in line
    # An empty folder is no text either, and the documents may go too.
    (tmp_path / "texts").mkdir()
    for documents in (tmp_path / "data").glob("documents-*"):
        shutil.rmtree(documents)
    assert samples(data(tmp_path)) == expected
    for changed in ({"seed": 1}, {"validation_fraction": 0.3}, {"tokenizer": TokenizerSettings(vocabulary_size=390)}):
        with pytest.raises(InputError, match="holds no file"):
            data(tmp_path, **changed).setup("fit")
    shutil.rmtree(next((tmp_path / "data").glob("shards-*")))
    with pytest.raises(InputError, match="holds no file"):
        data(tmp_path).setup("fit")


def test_a_project_that_was_moved_without_its_raw_text_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("old", "new"):
        (tmp_path / folder).mkdir()
    write_raw(tmp_path / "old")
    monkeypatch.chdir(tmp_path / "old")
    expected = samples(data(Path()))
    shutil.copytree(tmp_path / "old/data", tmp_path / "new/data")
    monkeypatch.chdir(tmp_path / "new")
    assert samples(data(Path())) == expected


def test_the_same_shards_under_another_name_are_the_same_data(tmp_path: Path) -> None:
    write_raw(tmp_path)
    first = data(tmp_path)
    shards = first.run_stages().shards
    order = first.order()
    again = data(tmp_path)
    assert again.run_stages().shards == shards
    first.prepared = type(first.run_stages())(None, first.run_stages().tokenizer, shards.rename(tmp_path / "others"))
    assert first.order() == order


def test_what_is_finished_is_used_on_a_read_only_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_raw(tmp_path)
    expected = samples(data(tmp_path))

    def refuse(*arguments: object, **named: object) -> NoReturn:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    for module, name in ((artifacts, "FileLock"), (content_checksums, "FileLock"), (Path, "mkdir")):
        monkeypatch.setattr(module, name, refuse)
    shutil.rmtree(tmp_path / "data/.prepared")
    assert samples(data(tmp_path)) == expected


def test_one_process_of_a_node_lists_and_verifies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_raw(tmp_path)
    checked = []
    opened = pretraining.open_shards

    def watched(folder: Path, verify: bool = True) -> Any:
        checked.append(verify)
        return opened(folder, verify)

    monkeypatch.setattr(pretraining, "open_shards", watched)
    first = data(tmp_path)
    first.prepare_data()
    expected = samples(first)
    assert checked == [True, False]
    (tmp_path / "texts/new.txt").write_text("It is listed by the first process alone.")
    checked.clear()
    monkeypatch.setenv("LOCAL_RANK", "1")
    other = data(tmp_path)
    assert samples(other) == expected
    assert checked == [False]
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert data(tmp_path).run_stages().shards != first.run_stages().shards


def test_prepare_deletes_unfinished_work_when_it_is_asked_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_raw(tmp_path)
    left = tmp_path / "data/.shards-0123.partial"
    left.mkdir(parents=True)
    prepare_command(data(tmp_path))
    assert left.is_dir()
    prepare_command(data(tmp_path), clean=True)
    assert not left.exists()
    assert f"deleted: {left}" in capsys.readouterr().out
