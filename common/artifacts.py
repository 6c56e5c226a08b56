"""Artifacts: content-addressed folders of prepared data, with a lock, checksums and resumption.

An artifact is a folder named after the fingerprint of everything that went into it. It is made under a temporary name
and renamed when its last byte is on disk, so a run killed anywhere trusts every finished artifact. An unfinished one
starts again, unless it is made of files that are themselves written atomically (`common.files`): then it continues with
those it has, and their names must say all that went into them.

Disks and copies flip bits all the same, so an artifact holds checksums of its files, compared when a file is read.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from common.console import announce
from common.errors import InputError
from common.files import checksum, refuse_full_disk, sync

CHECKSUMS = "checksums.json"
PARTIAL = ".partial"
"""End of the name of an artifact that is not finished; the lock of the process that makes it lies beside it."""


def build_artifact(root: Path, name: str, key: str, produce: Callable[[Path], None], resumable: bool = False) -> Path:
    """Artifact folder `root/name-key`, produced if it is not there.

    Args:
        root: folder of all artifacts of a data set.
        name: kind of the artifact, as `shards`.
        key: its fingerprint.
        produce: function that fills the folder it is given, empty unless a resumable artifact was interrupted.
        resumable: whether `produce` is given the files of an interrupted run again; it then writes every file by
            `write_atomically`.

    Raises:
        InputError: when the disk is full, or the root cannot be made or written to.
    """
    final = root / f"{name}-{key}"
    if final.exists():  # no lock: the folder may be read-only, and another artifact of it take hours
        announce(f"{name}: reusing {final}")
        return final
    make_folder(root)
    partial = root / f".{name}-{key}{PARTIAL}"
    # Two runs may prepare the same data at once: the other waits, then finds it done.
    with _announced_lock(partial):
        if final.exists():
            announce(f"{name}: reusing {final}")
            return final
        # Left by a killed run: this process holds the lock, so no other is writing it.
        if partial.exists() and not resumable:
            shutil.rmtree(partial)
        for other in root.glob(f".{name}-*{PARTIAL}"):
            if other != partial and not _is_locked(other):
                announce(f"{name}: {other} is unfinished work with other settings, `llm prepare --clean` deletes it")
        announce(f"{name}: {'continuing' if partial.exists() else 'making'} {final}")
        with refuse_full_disk(root):
            partial.mkdir(exist_ok=True)
            produce(partial)
            for path in [*sorted(partial.rglob("*")), partial]:
                sync(path)
            partial.rename(final)
            sync(root)
    return final


def make_folder(root: Path) -> None:
    """Folder of artifacts, made where it is missing.

    Raises:
        InputError: when it or a folder above it is a file, or may not be written to.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{root}: it or what is above it is a file, name a folder") from error
    except OSError as error:
        raise InputError(f"{root}: {error.strerror}, name a folder that can be written to") from error
    if not os.access(root, os.W_OK | os.X_OK):
        raise InputError(f"{root}: may not be written to, name another folder or change its permissions")


def remove_unfinished(root: Path) -> list[Path]:
    """Delete the unfinished artifacts of a folder that no process is making; returns which.

    They are left by runs that were stopped, and kept for as long as those may be continued with the same settings.
    """
    removed = []
    for partial in sorted(root.glob(f".*-*{PARTIAL}")):
        lock = FileLock(_lock_of(partial))
        with contextlib.suppress(Timeout), lock.acquire(timeout=0):
            shutil.rmtree(partial)
            removed.append(partial)
    return removed


def _lock_of(partial: Path) -> Path:
    return partial.with_suffix(".lock")


def _is_locked(partial: Path) -> bool:
    """Whether a process is making an artifact now."""
    try:
        with FileLock(_lock_of(partial)).acquire(timeout=0):
            return False
    except Timeout:
        return True


@contextlib.contextmanager
def _announced_lock(partial: Path) -> Iterator[None]:
    """The lock of one artifact; who waits for it says so, because it may take hours."""
    lock = FileLock(_lock_of(partial))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        announce(f"waiting for another process that makes {partial}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def write_checksums(folder: Path, *names: str) -> None:
    """Write the checksums of an artifact's files, named relative to its folder, last of all."""
    checksums = {name: checksum(folder / name) for name in names}
    (folder / CHECKSUMS).write_text(json.dumps(checksums, indent=1), encoding="utf-8")


def artifact_files(artifact: Path) -> list[str]:
    """Names of the files of a finished artifact, sorted.

    Raises:
        InputError: when its checksums cannot be read.
    """
    return sorted(_checksums(artifact))


def verified(path: Path, artifact: Path | None = None) -> Path:
    """The path of a file of a finished artifact, after its content was compared with its checksum.

    Args:
        path: the file.
        artifact: folder of the artifact; by default the file's own folder.

    Raises:
        InputError: when the file or its checksum is missing or they do not agree.
    """
    artifact = artifact or path.parent
    (found,) = verified_files(artifact, [path.relative_to(artifact).as_posix()])
    return found


def verified_files(artifact: Path, names: Iterable[str]) -> list[Path]:
    """Paths of files of a finished artifact as `verified` gives each; the checksums are read once for all of them.

    Args:
        artifact: folder of the artifact.
        names: names of its files, with slashes.

    Raises:
        InputError: when a file or its checksum is missing or they do not agree.
    """
    checksums = _checksums(artifact)
    paths = []
    for name in names:
        path = artifact / name
        if (expected := checksums.get(name)) is None:
            raise InputError(f"{artifact / CHECKSUMS}: no checksum of {name} can be read: {_remedy(artifact)}")
        found = checksum(path) if path.is_file() else None
        if found != expected:
            raise InputError(f"{path}: checksum {found}, {CHECKSUMS} says {expected}: {_remedy(artifact)}")
        paths.append(path)
    return paths


def _checksums(artifact: Path) -> dict[str, str]:
    try:
        found = json.loads((artifact / CHECKSUMS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{artifact / CHECKSUMS} cannot be read: {_remedy(artifact)}") from error
    if not isinstance(found, dict):
        raise InputError(f"{artifact / CHECKSUMS} names no files: {_remedy(artifact)}")
    return found


def _remedy(artifact: Path) -> str:
    return f"the file is damaged, delete {artifact} and prepare again"
