"""Atomic file writes, fsync and checksums.

A file is written under another name, synced and renamed: after a kill or a power cut it is whole or not there. The sync
costs a few milliseconds a file, which nothing here writes often enough to feel; without it a renamed file may be empty.
"""

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import xxhash

from common.errors import InputError


@contextlib.contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Atomic write: a temporary path that becomes `path` when the block ends, and is removed when the block fails.

    Args:
        path: file to write or replace; its folder exists.

    Yields:
        a hidden path beside it, `.NAME.partial`, to write to.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        sync(partial)
    except BaseException:
        # Neither a full disk nor an interrupt leaves half a file behind.
        partial.unlink(missing_ok=True)
        raise
    partial.replace(path)
    sync(path.parent)


def write_text_atomically(path: Path, text: str | Iterable[str]) -> None:
    """Atomic write of UTF-8 text, line ends as they are; makes the folder if it is missing."""
    write_bytes_atomically(path, (part.encode() for part in ([text] if isinstance(text, str) else text)))


def write_bytes_atomically(path: Path, content: bytes | Iterable[bytes]) -> None:
    """Atomic write of bytes, whole or as parts that follow each other; makes the folder if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path) as partial, partial.open("wb") as file:
        for part in [content] if isinstance(content, bytes) else content:
            file.write(part)


def append_synced(path: Path, content: bytes) -> None:
    """Append to a file and wait until it is on disk."""
    with path.open("ab") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync(path: Path) -> None:
    """fsync of a file or folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def checksum(path: Path) -> str:
    """xxh3 checksum of a file in hexadecimal, read in blocks of a mebibyte."""
    digest = xxhash.xxh3_64()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def refuse_full_disk(folder: Path) -> Iterator[None]:
    """Error handling of a full disk: one line, whatever library wrapped the system's error.

    Raises:
        InputError: when the disk is full.
    """
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None:
            full = isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT)
            if full or os.strerror(errno.ENOSPC) in str(cause):
                raise InputError(
                    f"{folder}: no space is left on the disk: free some or name another folder, then run the same "
                    "command again; finished artifacts and chunks are kept"
                ) from error
            cause = cause.__cause__ or cause.__context__
        raise
