"""Reader interface: list files cheaply, read one file at a time.

A reader knows nothing of curation, batching or parallelism, so that Daft can call `read` on any worker. Listing all
files first costs a walk over the tree and buys a fingerprint of the inputs before anything is read.
"""

import itertools
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from common.errors import InputError
from datamodules.readers.document import Document


@dataclass(frozen=True)
class InputFile:
    """A file to read: where it is, what it is called in provenance, its size in bytes and time of change.

    Attributes:
        location: a path on this machine or a URL.
        name: the path in provenance.
        size: in bytes, as stored.
        changed: time of change in nanoseconds since 1970, or the version number of a file in a store.
    """

    location: str
    name: str
    size: int
    changed: int

    @classmethod
    def at(cls, path: Path, name: str) -> "InputFile | None":
        """A file on this machine, or None where there is no regular file (any more)."""
        try:
            found = path.stat()
        except (OSError, ValueError):
            return None
        return cls(str(path), name, found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None


class Reader(ABC):
    """Lists files and reads documents from one of them.

    Args:
        max_megabytes: read at most this much, in the order of a hash of the names, the same on every machine; a file
            that alone is larger is passed over; null reads all.
    """

    def __init__(self, max_megabytes: float | None = None) -> None:
        self.max_megabytes = max_megabytes

    @abstractmethod
    def candidates(self) -> Iterable[InputFile]:
        """Every file this reader would read, in any order.

        Raises:
            InputError: when a path does not exist.
        """

    @abstractmethod
    def read(self, file: InputFile) -> Iterator[Document]:
        """The documents of a file. What cannot be read is a document with a reason, not an exception."""

    def files(self) -> list[InputFile]:
        """The files to read, in the order of a hash of their names.

        Raises:
            InputError: when a path does not exist, two files have one name, or none fits into `max_megabytes`.
        """
        found: dict[str, InputFile] = {}
        for file in self.candidates():
            # The name is what a document is known by: of two files with one name the first would vanish.
            if (other := found.setdefault(file.name, file)).location != file.location:
                both = f"{file.location!r} and {other.location!r}"
                raise InputError(f"{both} are both called {file.name!r} in provenance: rename one or leave it out")
        cap = float("inf") if self.max_megabytes is None else self.max_megabytes * 1e6
        chosen: list[InputFile] = []
        size = 0
        for name in sorted(found, key=lambda name: (stable_hash(name), name)):
            if found[name].size > cap:
                # It never fits: stopping here would hide all that follow.
                continue
            size += found[name].size
            if size > cap:
                # Not passed over, or what fits into the rest would fill the sample with the smallest files.
                break
            chosen.append(found[name])
        if found and not chosen:
            raise InputError(
                f"max_megabytes={self.max_megabytes} is less than each of the {len(found)} files found: raise it"
            )
        return chosen

    def settings(self) -> dict[str, Any]:
        """Settings for the fingerprint: the class and its parameters."""
        return {"reader": type(self).__name__, **vars(self)}


def stable_hash(name: str) -> int:
    """64-bit hash of a name; bytes of the file system that are no UTF-8 are hashed as they are."""
    return xxhash.xxh3_64_intdigest(name.encode("utf-8", "surrogateescape"))


def provenance_name(path: Path | str) -> str:
    """A path as text that can be stored: undecodable bytes become backslash escapes."""
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def distinct_tails(paths: list[Path]) -> list[Path]:
    """The last parts of each path, as few as distinguish them: `text` alone, `a/text` beside `b/text`."""
    for length in itertools.count(1):
        tails = {path: Path(*path.parts[-length:]) for path in paths}
        if len(set(tails.values())) == len(tails):
            break
    return [tails[path] for path in paths]
