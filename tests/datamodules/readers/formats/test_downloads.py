"""Files in a store: listed once, copied once, read like any other."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

import datamodules.readers.formats.downloads
from common.errors import InputError
from datamodules.readers import CodeFiles, Files
from datamodules.readers.formats.downloads import place, remote_files
from tests.helpers.reading import MIT, outcomes


@pytest.fixture
def store() -> Iterator[str]:
    """Address of a folder in a store with three files and something else."""
    system = fsspec.filesystem("memory")
    folder = f"/{uuid.uuid4()}"
    for name in ("a/1.txt", "a/2.txt", "b/3.txt", "b/4.bin"):
        system.pipe(f"{folder}/{name}", name.encode())
    yield f"memory:/{folder}"
    system.rm(folder, recursive=True)


def test_folders_and_patterns_are_listed(tmp_path: Path, store: str) -> None:
    downloads = str(tmp_path / "d")
    assert outcomes(Files([store], downloads=downloads)) == ["a/1.txt", "a/2.txt", "b/3.txt"]
    assert outcomes(Files([f"{store}/*/[13].txt"], downloads=downloads)) == ["a/1.txt", "b/3.txt"]
    assert outcomes(Files([f"{store}/a/2.txt"], downloads=downloads)) == ["a/2.txt"]
    (file,) = Files([f"{store}/a/2.txt"], downloads=downloads).files()
    assert (file.name, file.size) == ("2.txt", 7)
    names = [file.name for file in Files([f"{store}/a", f"{store}/b"], downloads=downloads).files()]
    assert sorted(names) == ["a/1.txt", "a/2.txt", "b/3.txt"]
    with pytest.raises(InputError, match="holds no file ending in"):
        Files([f"{store}/b/*.bin"], downloads=downloads).files()


def test_the_second_start_sees_the_same_files_without_the_store(tmp_path: Path, store: str) -> None:
    reader = Files([store], downloads=str(tmp_path))
    before = reader.files()
    assert not list(tmp_path.rglob("*.txt"))  # nothing is copied to be listed
    assert outcomes(reader) == ["a/1.txt", "a/2.txt", "b/3.txt"]
    system = fsspec.filesystem("memory")
    system.pipe(f"{store.removeprefix('memory:/')}/a/5.txt", b"new")
    system.rm(f"{store.removeprefix('memory:/')}/a/1.txt")
    assert reader.files() == before
    assert outcomes(reader) == ["a/1.txt", "a/2.txt", "b/3.txt"]
    for listing in tmp_path.glob(".*.listing.json"):
        listing.unlink()
    assert reader.files() != before


def test_without_a_folder_no_copy_is_kept(tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert outcomes(Files([store], downloads=None)) == ["a/1.txt", "a/2.txt", "b/3.txt"]
    assert not list(tmp_path.iterdir())


def test_a_store_that_fails_is_asked_again(tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = []
    download = datamodules.readers.formats.downloads._download

    def fails_once(url: str, into: Path) -> None:
        attempts.append(url)
        if len(attempts) % 2:
            raise OSError("slow down")
        download(url, into)

    monkeypatch.setattr(datamodules.readers.formats.downloads, "_download", fails_once)
    monkeypatch.setattr(datamodules.readers.formats.downloads.time, "sleep", lambda seconds: None)
    assert outcomes(Files([f"{store}/a"], downloads=str(tmp_path))) == ["a/1.txt", "a/2.txt"]
    assert len(attempts) == 4

    def fails(url: str, into: Path) -> None:
        raise OSError("slow down")

    monkeypatch.setattr(datamodules.readers.formats.downloads, "_download", fails)
    with pytest.raises(InputError, match="cannot be downloaded \\(slow down\\)"):
        outcomes(Files([f"{store}/b"], downloads=str(tmp_path)))


def test_a_tree_of_code_is_copied_with_its_licenses(tmp_path: Path) -> None:
    system, folder = fsspec.filesystem("memory"), f"/{uuid.uuid4()}"
    system.pipe(f"{folder}/r/LICENSE", MIT.encode())
    system.pipe(f"{folder}/r/src/a.py", b"x = 1\n")
    assert outcomes(CodeFiles([f"memory:/{folder}"], downloads=str(tmp_path))) == ["x = 1\n"]


def test_no_address_leads_out_of_the_folder_of_downloads(tmp_path: Path) -> None:
    for url in ("https://host/../../etc/passwd", "s3://bucket/a/../../../b", "https://user:secret@host/x"):
        assert place(url, tmp_path).is_relative_to(tmp_path)
        assert ".." not in place(url, tmp_path).parts
        assert "secret" not in str(place(url, tmp_path))
    assert place("s3://bucket/a/*/b.gz", tmp_path) == tmp_path / "s3/bucket/a"


def test_a_protocol_that_is_not_installed_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be downloaded") as error:
        remote_files("no-such://x/y", tmp_path)
    assert "\n" not in str(error.value)
