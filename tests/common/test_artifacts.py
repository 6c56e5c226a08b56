"""Artifacts: made once, found again, whole or not there, and refused when a file of theirs is damaged."""

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filelock import FileLock

from common import artifacts
from common.artifacts import (
    artifact_files,
    build_artifact,
    make_folder,
    remove_unfinished,
    verified,
    verified_files,
    write_checksums,
)
from common.errors import InputError


def test_an_artifact_is_made_once(tmp_path: Path) -> None:
    made: list[Path] = []

    def produce(into: Path) -> None:
        made.append(into)
        (into / "file").write_text("content")

    first = build_artifact(tmp_path / "root", "shards", "abc", produce)
    assert build_artifact(tmp_path / "root", "shards", "abc", produce) == first == tmp_path / "root/shards-abc"
    assert len(made) == 1
    assert build_artifact(tmp_path / "root", "shards", "def", produce) != first
    assert len(made) == 2


@pytest.mark.parametrize("resumable", [False, True])
def test_an_interrupted_artifact_begins_again_or_continues(tmp_path: Path, resumable: bool) -> None:
    def interrupted(into: Path) -> None:
        (into / "first").write_text("1")
        raise KeyboardInterrupt

    def complete(into: Path) -> None:
        found.extend(path.name for path in into.iterdir())
        (into / "second").write_text("2")

    found: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        build_artifact(tmp_path, "shards", "abc", interrupted, resumable)
    assert not (tmp_path / "shards-abc").exists()
    made = build_artifact(tmp_path, "shards", "abc", complete, resumable)
    assert found == ["first"] * resumable
    assert sorted(path.name for path in made.iterdir()) == ["first"] * resumable + ["second"]


@pytest.mark.parametrize("resumable", [False, True])
def test_unfinished_work_with_other_settings_stays_until_it_is_deleted(
    tmp_path: Path, resumable: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in (".shards-old.partial", ".tokenizer-old.partial", ".shards-made.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "piece").write_text("work")
    with FileLock(tmp_path / ".shards-made.lock"):  # by a process of now
        build_artifact(tmp_path, "shards", "new", lambda into: None, resumable=resumable)
        said = capsys.readouterr().err
        assert ".shards-old.partial is unfinished work with other settings, `llm prepare --clean` deletes it" in said
        assert ".shards-made" not in said
        assert len(list(tmp_path.glob(".*.partial/piece"))) == 3
        removed = remove_unfinished(tmp_path)
    assert [path.name for path in removed] == [".shards-old.partial", ".tokenizer-old.partial"]
    assert [path.name for path in tmp_path.glob(".*.partial")] == [".shards-made.partial"]
    assert (tmp_path / "shards-new").is_dir()


def test_who_waits_for_another_process_says_so_and_others_do_not_wait(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = FileLock(tmp_path / ".shards-abc.lock")
    lock.acquire()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(build_artifact, tmp_path, "shards", "abc", lambda into: None)
        said = ""
        while "waiting for another process that makes" not in said and not waiting.done():
            said += capsys.readouterr().err
        assert build_artifact(tmp_path, "shards", "other", lambda into: None).is_dir()
        lock.release()
        assert waiting.result() == tmp_path / "shards-abc"
    assert f"waiting for another process that makes {tmp_path / '.shards-abc.partial'}" in said


def test_a_finished_artifact_needs_no_lock(tmp_path: Path) -> None:
    made = build_artifact(tmp_path, "shards", "abc", lambda into: None)
    before = sorted(tmp_path.iterdir())
    for path in before:
        if path.suffix == ".lock":
            path.unlink()
    with FileLock(tmp_path / ".lock"):
        assert build_artifact(tmp_path, "shards", "abc", lambda into: None) == made
    assert not list(tmp_path.glob(".*.lock"))


def test_a_full_disk_leaves_no_artifact(tmp_path: Path) -> None:
    def produce(into: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(InputError, match="no space is left on the disk"):
        build_artifact(tmp_path, "shards", "abc", produce)
    assert not list(tmp_path.glob("shards-*"))


def test_files_are_compared_with_their_checksums(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/b").write_text("content")
    (tmp_path / "a").write_text("content")
    write_checksums(tmp_path, "folder/b", "a")
    assert artifact_files(tmp_path) == ["a", "folder/b"]
    assert verified(tmp_path / "folder/b", tmp_path) == tmp_path / "folder/b"
    (tmp_path / "folder/b").write_text("contents")
    with pytest.raises(InputError, match=f"checksums.json says .* delete {tmp_path} and prepare again"):
        verified(tmp_path / "folder/b", tmp_path)
    (tmp_path / "c").write_text("content")
    with pytest.raises(InputError, match="no checksum of c can be read"):
        verified(tmp_path / "c")


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "{}", '{"a": "0"}', "\xff"])
def test_checksums_that_do_not_name_the_content_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "a").write_text("content")
    write_checksums(tmp_path, "a")
    assert verified(tmp_path / "a") == tmp_path / "a"
    (tmp_path / "checksums.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match="delete .* and prepare again"):
        verified(tmp_path / "a")


def test_checksums_are_read_once_for_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"documents/{number}" for number in range(50)]
    (tmp_path / "documents").mkdir()
    for name in names:
        (tmp_path / name).write_text(name)
    write_checksums(tmp_path, *names)
    read, original = [], artifacts._checksums
    monkeypatch.setattr(artifacts, "_checksums", lambda folder: (read.append(folder), original(folder))[1])
    assert verified_files(tmp_path, names) == [tmp_path / name for name in names]
    assert read == [tmp_path]
    (tmp_path / names[7]).write_text("other")
    with pytest.raises(InputError, match=r"documents/7: checksum .* checksums.json says"):
        verified_files(tmp_path, names)
    with pytest.raises(InputError, match="no checksum of documents/new can be read"):
        verified_files(tmp_path, ["documents/new"])


@pytest.mark.parametrize("below", ["", "data"])
def test_a_folder_that_is_a_file_is_refused(tmp_path: Path, below: str) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(InputError, match="is a file, name a folder"):
        make_folder(tmp_path / "data" / below)


def test_a_folder_that_may_not_be_written_to_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Permissions do not stop the super-user, under whom tests may run."""
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(InputError, match="may not be written to"):
        make_folder(tmp_path / "data")
