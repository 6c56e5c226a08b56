"""The one way loops are compiled here: without the interpreter's lock, and kept on disk until any of them changes.

Numba keeps what it compiled until the function's own file changes, but what a function calls in other files is compiled
into it and would go stale unseen. So the folder of the kept code is named by the contents of every file that has loops:
an edit of one compiles all anew (a minute), and no text is judged by yesterday's rule. Numbers that loops take from the
module around them belong into such files too.
"""

import functools
import os
from pathlib import Path
from typing import Any

import numba
import xxhash

PACKAGE = Path(__file__).parents[1] / "datamodules"
MARK = b"import compiled"


def sources_digest() -> str:
    """Of the contents of all files with loops, in hexadecimal."""
    digest = xxhash.xxh3_64()
    for path in sorted(PACKAGE.rglob("*.py")):
        if MARK in (content := path.read_bytes()):
            digest.update(f"{path.relative_to(PACKAGE)}\0{len(content)}\0".encode())
            digest.update(content)
    return digest.hexdigest()


def cache_folder() -> Path:
    """Of compiled loops: where NUMBA_CACHE_DIR says, beside the package, or where that is read-only, at home."""
    if asked := os.environ.get("NUMBA_CACHE_DIR"):
        return Path(asked) / sources_digest()
    beside = PACKAGE / "__pycache__"
    can_write = os.access(beside if beside.exists() else PACKAGE, os.W_OK)
    return (beside if can_write else Path.home() / ".cache/numba") / f"loops-{sources_digest()}"


setattr(numba.config, "CACHE_DIR", str(cache_folder()))  # noqa: B010 (set by Numba itself in this way)
compiled: Any = functools.partial(numba.njit, cache=True, nogil=True)
"""Decorator of a loop."""
