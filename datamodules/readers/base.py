"""Reader interface: list files cheaply, read one file at a time.

A reader knows nothing of curation, batching or parallelism, so that Daft can call `read` on any worker. Listing all
files first costs a walk over the tree, and one reading of new files for their checksums; it buys a fingerprint of the
inputs before anything is made of them, equal for a copy and for a touched file.
"""

import itertools
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import xxhash

from common.content_checksums import content_checksums
from common.errors import InputError
from common.fingerprint import fingerprint
from datamodules.readers.document import Document
from datamodules.readers.formats.remote_names import shown


@dataclass(frozen=True)
class InputFile:
    """A file to read: where it is, what it is called in provenance, its size in bytes and its content.

    Attributes:
        location: a path on this machine or a URL.
        name: the path in provenance.
        size: in bytes, as stored.
        content: checksum, or the version of a file in a store; None until `with_contents` has read the file.
        beside: paths of further files that decide its documents, as the license of source code.
        group: what its documents are grouped by, where more decides that than its name.
    """

    location: str
    name: str
    size: int
    content: str | None = None
    beside: tuple[str, ...] = ()
    group: str = ""

    @property
    def identity(self) -> list[Any]:
        """Name, size, content and group, for fingerprints; where the file is and when it was changed do not count."""
        (read,) = with_contents([self])
        return [provenance_name(read.name), read.size, read.content, read.group]

    @classmethod
    def at(cls, path: Path, name: str) -> "InputFile | None":
        """A file on this machine, or None where there is no regular file (any more)."""
        try:
            found = path.stat()
        except (OSError, ValueError):
            return None
        return cls(str(path), name, found.st_size) if stat.S_ISREG(found.st_mode) else None


class Reader(ABC):
    """Lists files and reads documents from one of them.

    Args:
        max_megabytes: read at most this much, in the order of a hash of the names, the same on every machine; a file
            that alone is larger is passed over; null reads all.
    """

    NOT_SETTINGS: ClassVar[tuple[str, ...]] = ("max_megabytes",)
    """Attributes that say which files are read or where they are: the names and contents of these files count."""
    IS_CRAWL: ClassVar[bool] = False
    """Whether documents are fetches of pages, of which all with one URL are the same page."""

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
                both = f"{shown(file.location)!r} and {shown(other.location)!r}"
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
        """Settings for the fingerprint: the class and those of its parameters that decide more than which files."""
        kept = {name: value for name, value in vars(self).items() if name not in self.NOT_SETTINGS}
        return {"reader": type(self).__name__, **kept}


def with_contents(files: Sequence[InputFile]) -> list[InputFile]:
    """The files with their content known; read where `common.content_checksums` does not know them."""
    unread = [file for file in files if file.content is None or file.beside]
    paths = [path for file in unread for path in (*([] if file.content else [file.location]), *file.beside)]
    checksums = content_checksums(paths)

    def read(file: InputFile) -> InputFile:
        if file.content is not None and not file.beside:
            return file
        content = file.content or checksums[file.location]
        beside = [[provenance_name(os.path.basename(path)), checksums[path]] for path in file.beside]
        return replace(file, content=fingerprint(content, beside) if beside else content, beside=())

    return [read(file) for file in files]


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
