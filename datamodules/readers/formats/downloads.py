"""Downloads: files named by a URL, copied whole to this machine once.

Reading over the network on every start would spare the disk; a local copy makes a start independent of the network
and gives every run the same bytes.
"""

import errno
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fsspec  # type: ignore[import-untyped]
import xxhash
from aiohttp import ClientError, ClientResponseError
from filelock import FileLock
from fsspec.callbacks import TqdmCallback  # type: ignore[import-untyped]

from common.console import announce
from common.errors import InputError
from common.files import checksum, is_full_disk, sync, write_text_atomically
from datamodules.readers.formats.remote_names import is_url, place, shown, without_secrets

MINUTES = "LLM_DOWNLOAD_MINUTES"
"""Environment variable: how long a copy that fails is tried again, 10 by default. Stores say "slow down" for minutes,
and one file of many thousands must not end a run."""
MAX_WAIT = 60.0
"""Seconds between two attempts at most; it begins with one and doubles."""
FAILURES = (OSError, ClientError, ValueError, ImportError, TimeoutError)


@dataclass(frozen=True)
class RemoteFile:
    """File in a store: URL, size in bytes (0 where the store gives none) and a number of its version."""

    url: str
    size: int
    changed: int


def remote_files(url: str, folder: Path | None) -> list[RemoteFile]:
    """The file of a URL, or the files below it if it is a folder or holds `*`, by name.

    Args:
        url: in any protocol that fsspec speaks with what is installed.
        folder: of all downloads, where the listing is kept, so that every later start sees the same files; a listing
            deleted there is made again. None keeps none.

    Raises:
        InputError: when it cannot be listed.
    """
    if folder is None:
        return _listed(url, Path("data/downloads"))
    kept = folder / f".{xxhash.xxh3_64_hexdigest(url.encode())}.listing.json"
    if kept.is_file():  # no lock: the folder may be read-only
        return _kept(kept)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{kept}.lock"):
        if kept.is_file():
            return _kept(kept)
        target = place(url, folder)
        if target.is_file() and _noted(target) is None:  # placed there by the user
            found = [RemoteFile(url, target.stat().st_size, int(checksum(target), 16) >> 1)]
        else:
            found = _listed(url, folder)
        listing = {"url": shown(url), "files": [asdict(file) for file in found]}
        write_text_atomically(kept, json.dumps(listing, indent=1))
    return found


def _kept(listing: Path) -> list[RemoteFile]:
    try:
        return [RemoteFile(**entry) for entry in json.loads(listing.read_text(encoding="utf-8"))["files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"listing {listing} is damaged: delete it, it is made again") from error


def _listed(url: str, folder: Path) -> list[RemoteFile]:
    try:
        system, path = _system(url)
        scheme = url.partition("://")[0]
        if "*" in path:
            found = system.glob(path, detail=True)
        elif (information := system.info(path))["type"] == "directory":
            found = system.find(path, detail=True)
        else:
            return [RemoteFile(url, information.get("size") or 0, _version(information))]
    except FAILURES as error:
        raise _failure(url, folder, error) from error
    files = [entry for entry in found.values() if entry["type"] == "file"]
    return [
        # Systems name files with or without their protocol.
        RemoteFile(
            entry["name"] if is_url(entry["name"]) else f"{scheme}://{entry['name'].lstrip('/')}",
            entry.get("size") or 0,
            _version(entry),
        )
        for entry in sorted(files, key=lambda entry: str(entry["name"]))
    ]


def _version(information: dict[str, Any]) -> int:
    """Version number of a file, from whichever of these facts the store gives; 0 for none."""
    for key in ("ETag", "etag", "blob_id", "md5Hash", "LastModified", "updated", "mtime", "created"):
        if (value := information.get(key)) is not None:
            text = value.isoformat() if isinstance(value, datetime) else str(value)
            return xxhash.xxh3_64_intdigest(text.encode()) >> 1  # fits a signed integer
    return 0


@contextmanager
def copy_of(location: str, folder: Path | None, size: int = 0, version: str = "") -> Iterator[str]:
    """Path of a file on this machine: itself, or its copy; without a folder the copy goes when it was read.

    Args:
        location: path or URL.
        folder: of all downloads, or None.
        size: see `local_copy`.
        version: see `local_copy`.

    Raises:
        InputError: when the file cannot be had.
    """
    if not is_url(location):
        yield location
    elif folder is not None:
        yield str(local_copy(location, folder, size, version))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            yield str(local_copy(location, Path(temporary), size, version))


def local_copy(url: str, folder: Path, size: int = 0, version: str = "") -> Path:
    """Path of a file on this machine, downloaded if it is not there; a killed download leaves nothing.

    A copy of another size than the listing's, or of another version than when it was copied, is copied again. What the
    user placed there has no version.

    Args:
        url: of one file, in any protocol that fsspec speaks with what is installed.
        folder: of all downloads.
        size: bytes by the listing; 0 for unknown.
        version: by the listing; empty or 0 for unknown.

    Raises:
        InputError: when the file cannot be had, or is no longer the one that was listed; a URL's password and
            signature are not repeated.
    """
    target = place(url, folder)
    version = "" if version == "0" else version
    if _is_current(target, size, version):  # no lock: the folder may be read-only
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if not _is_current(target, size, version):
                _copy(url, folder, target, size, version)
    except OSError as error:
        raise _failure(url, folder, error) from error
    return target


def _is_current(target: Path, size: int, version: str) -> bool:
    if not target.is_file() or (size and target.stat().st_size != size):
        return False
    noted = _noted(target)
    return noted is None or not version or noted == version


def _noted(target: Path) -> str | None:
    """Version of a copy when it was made; None for what the user placed there."""
    note = _note(target)
    return note.read_text(encoding="utf-8") if note.is_file() else None


def _note(target: Path) -> Path:
    return target.with_name(f".{target.name}.version")


def _copy(url: str, folder: Path, target: Path, size: int, version: str) -> None:
    """Download a file whole, again and again for as long as `MINUTES` says."""
    partial = target.with_name(f".{target.name}.partial")
    until, wait = time.monotonic() + 60 * _minutes(), 1.0
    while True:
        try:
            _download(url, partial)
            break
        except FAILURES as error:
            partial.unlink(missing_ok=True)
            if _is_lasting(error) or time.monotonic() + wait > until:
                raise _failure(url, folder, error) from error
            announce(f"{shown(url)}: {without_secrets(str(error)) or type(error).__name__}, again in {wait:.0f} s")
            time.sleep(wait)
            wait = min(2 * wait, MAX_WAIT)
    if size and partial.stat().st_size != size:
        came = partial.stat().st_size
        partial.unlink()
        raise InputError(
            f"{shown(url)} has {came} bytes, {size} when it was listed: it changed, delete the listings "
            f"(.*.listing.json) in {folder}"
        )
    sync(partial)
    # The note first: a copy without one would count as the user's own.
    write_text_atomically(_note(target), version)
    partial.replace(target)
    sync(target.parent)


def _minutes() -> float:
    given = os.environ.get(MINUTES, "10")
    try:
        return float(given)
    except ValueError as error:
        raise InputError(f"{MINUTES}={given}: must be a number of minutes") from error


def _is_lasting(error: Exception) -> bool:
    """Whether an attempt later fails alike: what is not there or not allowed, and a disk that takes no file."""
    if isinstance(error, ClientResponseError):
        return 400 <= error.status < 500 and error.status not in (408, 425, 429)
    if isinstance(error, FileNotFoundError | PermissionError | ImportError | ValueError) or is_full_disk(error):
        return True
    return isinstance(error, OSError) and error.errno in (errno.EROFS, errno.ENAMETOOLONG, errno.ENOTDIR)


def _failure(url: str, folder: Path, error: Exception) -> InputError:
    if is_full_disk(error):
        return InputError(f"{folder}: no space is left on the disk for {shown(url)}: free some or name another folder")
    reason = without_secrets(str(error)) or type(error).__name__
    return InputError(
        f"{shown(url)} cannot be downloaded ({reason}): correct the address, or place the file at {place(url, folder)}"
    )


def _system(url: str) -> tuple[Any, str]:
    # Proxies of the environment are obeyed, as by every other tool.
    options = {"client_kwargs": {"trust_env": True}} if urlsplit(url).scheme in ("http", "https") else {}
    system, path = fsspec.core.url_to_fs(url, **options)
    return system, str(path)


def _download(url: str, into: Path) -> None:
    system, path = _system(url)
    expected = system.info(path).get("size")
    progress = TqdmCallback({"desc": f"downloading {into.name[1:-8]}", "unit": "B", "unit_scale": True})
    system.get_file(path, str(into), callback=progress)
    if expected is not None and os.path.getsize(into) != expected:
        raise OSError(f"{os.path.getsize(into)} bytes of {expected} came")
