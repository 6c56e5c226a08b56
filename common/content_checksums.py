"""Content checksums of input files: the same for a copy, a touched or a moved file, another after any change.

All bytes of a file are read for it once. A cache beside the prepared data spares reading them at the next start: it is
asked by path, size, and times of modification and of change of status, which no program can set back, and is part of no
fingerprint. Losing it costs one reading.
"""

import json
import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from filelock import FileLock
from tqdm import tqdm

from common.files import append_synced, checksum, write_bytes_atomically

CACHE = ".contents.jsonl"
"""Name of the cache in a folder of prepared data: a line a file."""
SETTLED_NS = 2 * 10**9
"""A file changed within this time before it was read may change again at the same time of a coarse clock."""
THREADS = 8
BATCH = 1024
"""Files after which new checksums are on disk: a start that is killed reads at most these again."""
UNREADABLE = "unreadable"
"""In place of a checksum where a file is gone or may not be read."""

_folder: ContextVar[Path | None] = ContextVar("folder of the cache", default=None)
State = list[int]
"""Size, and times of modification and of change of status in nanoseconds."""


@contextmanager
def checksum_cache(folder: Path) -> Iterator[None]:
    """Keep checksums that are computed within the block in a folder, which is made if it is missing."""
    token = _folder.set(folder)
    try:
        yield
    finally:
        _folder.reset(token)


def content_checksums(paths: Iterable[str]) -> dict[str, str]:
    """Checksums of files by path; only those that the cache does not know are read."""
    states = {path: _state(path) for path in paths}
    if not states:
        return {}  # asked for each of many files that are known already: the cache is not read each time
    folder = _folder.get()
    if folder is None:
        return _read(states, None)
    known = _known(folder, states)
    if len(known) == len(states):
        return known
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Another process may be reading the same files: they are read once.
        with FileLock(folder / f"{CACHE}.lock"):
            known = _known(folder, states)
            missing = {path: state for path, state in states.items() if path not in known}
            return known | _read(missing, folder / CACHE)
    except OSError:
        # A folder that cannot be written, as a read-only mount, costs the cache alone.
        return known | _read({path: state for path, state in states.items() if path not in known}, None)


def _state(path: str) -> State:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return []
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _known(folder: Path, states: dict[str, State]) -> dict[str, str]:
    """Checksums of the files whose state is that of the cache."""
    entries = _entries(folder / CACHE)
    return {path: entries[path][1] for path, state in states.items() if path in entries and entries[path][0] == state}


def _entries(cache: Path) -> dict[str, tuple[State, str]]:
    """State and checksum by absolute path; a later line counts, and a line that a kill cut off does not."""
    entries: dict[str, tuple[State, str]] = {}
    lines = 0
    with suppress(OSError), cache.open("rb") as file:
        for line in file:
            lines += 1
            with suppress(ValueError, TypeError):
                path, state, digest = json.loads(line)
                entries[path] = state, digest
    if lines > 2 * len(entries) + BATCH:
        with suppress(OSError):
            write_bytes_atomically(cache, (_line(path, *entry) for path, entry in entries.items()))
    return entries


def _line(path: str, state: State, digest: str) -> bytes:
    return (json.dumps([path, state, digest]) + "\n").encode()


def _read(states: dict[str, State], cache: Path | None) -> dict[str, str]:
    """Checksums of files, read by some threads, and written to the cache as they come."""
    found: dict[str, str] = {}
    total = sum(state[0] for state in states.values() if state)
    with (
        ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool,
        tqdm(desc="checksums", total=total, unit="B", unit_scale=True, disable=None, delay=2) as progress,
    ):
        paths = list(states)
        for start in range(0, len(paths), BATCH):
            some = paths[start : start + BATCH]
            for path, digest in zip(some, pool.map(_checksum, some), strict=True):
                found[path] = digest
                progress.update(states[path][0] if states[path] else 0)
            lines = [_line(path, states[path], found[path]) for path in some if _is_settled(path, states[path])]
            if cache is not None and lines:
                # A line of its own first: one that a kill cut off must not swallow the next.
                append_synced(cache, b"\n" + b"".join(lines))
    return found


def _is_settled(path: str, state: State) -> bool:
    """Whether a file is as it was before it was read, and was not changed just then."""
    return bool(state) and max(state[1:]) < time.time_ns() - SETTLED_NS and _state(path) == state


def _checksum(path: str) -> str:
    try:
        return checksum(Path(path))
    except (OSError, ValueError):
        return UNREADABLE
