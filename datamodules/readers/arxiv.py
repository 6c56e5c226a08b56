"""arXiv reader: papers from their LaTeX sources, in bulk archives, archives of one paper, or folders.

Sources keep formulas, which text taken from PDFs garbles; papers that only exist as PDF are dropped.
"""

import gzip
import io
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, cast

from common.errors import InputError
from datamodules.readers.base import InputFile
from datamodules.readers.document import Document, text_or_reason, unless_surrogates
from datamodules.readers.formats.bounded_streams import (
    DAMAGE,
    RefusedError,
    limited,
    open_bounded,
    read_whole,
    tar_members,
)
from datamodules.readers.formats.downloads import is_url, local_copy, place, remote_files
from datamodules.readers.formats.latex import flatten, main_file, paper
from datamodules.readers.paths import PathReader

_SOURCES = (".tex", ".ltx", ".sty")
_PAPER = re.compile(r"\\document(?:class|style)\b")
_ENCODING = re.compile(rb"\\usepackage\s*\[(latin1|latin9|ansinew|cp125[0-2]|koi8-r|cp1251)\]\s*\{inputenc\}")
_ENCODINGS = {"latin9": "iso-8859-15", "ansinew": "cp1252"}
_NEW_NUMBER = re.compile(r"(?<![\d.])(\d{2})(0[1-9]|1[0-2])\.\d{4,5}(?:v\d{1,2})?(?!\d)")
_OLD_NUMBER = re.compile(r"([a-z][a-z-]{1,15})/?((\d{2})(0[1-9]|1[0-2])\d{3})(?!\d)")


class ArxivSources(PathReader):
    r"""Papers in LaTeX, one document each, with address and month from the arXiv number in their name.

    Read are arXiv's bulk archives (`arXiv_src_2301_001.tar`, of .gz files), archives of one paper (.tar.gz, .gz) and
    folders, where each .tex file with \documentclass is a paper together with what it includes. Dropped with a reason:
    `no_latex` (PDF only, or nothing with a section), `invalid_utf8` where a source is neither UTF-8 nor names another
    encoding. arXiv's licenses are in its metadata, not in the sources: `license` is None.
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
                        local_copy(found.url, copies)
        for file in super().candidates():
            if self.format_of(file.name) != ".tex" or (is_url(file.location) and copies is None):
                yield file
                continue
            location = Path(file.location)
            if is_url(file.location) and copies is not None:
                location = place(file.location, copies)
            files = _Folder(location.parent, self.max_bytes)
            source = files.load(location.name)
            if source is None:
                yield file  # unreadable: said when it is read
            elif _PAPER.search(source):
                flatten(location.name, files.load, self.max_bytes)
                yield replace(file, beside=tuple(path for path in files.loaded if path != str(location.resolve())))

    def documents(self, path: str, file: InputFile) -> Iterator[Document]:
        """One document a paper."""
        kind = self.format_of(file.name)
        if kind == ".tex":
            with open_bounded(path) as stream:
                decoded = decode_latex(read_whole(stream, self.max_bytes))
            load = _Folder(Path(path).parent, self.max_bytes).load
            if decoded.text is None:
                yield decoded
            else:
                yield _document(paper(Path(path).name, load, self.max_bytes), file.name)
        elif kind == ".tar":
            with open_bounded(path) as stream:
                yield from self._bulk(stream, file.name)
        else:
            with open_bounded(path) as stream:
                yield self._one(stream, file.name)

    def _bulk(self, stream: IO[bytes], name: str) -> Iterator[Document]:
        """Papers of a bulk archive; an archive of a single paper that was not compressed is read as well."""
        sources: dict[str, bytes] = {}
        for member, raw in tar_members(stream, self.max_bytes):
            if member.lower().endswith(_SOURCES) and raw is not None:
                sources[member] = raw
            elif member.lower().endswith(".gz"):
                yield Document(None, reason="too_large") if raw is None else self._member(raw, member)
            elif member.lower().endswith(".pdf"):
                yield _document(None, member)
        if sources:
            yield self._paper_of(sources, name)

    def _member(self, raw: bytes, name: str) -> Document:
        try:
            stream = limited(cast(IO[bytes], gzip.GzipFile(fileobj=io.BytesIO(raw))), len(raw))
            return self._one(stream, name)
        except RefusedError as refused:
            return replace(_document(None, name), reason=str(refused))
        except InputError:
            raise
        except DAMAGE:
            return replace(_document(None, name), reason="damaged_file")

    def _one(self, stream: IO[bytes], name: str) -> Document:
        """A paper that is one file or an archive of files."""
        whole = read_whole(stream, self.max_bytes)
        # A tar archive says so at byte 257; a single file is .tex, PostScript or PDF.
        if whole[257:262] != b"ustar":
            return self._paper_of({"main.tex": whole}, name)
        members = tar_members(cast(IO[bytes], io.BytesIO(whole)), self.max_bytes)
        return self._paper_of(
            {member: raw for member, raw in members if raw is not None and member.lower().endswith(_SOURCES)}, name
        )

    def _paper_of(self, sources: dict[str, bytes], name: str) -> Document:
        files: dict[str, str] = {}
        for member, raw in sources.items():
            decoded = decode_latex(raw)
            if decoded.text is None:
                return replace(_document(None, name), reason=decoded.reason)
            files[member.removeprefix("./")] = decoded.text
        main = main_file(files)
        return _document(None if main is None else paper(main, files.get, self.max_bytes), name)


class _Folder:
    """Loads sources from a folder on this machine, and remembers which."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder, self.max_bytes = folder.resolve(), max_bytes
        self.loaded: list[str] = []

    def load(self, name: str) -> str | None:
        try:
            path = (self.folder / name).resolve()
            if not path.is_relative_to(self.folder) or not path.is_file():
                return None
            self.loaded.append(str(path))
            with path.open("rb") as stream:
                return decode_latex(read_whole(cast(IO[bytes], stream), self.max_bytes)).text
        except (OSError, ValueError, RuntimeError, RefusedError):  # a name that no file can have, links in a circle
            return None


def decode_latex(raw: bytes) -> Document:
    """A source in UTF-8, or in the encoding that it gives the package inputenc."""
    document = text_or_reason(raw)
    if document.text is None and (declared := _ENCODING.search(raw)):
        name = declared[1].decode()
        try:
            return Document(raw.decode(_ENCODINGS.get(name, name)))
        except UnicodeDecodeError:
            return document
    return document


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
