"""Checksums of contents, and the cache that spares reading a file again."""

import os
from pathlib import Path

import pytest

from common import content_checksums as module
from common.content_checksums import CACHE, UNREADABLE, checksum_cache, content_checksums
from common.files import checksum
from datamodules.conversations.rows import listed
from datamodules.readers.base import with_contents
from datamodules.readers.files import Files


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are read; all of them may be kept at once."""
    names: list[str] = []

    def counted(path: Path) -> str:
        names.append(path.name)
        return checksum(path)

    monkeypatch.setattr(module, "checksum", counted)
    monkeypatch.setattr(module, "SETTLED_NS", -(10**12))
    return names


def test_a_file_is_read_again_only_when_it_changed(tmp_path: Path, read: list[str]) -> None:
    paths = [tmp_path / f"{name}\udcff.txt" for name in "abc"]
    for path in paths:
        path.write_text("one")
    expected = {str(path): checksum(path) for path in paths}
    for _ in range(2):
        with checksum_cache(tmp_path / "data"):
            assert content_checksums(map(str, paths)) == expected
    assert len(read) == 3
    status = paths[1].stat()
    paths[1].write_text("two")
    # Of equal size, and with its time set back, as `cp -p` and `rsync -t` do.
    os.utime(paths[1], ns=(status.st_atime_ns, status.st_mtime_ns))
    with checksum_cache(tmp_path / "data"):
        found = content_checksums(map(str, paths))
    assert found == expected | {str(paths[1]): checksum(paths[1])}
    assert read[3:] == [paths[1].name]
    content_checksums(map(str, paths))
    assert len(read) == 7


def test_a_damaged_or_missing_cache_costs_a_reading(tmp_path: Path, read: list[str]) -> None:
    path, cache = tmp_path / "a.txt", tmp_path / "data" / CACHE
    path.write_text("one")
    for number, damage in enumerate((None, b'["half', b"[1]\n7\n{}\n\xff", None), start=1):
        if damage is not None:
            cache.write_bytes(damage)
        elif cache.exists():
            cache.unlink()
        with checksum_cache(cache.parent):
            assert content_checksums([str(path)]) == {str(path): checksum(path)}
            assert content_checksums([str(path)]) == {str(path): checksum(path)}
        assert len(read) == number


def test_a_file_that_changed_just_now_is_not_kept(
    tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SETTLED_NS", 10**12)
    path = tmp_path / "a.txt"
    path.write_text("one")
    for _ in range(2):
        with checksum_cache(tmp_path / "data"):
            content_checksums([str(path)])
    assert len(read) == 2


def test_a_file_that_is_gone_and_a_folder_that_cannot_be_written_stop_nothing(tmp_path: Path, read: list[str]) -> None:
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "a.txt").write_text("one")
    with checksum_cache(tmp_path / "file"):
        found = content_checksums([str(tmp_path / "a.txt"), str(tmp_path / "gone")])
    assert found == {str(tmp_path / "a.txt"): checksum(tmp_path / "a.txt"), str(tmp_path / "gone"): UNREADABLE}


def test_a_cache_of_many_old_lines_is_written_again(
    tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH", 2)
    path, cache = tmp_path / "a.txt", tmp_path / "data" / CACHE
    for number in range(8):
        path.write_text(str(number))
        with checksum_cache(cache.parent):
            content_checksums([str(path)])
    assert len(cache.read_bytes().splitlines()) < 8
    assert len(read) == 8


def test_the_cache_is_read_once_for_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Identities of known files are asked for one by one: 30,000 files read a file of 30,000 lines each time."""
    for number in range(20):
        (tmp_path / f"{number}.txt").write_text(str(number))
    reads: list[Path] = []
    entries = module._entries

    def counted(cache: Path) -> dict[str, tuple[module.State, str]]:
        reads.append(cache)
        return entries(cache)

    monkeypatch.setattr(module, "_entries", counted)
    with checksum_cache(tmp_path / "data"):
        known = with_contents(Files([str(tmp_path)]).files())
        before = len(reads)
        assert len({str(file.identity) for file in known}) == 20
        assert listed(Files([str(tmp_path)])) == [file.identity for file in known]
    assert (before, len(reads)) == (2, 4)  # once without and once with the lock, for all files together
