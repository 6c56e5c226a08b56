"""Stages of preparation that are either whole on disk or not there.

A stage is a folder named after the fingerprint of everything that went into it. It is made under a temporary name
and renamed when its last byte is on disk, so a run killed anywhere trusts every finished stage. An unfinished one
starts again, unless it is made of files that are themselves whole or not there (`write_atomically`): then it continues
with those it has, which costs their names the care of saying all that went into them.

Disks and copies flip bits all the same, so a stage holds checksums of its files, compared when a file is read.
"""

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import xxhash
from filelock import FileLock
from lightning.pytorch.utilities import rank_zero_info

from common.errors import InputError

CHECKSUMS = "checksums.json"


def fingerprint(*inputs: Any) -> str:
    """Twelve hexadecimal digits of JSON-able inputs; the same inputs give the same digits on every machine."""
    text = json.dumps(inputs, sort_keys=True, ensure_ascii=True)
    return xxhash.xxh3_64_hexdigest(text.encode())[:12]


def source_fingerprint(*modules: str) -> str:
    """Fingerprint of source files of this package, given by name, so that editing a rule makes its stage anew."""
    here = Path(__file__).parents[1] / "datamodules"
    return fingerprint([(here / module).read_text(encoding="utf-8") for module in modules])


def run_stage(root: Path, name: str, key: str, produce: Callable[[Path], None], resumable: bool = False) -> Path:
    """The folder `root/name-key`, produced if it is not there.

    Args:
        root: folder of all stages of a data set.
        name: what the stage makes.
        key: its fingerprint.
        produce: fills the folder it is given, which is empty unless a resumable stage was interrupted.
        resumable: the files that an interrupted run left are given to `produce` again; it writes every file by
            `write_atomically`.

    Raises:
        InputError: when the disk is full.
    """
    final = root / f"{name}-{key}"
    root.mkdir(parents=True, exist_ok=True)
    # Two runs may prepare the same data at once: the second waits, then finds it done.
    with FileLock(root / ".lock"):
        if final.exists():
            rank_zero_info(f"{name}: reusing {final}")
            return final
        partial = root / f".{name}-{key}.partial"
        # Whatever a killed run left: the lock says nobody is making it.
        for stale in root.glob(f".{name}-*.partial"):
            if not (resumable and stale == partial):
                shutil.rmtree(stale)
        rank_zero_info(f"{name}: {'continuing' if partial.exists() else 'making'} {final}")
        with refusing_full_disk(root):
            partial.mkdir(exist_ok=True)
            produce(partial)
            for path in [*sorted(partial.rglob("*")), partial]:
                sync(path)
            partial.rename(final)
            sync(root)
    return final


@contextlib.contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """A temporary path to write to, which becomes `path` when the block ends: on disk, and whole or not there."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        sync(partial)
    except OSError:
        # A full disk: what cannot be finished makes room.
        partial.unlink(missing_ok=True)
        raise
    partial.replace(path)
    sync(path.parent)


@contextlib.contextmanager
def refusing_full_disk(folder: Path) -> Iterator[None]:
    """A full disk becomes one line; libraries wrap the system's error in their own.

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
                    "command again; finished stages and chunks are kept"
                ) from error
            cause = cause.__cause__ or cause.__context__
        raise


def checksum(path: Path) -> str:
    """xxh3 of a file, read in pieces of a mebibyte."""
    digest = xxhash.xxh3_64()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def write_checksums(folder: Path, *names: str) -> None:
    """Write the checksums of a stage's files, named relative to its folder, last of all."""
    checksums = {name: checksum(folder / name) for name in names}
    (folder / CHECKSUMS).write_text(json.dumps(checksums, indent=1), encoding="utf-8")


def checksummed(stage: Path) -> list[str]:
    """Names of the files of a finished stage, sorted.

    Raises:
        InputError: when its checksums cannot be read.
    """
    return sorted(_checksums(stage))


def verified(path: Path, stage: Path | None = None) -> Path:
    """The path of a file of a finished stage, after its content was compared with its checksum.

    Args:
        path: the file.
        stage: folder of the stage; by default the file's own folder.

    Raises:
        InputError: when the file or its checksum is missing or they do not agree.
    """
    stage = stage or path.parent
    name = path.relative_to(stage).as_posix()
    if (expected := _checksums(stage).get(name)) is None:
        raise InputError(f"{stage / CHECKSUMS}: no checksum of {name} can be read: {_remedy(stage)}")
    found = checksum(path) if path.is_file() else None
    if found != expected:
        raise InputError(f"{path}: checksum {found}, {CHECKSUMS} says {expected}: {_remedy(stage)}")
    return path


def _checksums(stage: Path) -> dict[str, str]:
    try:
        found = json.loads((stage / CHECKSUMS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{stage / CHECKSUMS} cannot be read: {_remedy(stage)}") from error
    if not isinstance(found, dict):
        raise InputError(f"{stage / CHECKSUMS} names no files: {_remedy(stage)}")
    return found


def _remedy(stage: Path) -> str:
    return f"the file is damaged, delete {stage} and prepare again"


def sync(path: Path) -> None:
    """Wait until a file or folder is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
