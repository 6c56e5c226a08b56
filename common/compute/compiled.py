"""Numba compilation of loops: without the interpreter's lock, and cached on disk until any of them changes.

Numba caches what it compiled until the function's own file changes, but what a function calls in other files is
compiled into it and would go stale unseen. So the cache folder is named by the contents of every file that has loops:
an edit of one compiles all of them again, which takes about a minute, and no text is measured by an earlier version of
a rule. Numbers that loops take from the module around them belong in such files too.
"""

import functools
import os
from pathlib import Path
from typing import Any

import numba
import xxhash

ROOT = Path(__file__).parents[2]
PACKAGES = ("common", "datamodules")
"""Packages that have loops."""
MARK = b"import compiled"


def sources_digest() -> str:
    """Digest of the contents of all files with loops, in hexadecimal."""
    digest = xxhash.xxh3_64()
    for path in sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        if MARK in (content := path.read_bytes()):
            digest.update(f"{path.relative_to(ROOT)}\0{len(content)}\0".encode())
            digest.update(content)
    return digest.hexdigest()


def cache_folder() -> Path:
    """Cache folder of compiled loops: in NUMBA_CACHE_DIR, else beside the package, or at home if that is read-only."""
    if configured := os.environ.get("NUMBA_CACHE_DIR"):
        return Path(configured) / sources_digest()
    package = ROOT / PACKAGES[-1]
    beside = package / "__pycache__"
    can_write = os.access(beside if beside.exists() else package, os.W_OK)
    return (beside if can_write else Path.home() / ".cache/numba") / f"loops-{sources_digest()}"


setattr(numba.config, "CACHE_DIR", str(cache_folder()))  # noqa: B010 (set by Numba itself in this way)
compiled: Any = functools.partial(numba.njit, cache=True, nogil=True)
"""Decorator of a loop."""
