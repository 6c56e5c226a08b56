"""Atomic file writes, fsync and checksums.

A file is written under another name, synced and renamed: after a kill or a power cut it is whole or not there. The sync
costs a few milliseconds per file, which nothing here writes often enough to feel; without it a renamed file may be
empty.
"""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import xxhash

from common.errors import InputError

TORCH_WRITER = ("inline_container", "PytorchStreamWriter", "iostream error")
"""Words of the errors of `torch.save`; the system's reason is not among them."""
RUST_ERROR = "(os error "
"""Words of the system's errors in those of libraries in Rust, such as safetensors and tokenizers."""
FULL_BYTES = 2**20
"""A disk with less free is full: what did not fit has been removed, or is a file of at least this size."""


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
    """Atomic write of UTF-8 text, line ends as they are; makes the folder if it is missing.

    Names of files that Python could not decode (any beyond ASCII with `LC_ALL=C`) are written as the bytes they are.
    """
    parts = [text] if isinstance(text, str) else text
    write_bytes_atomically(path, (part.encode("utf-8", "surrogateescape") for part in parts))


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
        if not is_full_disk(error):
            raise
        raise InputError(
            f"{folder}: no space is left on the disk: free some or name another folder, then run the same "
            "command again; finished artifacts and chunks are kept"
        ) from error


def is_full_disk(error: BaseException | None) -> bool:
    """Whether an error, or one behind it, is the system's about a full disk or an exhausted quota."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if os.strerror(errno.ENOSPC) in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextlib.contextmanager
def refuse_failed_save(path: Path) -> Iterator[None]:
    """Error handling of a checkpoint that cannot be written: one line with the system's reason.

    Args:
        path: of the checkpoint, whose folder may be missing.

    Raises:
        InputError: for an error of the system, also one that PyTorch's writer or safetensors' hides.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if not isinstance(error, OSError) and not any(word in str(error) for word in (*TORCH_WRITER, RUST_ERROR)):
            raise
        place = next(parent for parent in path.absolute().parents if parent.is_dir())
        if is_full_disk(error) or shutil.disk_usage(place).free < FULL_BYTES:
            reason = "no space is left on the disk"
        else:
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error).splitlines()[0]
        raise InputError(
            f"{path} cannot be written ({reason}): make room or name another folder, then run the same command again; "
            "what was saved before is whole"
        ) from error
