"""Files named by a URL: copied whole to this machine once, then read like any other.

Reading over the network on every start would spare the disk; a local copy makes a start independent of the network
and gives every run the same bytes.
"""

from pathlib import Path
from urllib.parse import urlsplit

import fsspec  # type: ignore[import-untyped]
from aiohttp import ClientError
from filelock import FileLock
from fsspec.callbacks import TqdmCallback  # type: ignore[import-untyped]

from errors import InputError


def is_url(path: str) -> bool:
    """Whether a path names a protocol, as https://, s3:// or hf:// do."""
    return "://" in path


def local_copy(url: str, folder: Path) -> Path:
    """Where a file lies on this machine, downloaded if it is not there; a killed download leaves nothing.

    Args:
        url: of one file, in any protocol that fsspec speaks with what is installed.
        folder: of all downloads.

    Raises:
        InputError: when the file cannot be had; a URL with a password is not repeated.
    """
    parts = urlsplit(url)
    name = url if parts.password is None else url.replace(f":{parts.password}@", ":***@")
    inside = Path(parts.scheme, *(part for part in f"{parts.hostname or ''}{parts.path}".split("/") if part != ".."))
    target = folder / inside
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if not target.is_file():
            partial = target.with_name(f".{target.name}.partial")
            try:
                _download(url, partial)
            except (OSError, ClientError, ValueError, ImportError, TimeoutError) as error:
                partial.unlink(missing_ok=True)
                reason = " ".join(str(error).split()) or type(error).__name__
                raise InputError(
                    f"{name} cannot be downloaded ({reason}): correct the address, or place the file at {target}"
                ) from error
            partial.rename(target)
    return target


def _download(url: str, into: Path) -> None:
    # Proxies of the environment are obeyed, as by every other tool.
    options = {"client_kwargs": {"trust_env": True}} if urlsplit(url).scheme in ("http", "https") else {}
    system, path = fsspec.core.url_to_fs(url, **options)
    expected = system.info(path).get("size")
    progress = TqdmCallback({"desc": f"downloading {into.name[1:-8]}", "unit": "B", "unit_scale": True})
    system.get_file(path, str(into), callback=progress)
    if expected is not None and into.stat().st_size != expected:
        raise OSError(f"{into.stat().st_size} bytes of {expected} came")
