"""Base of readers of paths: files, folders and URLs that the user names.

Files in a store are copied whole before they are read: a copy costs disk and buys a check of the length, retries, and
readers that need not know where a file came from. `downloads: null` keeps no copy, for crawls larger than the disk.
"""

import os
from abc import abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

from common.errors import InputError
from common.path_lists import PathList, path_list
from datamodules.readers.base import InputFile, Reader, distinct_tails, provenance_name
from datamodules.readers.document import Document
from datamodules.readers.formats.bounded_streams import COMPRESSIONS, DAMAGE, RefusedError, uncompressed_name
from datamodules.readers.formats.downloads import copy_of, remote_files
from datamodules.readers.formats.remote_names import is_url, place, shown


class PathReader(Reader):
    """Base of readers of files below paths.

    Args:
        paths: files or folders; folders are searched for the suffixes that the reader reads. URLs may be given in any
            protocol of fsspec (https://, s3://, gs://, hf://), and where it can list they may name folders or hold
            `*`. Links out of a folder are not followed, and hidden files below it are not read.
        max_megabytes: see `Reader`.
        downloads: folder of what URLs name, listed and copied once; null lists at each start and keeps no copy.
        max_document_megabytes: a document of more bytes is dropped as `too_large`, before it is in memory.

    Raises:
        InputError: for a limit that is not positive.
    """

    SUFFIXES: tuple[str, ...] = ()
    READS_HIDDEN: ClassVar[bool] = False
    """Whether hidden files below a folder are read, and those in hidden folders; one that is named always is."""
    NOT_SETTINGS = (*Reader.NOT_SETTINGS, "paths", "downloads")

    def __init__(
        self,
        paths: PathList,
        max_megabytes: float | None = None,
        downloads: str | None = "data/downloads",
        max_document_megabytes: float = 64,
    ) -> None:
        super().__init__(max_megabytes)
        if not max_document_megabytes > 0:
            raise InputError(f"max_document_megabytes={max_document_megabytes}: must be above 0")
        # Absolute at once: a worker on a cluster has another working directory.
        self.paths = [path if is_url(path) else os.path.abspath(os.path.expanduser(path)) for path in path_list(paths)]
        self.downloads = None if downloads is None else os.path.abspath(downloads)
        self.max_document_megabytes = max_document_megabytes

    def settings(self) -> dict[str, Any]:
        """See `Reader.settings`; what the paths are called counts, as code is grouped by it, and not where they are."""
        return super().settings() | {"paths": sorted(provenance_name(label) for _, _, label in self.roots())}

    @property
    def max_bytes(self) -> int:
        """Bytes of a document at most."""
        return int(self.max_document_megabytes * 1e6)

    @abstractmethod
    def documents(self, path: str, file: InputFile) -> Iterator[Document]:
        """The documents of a file that is on this machine. It may raise what damaged or refused content raises.

        Args:
            path: of the file or its copy.
            file: as it was listed.
        """

    @classmethod
    def format_of(cls, name: str) -> str | None:
        """Suffix that says the format, compression left out, or None for a file that is not read."""
        name = uncompressed_name(name)
        return next((suffix for suffix in cls.SUFFIXES if name.endswith(suffix)), None)

    def wants(self, path: Path) -> bool:
        """True if a file is read, by its path below the folder named."""
        return self.format_of(path.name) is not None

    def enters(self, folder: str) -> bool:
        """True if a folder is searched, by its name."""
        return True

    def roots(self) -> list[tuple[str, Path, Path]]:
        """For each path that is read: itself, where it (or its copy) lies, and what it is called in provenance."""
        # Not resolved: what a link points to may be called differently on every machine.
        copies, named = Path(self.downloads or "data/downloads"), self.named_paths()
        places = [place(path, copies) if is_url(path) else Path(path).expanduser() for path in named]
        absolute = [Path(os.path.abspath(path)) for path in places]
        return list(zip(named, absolute, distinct_tails(absolute), strict=True))

    def named_paths(self) -> list[str]:
        """Files, folders and URLs that are read."""
        return self.paths

    def candidates(self) -> Iterator[InputFile]:
        """Files named, and files of known suffixes below the folders named, without following links out of them."""
        for path, root, label in self.roots():
            found = 0
            for file in self._remote(path, root, label) if is_url(path) else self._local(path, root, label):
                found += 1
                yield file
            if not found:
                suffixes = f" ending in {', '.join(self.SUFFIXES)} (with or without {', '.join(COMPRESSIONS)})"
                raise InputError(
                    f"path {shown(path)} holds no file{suffixes if self.SUFFIXES else ' to read'} that is not hidden "
                    "or a link out of it: name another folder or convert the files"
                )

    def _local(self, path: str, root: Path, label: Path) -> Iterator[InputFile]:
        if not root.exists():
            raise InputError(f"path {path} does not exist: correct it in the configuration")
        for found in walk(root, self._searches):
            below = found.relative_to(root)
            if self._reads(below, root):
                file = InputFile.at(found, provenance_name(label / below))
                if file is not None:  # gone since it was listed
                    yield file

    def _remote(self, path: str, root: Path, label: Path) -> Iterator[InputFile]:
        for found in remote_files(path, None if self.downloads is None else Path(self.downloads)):
            copy = Path(os.path.abspath(place(found.url, Path(self.downloads or "data/downloads"))))
            below = copy.relative_to(root)
            if all(self._searches(part) for part in below.parts[:-1]) and self._reads(below, root):
                yield InputFile(found.url, provenance_name(label / below), found.size, str(found.changed))

    def _searches(self, folder: str) -> bool:
        return (self.READS_HIDDEN or is_visible(folder)) and self.enters(folder)

    def _reads(self, below: Path, root: Path) -> bool:
        """Whether a file is read, by its path below a root; without parts it is the root itself."""
        if not below.parts:
            return self.wants(Path(root.name))
        return (self.READS_HIDDEN or is_visible(below.name)) and self.wants(below)

    def read(self, file: InputFile) -> Iterator[Document]:
        """The documents of a file, and last of all a reason where the rest of it cannot be read.

        One file among millions must not end a run: whatever a parser raises on it is `damaged_file`.

        Raises:
            InputError: when a copy from a store cannot be had: a network that fails is no property of the document.
        """
        downloads = None if self.downloads is None else Path(self.downloads)
        with copy_of(file.location, downloads, file.size, file.content or "") as path:
            try:
                with open(path, "rb"):
                    pass
            except OSError:
                yield Document(None, reason="unreadable_file")
                return
            try:
                yield from self.documents(path, file)
            except InputError:
                raise
            except RefusedError as refused:
                # Documents read before are kept.
                yield Document(None, reason=str(refused))
            except DAMAGE:
                yield Document(None, reason="damaged_file")


def is_visible(name: str) -> bool:
    """False for the name of a hidden file or folder: copies that editors and notebooks keep (`.ipynb_checkpoints`), and
    what macOS writes beside files (`._a.txt`, `__MACOSX`)."""
    return not name.startswith(".") and name != "__MACOSX"


def walk(root: Path, enters: Callable[[str], bool] = lambda name: True) -> Iterator[Path]:
    """Files below a folder in the order of their names, or the file itself; no link leads out of the folder.

    Raises:
        InputError: for a folder that may not be listed.
    """
    if not root.is_dir():
        yield root
        return

    def refuse(error: OSError) -> None:
        # A folder removed meanwhile holds no files; one that is closed to us may hold all of them.
        if not isinstance(error, FileNotFoundError):
            raise InputError(f"folder {error.filename} cannot be listed ({error.strerror}): change its permissions")

    inside = root.resolve()
    for folder, folders, names in os.walk(root, onerror=refuse):
        folders[:] = sorted(name for name in folders if enters(name))
        for path in (Path(folder, name) for name in sorted(names)):
            if not path.is_symlink() or _leads_inside(path, inside):
                yield path


def _leads_inside(link: Path, folder: Path) -> bool:
    try:
        return link.resolve().is_relative_to(folder)
    except (OSError, RuntimeError):  # links in a circle
        return False
