"""Downloads: files named by a URL, copied whole to this machine once.

Reading over the network on every start would spare the disk; a local copy makes a start independent of the network
and gives every run the same bytes.
"""

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
from aiohttp import ClientError
from filelock import FileLock
from fsspec.callbacks import TqdmCallback  # type: ignore[import-untyped]

from common.errors import InputError
from common.files import checksum

ATTEMPTS = 3
"""Times a copy is tried, a second and then two between them: stores say "slow down" now and then."""
FAILURES = (OSError, ClientError, ValueError, ImportError, TimeoutError)


@dataclass(frozen=True)
class RemoteFile:
    """File in a store: URL, size in bytes (0 where the store gives none) and a number of its version."""

    url: str
    size: int
    changed: int


def is_url(path: str) -> bool:
    """True if a path names a protocol, as https://, s3:// or hf:// do."""
    return "://" in path


def place(url: str, folder: Path) -> Path:
    """Path of the copy of a URL in the folder of all downloads; of a pattern, the part before its first `*`."""
    parts = urlsplit(url)
    whole = f"{parts.hostname or parts.netloc}{parts.path}"
    if "*" in whole:
        whole = whole[: whole.index("*")].rpartition("/")[0]
    return folder / Path(parts.scheme, *(part for part in whole.split("/") if part not in ("..", ".")))


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
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{kept}.lock"):
        if kept.is_file():
            return [RemoteFile(**entry) for entry in json.loads(kept.read_text(encoding="utf-8"))["files"]]
        target = place(url, folder)
        if target.is_file():  # placed there by the user
            found = [RemoteFile(url, target.stat().st_size, int(checksum(target), 16) >> 1)]
        else:
            found = _listed(url, folder)
        partial = kept.with_suffix(".partial")
        listing = {"url": shown(url), "files": [asdict(file) for file in found]}
        partial.write_text(json.dumps(listing, indent=1), encoding="utf-8")
        partial.rename(kept)
    return found


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
def copy_of(location: str, folder: Path | None) -> Iterator[str]:
    """Path of a file on this machine: itself, or its copy; without a folder the copy goes when it was read.

    Raises:
        InputError: when the file cannot be had.
    """
    if not is_url(location):
        yield location
    elif folder is not None:
        yield str(local_copy(location, folder))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            yield str(local_copy(location, Path(temporary)))


def local_copy(url: str, folder: Path) -> Path:
    """Path of a file on this machine, downloaded if it is not there; a killed download leaves nothing.

    Args:
        url: of one file, in any protocol that fsspec speaks with what is installed.
        folder: of all downloads.

    Raises:
        InputError: when the file cannot be had; a URL with a password is not repeated.
    """
    target = place(url, folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if not target.is_file():
            partial = target.with_name(f".{target.name}.partial")
            for attempt in range(ATTEMPTS):
                try:
                    _download(url, partial)
                    break
                except FAILURES as error:
                    partial.unlink(missing_ok=True)
                    lasting = isinstance(error, FileNotFoundError | PermissionError | ImportError | ValueError)
                    if lasting or attempt == ATTEMPTS - 1:
                        raise _failure(url, folder, error) from error
                    time.sleep(2**attempt)
            partial.rename(target)
    return target


def shown(url: str) -> str:
    """A URL without its password."""
    password = urlsplit(url).password
    return url if password is None else url.replace(f":{password}@", ":***@")


def _failure(url: str, folder: Path, error: Exception) -> InputError:
    reason = " ".join(str(error).split()) or type(error).__name__
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
