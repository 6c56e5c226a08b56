"""Stages of preparation that are either whole on disk or not there.

A stage is a folder named after the fingerprint of everything that went into it. It is made under a temporary name
and renamed when its last byte is on disk, so a run killed anywhere starts the unfinished stage again and trusts
every finished one. Resuming inside a stage would save minutes and cost this one simple rule.
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


def sync(path: Path) -> None:
    """Wait until a file or folder is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
