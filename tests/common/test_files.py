"""Files are whole or not there: after a failed block, a full disk and a kill."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import xxhash
from safetensors import SafetensorError

from common.errors import InputError
from common.files import (
    append_synced,
    checksum,
    refuse_failed_save,
    refuse_full_disk,
    write_atomically,
    write_text_atomically,
)
from tests.helpers.corpus import ROOT

KILLED = """
import os, signal, sys
from pathlib import Path
from common.files import write_atomically
with write_atomically(Path(sys.argv[1])) as partial, partial.open("wb") as file:
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("before", [None, "old"])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError(errno.ENOSPC, "No space left on device")])
def test_a_block_that_fails_leaves_the_folder_as_it_was(
    tmp_path: Path, before: str | None, error: type[BaseException] | BaseException
) -> None:
    path = tmp_path / "file"
    if before is not None:
        path.write_text(before)

    def write() -> None:
        with write_atomically(path) as partial:
            partial.write_text("half")
            raise error

    with pytest.raises(error if isinstance(error, type) else type(error)):
        write()
    left = [(found.name, found.read_text()) for found in tmp_path.iterdir()]
    assert left == ([] if before is None else [("file", before)])


def test_a_kill_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    # The half of a file that a kill leaves is hidden, and replaced by the next write.
    assert [found.name for found in tmp_path.iterdir() if not found.name.startswith(".")] == ["file"]
    write_text_atomically(path, "new")
    assert [(found.name, found.read_text()) for found in tmp_path.iterdir()] == [("file", "new")]


def test_a_file_is_on_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (calls.append("sync"), fsync(descriptor))[1])
    monkeypatch.setattr(Path, "replace", lambda path, to: (calls.append("rename"), replace(path, to))[1])
    write_text_atomically(tmp_path / "folder/file", ["a\r\n", "é"])
    assert calls == ["sync", "rename", "sync"]
    assert (tmp_path / "folder/file").read_bytes() == "a\r\né".encode()


def test_appending_adds_to_the_end(tmp_path: Path) -> None:
    append_synced(tmp_path / "log", b"one\n")
    append_synced(tmp_path / "log", b"two\n")
    assert (tmp_path / "log").read_bytes() == b"one\ntwo\n"


@pytest.mark.parametrize("size", [0, 1, 2**20, 2**20 + 1])
def test_a_checksum_is_that_of_the_whole_content(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    (tmp_path / "file").write_bytes(content)
    assert checksum(tmp_path / "file") == xxhash.xxh3_64_hexdigest(content)


def full_disk() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def wrapped() -> Exception:
    """As Daft and Arrow pass it on: another exception that quotes the system's."""
    error = RuntimeError("External error")
    error.__cause__ = ValueError(f"IO error: {os.strerror(errno.ENOSPC)} (os error 28)")
    return error


@pytest.mark.parametrize("error", [full_disk(), wrapped()])
def test_a_full_disk_is_one_line(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(InputError, match="no space is left on the disk") as raised, refuse_full_disk(tmp_path):
        raise error
    assert "\n" not in str(raised.value)


RUST = "Error while serializing: I/O error: {} (os error {})"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (SafetensorError(RUST.format(os.strerror(errno.ENOSPC), errno.ENOSPC)), "no space is left on the disk"),
        (Exception(f"{os.strerror(errno.EACCES)} (os error {errno.EACCES})"), os.strerror(errno.EACCES)),
        (PermissionError(errno.EACCES, "denied"), "denied"),
        (RuntimeError("PytorchStreamWriter failed writing file"), "PytorchStreamWriter"),
    ],
)
def test_a_save_that_fails_is_one_line_whichever_library_writes(error: Exception, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written") as raised, refuse_failed_save(tmp_path / "a" / "b"):
        raise error
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
    with pytest.raises(RuntimeError, match="shape"), refuse_failed_save(tmp_path):
        raise RuntimeError("shape")


def test_other_errors_pass_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), refuse_full_disk(tmp_path):
        raise PermissionError(errno.EACCES, "denied")


def test_names_that_were_not_decoded_are_written_as_their_bytes(tmp_path: Path) -> None:
    """As `LC_ALL=C` without UTF-8 mode gives them: a report names the run's folder."""
    name = "é".encode().decode("ascii", "surrogateescape")
    write_text_atomically(tmp_path / "page.html", f"runs/{name} é")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == "runs/é é"
