"""Files in a store: listed once, copied once, read like any other."""

import errno
import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

import datamodules.readers.formats.downloads
from common.errors import InputError
from datamodules.readers import CodeFiles, Files
from datamodules.readers.formats.downloads import local_copy, remote_files
from datamodules.readers.formats.remote_names import place, shown
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
    monkeypatch.setenv("LLM_DOWNLOAD_MINUTES", "0.01")
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


def test_addresses_that_differ_have_places_that_differ(tmp_path: Path) -> None:
    urls = [
        "http://x/get?id=1", "http://x/get?id=2", "http://x/get", "http://x:8080/get", "https://x/get", "s3://B/a//b",
        "s3://B/a/b", "s3://b/a/b", "s3://B/a/b#1", "s3://B/a/b#2", "http://x/" + "a" * 300, "http://x/" + "a" * 299,
        "http://x/get?1", "http://x/get?2",
    ]  # fmt: skip
    places = [place(url, tmp_path) for url in urls]
    assert len(set(places)) == len(urls)
    assert place("http://X:80/get", tmp_path) == place("http://x/get", tmp_path)
    # What ends the name says what the file is, whatever is behind it or how long it is.
    assert place("https://x/a.jsonl.gz?id=1", tmp_path).name == "a.jsonl.gz"
    assert place("https://x/" + "é" * 300 + ".jsonl.gz", tmp_path).name.endswith(".jsonl.gz")
    assert all(len(part.encode()) < 220 for url in urls for part in place(url, tmp_path).parts)
    first = place("https://x/a?id=1&X-Amz-Signature=aa&X-Amz-Date=1", tmp_path)
    assert first == place("https://x/a?id=1&X-Amz-Signature=bb&X-Amz-Date=2", tmp_path)  # signed again
    assert first != place("https://x/a?id=2&X-Amz-Signature=aa&X-Amz-Date=1", tmp_path)


def test_no_message_repeats_a_password_or_a_signature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "https://me:PASS@host/a.jsonl?id=7&X-Amz-Signature=SIGN&api_key=KEY&token=TOKEN"
    assert shown(url) == "https://me:***@host/a.jsonl?id=7&X-Amz-Signature=***&api_key=***&token=***"
    assert shown("https://TOKEN@host/a") == "https://***@host/a"
    assert shown("text/a?token=1") == "text/a?token=1"

    def fails(url: str, into: Path) -> None:
        raise FileNotFoundError(f"404, url='{url}'")

    monkeypatch.setattr(datamodules.readers.formats.downloads, "_download", fails)
    with pytest.raises(InputError, match="cannot be downloaded") as error:
        local_copy(url, tmp_path)
    monkeypatch.setattr(datamodules.readers.paths, "remote_files", lambda *arguments: [])
    with pytest.raises(InputError, match="holds no file") as other:
        Files([url], downloads=str(tmp_path)).files()
    for message in (str(error.value), str(other.value)):
        assert not any(secret in message for secret in ("PASS", "SIGN", "KEY", "TOKEN"))


def test_a_file_that_changed_is_copied_again_when_its_listing_is(tmp_path: Path) -> None:
    system, path = fsspec.filesystem("memory"), f"/{uuid.uuid4()}/a.txt"
    system.pipe(path, b"old")
    reader = Files([f"memory:/{path}"], downloads=str(tmp_path))
    assert outcomes(reader) == ["old"]
    before = reader.files()
    system.pipe(path, b"new")  # of the same size
    assert (outcomes(reader), reader.files()) == (["old"], before)
    for listing in tmp_path.glob(".*.listing.json"):
        listing.unlink()
    assert reader.files() != before
    assert outcomes(reader) == ["new"]


def test_a_short_copy_is_made_again_and_a_changed_file_is_refused(tmp_path: Path) -> None:
    system, path = fsspec.filesystem("memory"), f"/{uuid.uuid4()}/a.txt"
    system.pipe(path, b"whole text")
    reader = Files([f"memory:/{path}"], downloads=str(tmp_path))
    reader.files()
    copy = place(f"memory:/{path}", tmp_path)
    copy.parent.mkdir(parents=True)
    copy.write_bytes(b"whole")  # a crash before its bytes were on disk
    assert outcomes(reader) == ["whole text"]
    copy.unlink()
    system.pipe(path, b"another text")
    with pytest.raises(InputError, match="has 12 bytes, 10 when it was listed: it changed, delete the listings"):
        outcomes(reader)


def test_what_the_user_placed_is_read_and_copies_need_no_lock(tmp_path: Path) -> None:
    url = "http://127.0.0.1:1/a.txt"
    copy = place(url, tmp_path)
    copy.parent.mkdir(parents=True)
    copy.write_text("placed")
    reader = Files([url], downloads=str(tmp_path))
    assert outcomes(reader) == ["placed"]
    for lock in tmp_path.rglob("*.lock"):
        lock.unlink()
    assert outcomes(reader) == ["placed"]
    assert not list(tmp_path.rglob("*.lock"))
    (listing,) = tmp_path.glob(".*.listing.json")
    listing.write_text("{")
    with pytest.raises(InputError, match="is damaged: delete it"):
        reader.files()


def test_a_full_disk_and_a_refusal_are_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for error, message in (
        (OSError(errno.ENOSPC, "No space left on device"), "no space is left on the disk"),
        (PermissionError("forbidden"), "forbidden"),
    ):
        tried = []

        def fails(url: str, into: Path, error: OSError = error, tried: list[str] = tried) -> None:
            tried.append(url)
            raise error

        monkeypatch.setattr(datamodules.readers.formats.downloads, "_download", fails)
        with pytest.raises(InputError, match=message):
            local_copy("http://host/a.txt", tmp_path)
        assert len(tried) == 1


def test_a_protocol_that_is_not_installed_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be downloaded") as error:
        remote_files("no-such://x/y", tmp_path)
    assert "\n" not in str(error.value)
