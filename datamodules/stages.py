"""Stages of preparation that are either whole on disk or not there.

A stage is a folder named after the fingerprint of everything that went into it. It is made under a temporary name
and renamed when its last byte is on disk, so a run killed anywhere starts the unfinished stage again and trusts
every finished one. Resuming inside a stage would save minutes and cost this one simple rule.

Disks and copies flip bits all the same, so a stage holds checksums of its files, compared when a file is read.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import xxhash
from filelock import FileLock
from lightning.pytorch.utilities import rank_zero_info

from errors import InputError

CHECKSUMS = "checksums.json"


def fingerprint(*inputs: Any) -> str:
    """Twelve hexadecimal digits of JSON-able inputs; the same inputs give the same digits on every machine."""
    text = json.dumps(inputs, sort_keys=True, ensure_ascii=True)
    return xxhash.xxh3_64_hexdigest(text.encode())[:12]


def source_fingerprint(*modules: str) -> str:
    """Fingerprint of source files of this package, given by name, so that editing a rule makes its stage anew."""
    here = Path(__file__).parent
    return fingerprint([(here / module).read_text(encoding="utf-8") for module in modules])


def run_stage(root: Path, name: str, key: str, produce: Callable[[Path], None]) -> Path:
    """The folder `root/name-key`, produced if it is not there.

    Args:
        root: folder of all stages of a data set.
        name: what the stage makes.
        key: its fingerprint.
        produce: fills the empty folder it is given.
    """
    final = root / f"{name}-{key}"
    root.mkdir(parents=True, exist_ok=True)
    # Two runs may prepare the same data at once: the second waits, then finds it done.
    with FileLock(root / ".lock"):
        if final.exists():
            rank_zero_info(f"{name}: reusing {final}")
            return final
        rank_zero_info(f"{name}: making {final}")
        # Whatever a killed run left: the lock says nobody is making it.
        for stale in root.glob(f".{name}-*.partial"):
            shutil.rmtree(stale)
        partial = root / f".{name}-{key}.partial"
        partial.mkdir()
        produce(partial)
        for path in [*sorted(partial.rglob("*")), partial]:
            sync(path)
        partial.rename(final)
        sync(root)
    return final


def checksum(path: Path) -> str:
    """xxh3 of a file, read in pieces of a mebibyte."""
    digest = xxhash.xxh3_64()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def write_checksums(folder: Path, *names: str) -> None:
    """Write the checksums of a stage's files, last of all."""
    checksums = {name: checksum(folder / name) for name in names}
    (folder / CHECKSUMS).write_text(json.dumps(checksums, indent=1), encoding="utf-8")


def verified(path: Path) -> Path:
    """The path of a file of a finished stage, after its content was compared with its checksum.

    Raises:
        InputError: when the file or its checksum is missing or they do not agree.
    """
    remedy = f"the file is damaged, delete {path.parent} and prepare again"
    try:
        expected = json.loads((path.parent / CHECKSUMS).read_text(encoding="utf-8"))[path.name]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path.parent / CHECKSUMS}: no checksum of {path.name} can be read: {remedy}") from error
    found = checksum(path) if path.is_file() else None
    if found != expected:
        raise InputError(f"{path}: checksum {found}, {CHECKSUMS} says {expected}: {remedy}")
    return path


def sync(path: Path) -> None:
    """Wait until a file or folder is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
