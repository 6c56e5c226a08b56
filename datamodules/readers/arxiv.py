"""arXiv reader: papers from their LaTeX sources, in bulk archives, archives of one paper, or folders.

Sources keep formulas, which text taken from PDFs garbles; papers that only exist as PDF are dropped.
"""

import gzip
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, cast

from common.errors import InputError
from datamodules.readers.base import InputFile
from datamodules.readers.document import Document, unless_surrogates
from datamodules.readers.formats.bounded_streams import (
    DAMAGE,
    RefusedError,
    is_tar,
    limited,
    open_bounded,
    read_whole,
    rejoined,
    tar_streams,
)
from datamodules.readers.formats.downloads import local_copy, remote_files
from datamodules.readers.formats.latex import Paper, main_file, paper
from datamodules.readers.formats.markup.latex_encodings import declared_encoding, decode_latex
from datamodules.readers.formats.remote_names import is_url, place
from datamodules.readers.paths import PathReader

_SOURCES = (".tex", ".ltx", ".sty")
_PAPER = re.compile(r"\\document(?:class|style)\b|\\begin\s*\{document\}")
_NEW_NUMBER = re.compile(r"(?<![\d.])(\d{2})(0[1-9]|1[0-2])\.\d{4,5}(?:v\d{1,2})?(?!\d)")
_OLD_NUMBER = re.compile(r"([a-z][a-z-]{1,15})/?((\d{2})(0[1-9]|1[0-2])\d{3})(?!\d)")


class ArxivSources(PathReader):
    r"""Papers in LaTeX, one document each, with address and month from the arXiv number in their name.

    Read are arXiv's bulk archives (`arXiv_src_2301_001.tar`, of .gz files), archives of one paper (.tar.gz, .gz) and
    folders, where each .tex file with \documentclass is a paper together with what it includes. Figures and whatever
    else is no source count for no limit. Dropped with a reason: `no_latex` (PDF only, or nothing with a section),
    `no_document_class` for a .tex file of a folder that is neither a paper nor part of one, `invalid_utf8` where a
    source is neither UTF-8 nor in the encoding that it or its main file names; such a part is dropped alone.
    arXiv's licenses are in its metadata, not in the sources: `license` is None.
    """

    SUFFIXES = (".tar", ".tgz", ".tex", ".gz")

    @classmethod
    def format_of(cls, name: str) -> str | None:
        """By the last suffix: .gz is one paper, whether compressed as a file or as an archive."""
        return next((suffix for suffix in cls.SUFFIXES if name.lower().endswith(suffix)), None)

    def candidates(self) -> Iterator[InputFile]:
        """Archives, and of .tex files those that are papers; what a paper includes is part of its content."""
        copies = None if self.downloads is None else Path(self.downloads)
        for path in self.paths:
            if is_url(path) and copies is not None:
                for found in remote_files(path, copies):
                    if found.url.lower().endswith(_SOURCES):  # what it includes must be beside it
                        local_copy(found.url, copies, found.size, str(found.changed))
        papers: list[tuple[Path, InputFile]] = []
        parts: list[tuple[Path, InputFile]] = []
        included: set[str] = set()
        for file in super().candidates():
            if self.format_of(file.name) != ".tex" or (is_url(file.location) and copies is None):
                yield file
                continue
            location = Path(file.location)
            if is_url(file.location) and copies is not None:
                location = place(file.location, copies)
            files = _Folder(location, self.max_bytes)
            source = files.load(location.name)
            location = location.resolve()
            if source is None or not _PAPER.search(source):
                parts.append((location, file))
                continue
            Paper(location.name, files.load, self.max_bytes).flat()
            beside = tuple(path for path in files.loaded if path != str(location))
            papers.append((location, replace(file, beside=beside)))
            included.update(beside)
        # Chapters that are documents by themselves, and preambles, are parts of the paper that includes them. What no
        # paper includes is no part of one: the reason is said when it is read.
        yield from (file for location, file in (*papers, *parts) if str(location) not in included)

    def documents(self, path: str, file: InputFile) -> Iterator[Document]:
        """One document a paper, and one with a reason for each part of it that cannot be decoded."""
        kind = self.format_of(file.name)
        if kind == ".tex":
            yield from self._of_folder(Path(path), file.name)
            return
        with open_bounded(path) as stream:
            yield from self._bulk(stream, file.name) if kind == ".tar" else self._one(stream, file.name)

    def _of_folder(self, path: Path, name: str) -> Iterator[Document]:
        with open_bounded(str(path)) as stream:
            source = decode_latex(read_whole(stream, self.max_bytes))
        if source is None:
            yield Document(None, reason="invalid_utf8")
        elif not _PAPER.search(source):
            yield Document(None, reason="no_document_class")
        else:
            files = _Folder(path, self.max_bytes)
            yield _document(paper(path.name, files.load, self.max_bytes), name)
            yield from (Document(None, reason="invalid_utf8") for _ in files.undecodable)

    def _bulk(self, stream: IO[bytes], name: str) -> Iterator[Document]:
        """Papers of a bulk archive; an archive of a single paper that was not compressed is read as well."""
        sources = _Sources(self.max_bytes)
        for member, size, content in tar_streams(stream):
            if member.lower().endswith(".gz"):
                yield from self._member(content, size, member)
            elif member.lower().endswith(".pdf"):
                yield _document(None, member)
            else:
                sources.add(member, size, content)
        if sources.found:
            yield from self._paper_of(sources.found, name)

    def _member(self, content: IO[bytes], size: int, name: str) -> Iterator[Document]:
        try:
            yield from self._one(limited(cast(IO[bytes], gzip.GzipFile(fileobj=content)), size), name)
        except RefusedError as refused:
            yield replace(_document(None, name), reason=str(refused))
        except InputError:
            raise
        except DAMAGE:
            yield replace(_document(None, name), reason="damaged_file")

    def _one(self, stream: IO[bytes], name: str) -> Iterator[Document]:
        """A paper that is one file or an archive of files; figures are passed over without being kept."""
        head = stream.read(512)
        while len(head) < 512 and (more := stream.read(512 - len(head))):
            head += more
        sources = _Sources(self.max_bytes)
        if is_tar(head):
            for member, size, content in tar_streams(rejoined(head, stream)):
                sources.add(member, size, content)
        elif not head.startswith((b"%PDF", b"%!PS")):  # a single file is .tex, PostScript or PDF
            sources.found["main.tex"] = read_whole(rejoined(head, stream), self.max_bytes)
        yield from self._paper_of(sources.found, name)

    def _paper_of(self, sources: dict[str, bytes], name: str) -> Iterator[Document]:
        # Marks of the main file are ASCII in every encoding.
        main = main_file({member: raw.decode("latin-1") for member, raw in sources.items()})
        if main is None:
            yield _document(None, name)
            return
        files = _Archive(sources, declared_encoding(sources[main]))
        if files.load(main) is None:
            yield replace(_document(None, name), reason="invalid_utf8")
            return
        yield _document(paper(main, files.load, self.max_bytes), name)
        yield from (replace(_document(None, name), reason="invalid_utf8") for _ in files.undecodable)


class _Sources:
    """Sources among the files of an archive, within a limit of bytes.

    Raises:
        RefusedError: `too_large` when sources alone are above the limit.
    """

    def __init__(self, max_bytes: int) -> None:
        self.left = max_bytes
        self.found: dict[str, bytes] = {}

    def add(self, name: str, size: int, content: IO[bytes]) -> None:
        if name.lower().endswith(_SOURCES):
            self.left -= size
            if self.left < 0:
                raise RefusedError("too_large")
            self.found[name.removeprefix("./")] = content.read()


class _Archive:
    """Loads sources of an archive, in their own encoding or that of the main file; remembers those in none."""

    def __init__(self, sources: dict[str, bytes], encoding: str | None) -> None:
        self.sources, self.encoding = sources, encoding
        self.undecodable: set[str] = set()

    def load(self, name: str) -> str | None:
        raw = self.sources.get(name)
        if raw is None:
            return None
        text = decode_latex(raw, self.encoding)
        if text is None and name.endswith(".sty"):  # its macros are ASCII
            return raw.decode("utf-8", "replace")
        if text is None:
            self.undecodable.add(name)
        return text


class _Folder:
    """Loads sources from the folder of a main file on this machine, and remembers which; see `_Archive`."""

    def __init__(self, main: Path, max_bytes: int) -> None:
        self.folder, self.max_bytes = main.parent.resolve(), max_bytes
        self.loaded: list[str] = []
        self.undecodable: set[str] = set()
        self.encoding: str | None = None
        if (raw := self._raw(main.name)) is not None:
            self.encoding = declared_encoding(raw)
        self.loaded.clear()

    def _raw(self, name: str) -> bytes | None:
        try:
            path = (self.folder / name).resolve()
            if not path.is_relative_to(self.folder) or not path.is_file():
                return None
            if str(path) not in self.loaded:
                self.loaded.append(str(path))
            with path.open("rb") as stream:
                return read_whole(cast(IO[bytes], stream), self.max_bytes)
        except (OSError, ValueError, RuntimeError, RefusedError):  # a name that no file can have, links in a circle
            return None

    def load(self, name: str) -> str | None:
        raw = self._raw(name)
        if raw is None:
            return None
        archive = _Archive({name: raw}, self.encoding)
        text = archive.load(name)
        self.undecodable |= archive.undecodable
        return text


def _document(text: str | None, name: str) -> Document:
    """A paper, or the reason why there is none, with the facts in its name."""
    document = unless_surrogates(text) if text else Document(None, reason="no_latex")
    number, date = arxiv_number(name)
    return replace(document, url=f"https://arxiv.org/abs/{number}" if number else None, date=date)


def arxiv_number(name: str) -> tuple[str | None, str | None]:
    """(arXiv number, month in ISO 8601) that a path holds: 2301.00001v2, hep-th9901001 or hep-th/9901001."""
    if new := list(_NEW_NUMBER.finditer(name)):
        return new[-1][0], f"20{new[-1][1]}-{new[-1][2]}"
    if old := list(_OLD_NUMBER.finditer(name)):
        century = "19" if int(old[-1][3]) >= 91 else "20"
        return f"{old[-1][1]}/{old[-1][2]}", f"{century}{old[-1][3]}-{old[-1][4]}"
    return None, None
