"""Where text comes from: readers list files cheaply and read one file at a time.

A reader knows nothing of cleaning, batching or parallelism, so that Daft can call `read` on any worker. Listing all
files first costs a walk over the tree and buys a fingerprint of the inputs before anything is read.
"""

import ast
import codecs
import gc
import gzip
import io
import itertools
import json
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from sysconfig import get_path
from typing import IO, Any, cast
from zlib import error as ZlibError

import pyarrow
import pyarrow.parquet
import xxhash

from datamodules.document import Document, text_or_reason, unless_surrogates
from datamodules.downloads import is_url, local_copy
from errors import InputError


@dataclass(frozen=True)
class InputFile:
    """A file to read: where it is, what it is called in provenance, its size in bytes and time of change."""

    location: str
    name: str
    size: int
    changed: int


class Reader(ABC):
    """Lists files and reads documents from one of them.

    Args:
        max_megabytes: read at most this much, in the order of a hash of the names, the same on every machine; a file
            that alone is larger is passed over; null reads all.
    """

    def __init__(self, max_megabytes: float | None = None) -> None:
        self.max_megabytes = max_megabytes

    @abstractmethod
    def candidates(self) -> Iterable[tuple[Path, str]]:
        """Every file this reader would read and its name in provenance, in any order.

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
        found: dict[str, Path] = {}
        for path, name in self.candidates():
            # The name is what a document is known by: of two files with one name the first would vanish.
            if (other := found.setdefault(name, path)) != path:
                both = f"{str(path)!r} and {str(other)!r}"
                raise InputError(f"{both} are both called {name!r} in provenance: rename one or leave it out")
        cap = float("inf") if self.max_megabytes is None else self.max_megabytes * 1e6
        chosen: list[InputFile] = []
        size = 0
        for name in sorted(found, key=lambda name: (stable_hash(name), name)):
            stat = found[name].stat()
            if stat.st_size > cap:
                # It never fits: stopping here would hide all that follow.
                continue
            size += stat.st_size
            if size > cap:
                # Not passed over, or what fits into the rest would fill the sample with the smallest files.
                break
            chosen.append(InputFile(str(found[name]), name, stat.st_size, stat.st_mtime_ns))
        if found and not chosen:
            raise InputError(
                f"max_megabytes={self.max_megabytes} is less than each of the {len(found)} files found: raise it"
            )
        return chosen

    def settings(self) -> dict[str, Any]:
        """For the fingerprint: the class and its parameters."""
        return {"reader": type(self).__name__, **vars(self)}


def stable_hash(name: str) -> int:
    """64-bit hash of a name; bytes of the file system that are no UTF-8 are hashed as they are."""
    return xxhash.xxh3_64_intdigest(name.encode("utf-8", "surrogateescape"))


def provenance_name(path: Path | str) -> str:
    """A path as text that can be stored: undecodable bytes become backslash escapes."""
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def distinct_tails(paths: list[Path]) -> list[Path]:
    """The last parts of each path, as few as tell them apart: `text` alone, `a/text` beside `b/text`."""
    for length in itertools.count(1):
        tails = {path: Path(*path.parts[-length:]) for path in paths}
        if len(set(tails.values())) == len(tails):
            break
    return [tails[path] for path in paths]


class InstalledFiles(Reader):
    """Base of readers over installed distributions, by the list of files each of them records.

    Args:
        distributions: names of distributions; null takes every one installed except editable checkouts.
        standard_library: also the files of Python's standard library.
        max_megabytes: see `Reader`.
    """

    def __init__(
        self,
        distributions: list[str] | None = None,
        standard_library: bool = False,
        max_megabytes: float | None = None,
    ) -> None:
        super().__init__(max_megabytes)
        self.distributions, self.standard_library = distributions, standard_library

    @abstractmethod
    def wants(self, name: str) -> bool:
        """Whether a file is of the kind this reader reads, by its path within the distribution."""

    def candidates(self) -> Iterator[tuple[Path, str]]:
        """Files of the standard library, then those that the distributions' records name and that exist."""
        if self.standard_library:
            root = Path(get_path("stdlib"))
            for folder, folders, files in os.walk(root):
                folders[:] = [name for name in folders if name not in ("site-packages", "dist-packages", "__pycache__")]
                for path in (Path(folder, file) for file in files if self.wants(file)):
                    yield path, provenance_name(f"python/{path.relative_to(root).as_posix()}")
        for distribution in self._distributions():
            owner = distribution.name  # parses the metadata anew each time it is asked
            for file in distribution.files or []:
                # Asked before the path is made: a record can list ten thousand headers.
                if self.wants(str(file)) and (path := Path(str(file.locate()))).is_file():
                    yield path, provenance_name(f"{owner}/{file}")

    def _distributions(self) -> list[metadata.Distribution]:
        if self.distributions is None:
            # A distribution installed twice counts once, as it is imported: the first on the path.
            installed: dict[str, metadata.Distribution] = {}
            for distribution in metadata.distributions():
                if distribution.name:  # a removal cut short leaves a folder without one
                    installed.setdefault(distribution.name.lower(), distribution)
            return [d for d in installed.values() if '"editable": true' not in (d.read_text("direct_url.json") or "")]
        found = []
        for name in self.distributions:
            try:
                found.append(metadata.distribution(name))
            except metadata.PackageNotFoundError:
                raise InputError(f"distribution {name} is not installed: pip install it or leave it out") from None
        return found


class PythonSources(InstalledFiles):
    """Python source files, one document each."""

    def wants(self, name: str) -> bool:
        """Files ending in .py."""
        return name.endswith(".py")

    def read(self, file: InputFile) -> Iterator[Document]:
        """The whole file."""
        yield text_or_reason(Path(file.location).read_bytes())


class Docstrings(PythonSources):
    """The docstrings of Python source files: one document a module, each under the name it explains."""

    def read(self, file: InputFile) -> Iterator[Document]:
        """Nothing for a module without docstrings."""
        document = text_or_reason(Path(file.location).read_bytes())
        if document.text is None:
            yield document
            return
        tree = parse_python(document.text)
        if tree is None:
            yield Document(None, reason="invalid_python")
            return
        parts = list(_docstrings(tree, Path(file.name).stem))
        if parts:
            yield unless_surrogates("\n\n".join(parts))


def parse_python(source: str) -> ast.Module | None:
    """The syntax tree of a module, or None where there is none."""
    collects = gc.isenabled()
    gc.disable()  # there is no cycle in a tree, yet looking for one takes more than half of the time
    try:
        with warnings.catch_warnings():
            # Invalid escapes in other people's strings are not our business.
            warnings.simplefilter("ignore")
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    finally:
        if collects:
            gc.enable()


Definition = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def definitions(tree: ast.Module, module: str) -> Iterator[tuple[Definition, str]]:
    """The module, its classes and functions and theirs, with qualified names; in the order of the source."""
    stack: list[tuple[Definition, str]] = [(tree, module)]
    while stack:
        node, name = stack.pop()
        yield node, name
        inner = [child for child in node.body if isinstance(child, Definition)]
        stack += [(child, f"{name}.{getattr(child, 'name', '')}") for child in reversed(inner)]


def _docstrings(tree: ast.Module, module: str) -> Iterator[str]:
    """Each docstring, headed by the qualified name it belongs to."""
    for node, name in definitions(tree, module):
        if text := ast.get_docstring(node):
            yield text if node is tree else f"{name}\n\n{text}"


class Readmes(InstalledFiles):
    """Descriptions in the metadata of distributions: READMEs in Markdown, reStructuredText, plain text or HTML."""

    def wants(self, name: str) -> bool:
        """The METADATA file of a wheel."""
        return name.endswith(".dist-info/METADATA")

    def read(self, file: InputFile) -> Iterator[Document]:
        """The description; HTML, whole or embedded in Markdown, is reduced to its text."""
        document = text_or_reason(Path(file.location).read_bytes())
        if document.text is None:
            yield document
            return
        message = metadata.PathDistribution(Path(file.location).parent).metadata
        description = str(message.get("Description") or message.get_payload() or "")  # type: ignore[attr-defined]
        if description.strip():
            yield Document(html_to_text(description) if looks_like_html(description) else description)


class Licences(InstalledFiles):
    """Licence, copying and notice files of distributions."""

    def wants(self, name: str) -> bool:
        """LICENSE, LICENCE, COPYING, COPYRIGHT and NOTICE files that are not programs."""
        path = Path(name)
        return path.stem.upper().startswith(("LICEN", "COPYING", "COPYRIGHT", "NOTICE")) and path.suffix.lower() in (
            "", ".txt", ".md", ".rst", ".html", ".apache", ".bsd", ".mit",
        )  # fmt: skip

    def read(self, file: InputFile) -> Iterator[Document]:
        """The whole file."""
        yield text_or_reason(Path(file.location).read_bytes())


def looks_like_html(text: str) -> bool:
    """Whether a description is mostly HTML: more than one tag in each 200 characters."""
    return text.count("</") * 200 > len(text)


def is_blank(line: bytes) -> bool:
    """Whether a line holds nothing but white space, after a byte-order mark if there is one."""
    return not line.removeprefix(codecs.BOM_UTF8).strip()


def parse_json(raw: bytes) -> Any:
    """The JSON value in bytes, or a `Document` with the reason why there is none."""
    document = text_or_reason(raw)
    if document.text is None:
        return document
    try:
        return json.loads(document.text)
    except (ValueError, RecursionError):
        return Document(None, reason="invalid_json")


def html_to_text(html: str) -> str:
    """Text of an HTML fragment by Resiliparse's extractor; scripts, styles and markup go, lists and paragraphs stay."""
    from resiliparse.extract.html2text import extract_plain_text

    text: str = extract_plain_text(html, preserve_formatting=True, alt_texts=False)
    return text


class Files(Reader):
    """The user's own text: JSONL, JSON, Parquet, plain text and Markdown, by suffix; .gz and .zst are decompressed.

    Args:
        paths: files or folders; folders are searched for the suffixes below. A URL names one file.
        text_key: key of the text in JSON objects, column of the text in Parquet.
        max_megabytes: see `Reader`.
        downloads: folder of what URLs name, copied once.
    """

    SUFFIXES: tuple[str, ...] = (".jsonl", ".json", ".parquet", ".txt", ".md", ".rst")
    COMPRESSIONS = (".gz", ".zst")

    def __init__(
        self,
        paths: list[str],
        text_key: str = "text",
        max_megabytes: float | None = None,
        downloads: str = "data/downloads",
    ) -> None:
        super().__init__(max_megabytes)
        self.paths, self.text_key, self.downloads = paths, text_key, downloads

    def candidates(self) -> Iterator[tuple[Path, str]]:
        """Files named, and files of known suffixes below the folders named, without following links out of them."""
        # Not resolved: what a link points to may be called differently on every machine.
        downloads = Path(self.downloads)
        places = [local_copy(entry, downloads) if is_url(entry) else Path(entry).expanduser() for entry in self.paths]
        roots = [Path(os.path.abspath(place)) for place in places]
        for entry, root, label in zip(self.paths, roots, distinct_tails(roots), strict=True):
            if not root.exists():
                raise InputError(f"path {entry} does not exist: correct it in the configuration")
            found = 0
            for path in sorted(root.rglob("*")) if root.is_dir() else [root]:
                inside = path.resolve().is_relative_to(root.resolve())
                if inside and path.is_file() and self.format_of(path.name) is not None:
                    found += 1
                    yield path, provenance_name(label / path.relative_to(root))
            if not found:
                raise InputError(
                    f"path {entry} holds no file ending in {', '.join(self.SUFFIXES)} "
                    f"(with or without {', '.join(self.COMPRESSIONS)}): name another folder or convert the files"
                )

    @classmethod
    def format_of(cls, name: str) -> str | None:
        """Suffix that says the format, compression left out, or None for a file that is not read."""
        name = name.lower()
        for compression in cls.COMPRESSIONS:
            name = name.removesuffix(compression)
        return next((suffix for suffix in cls.SUFFIXES if name.endswith(suffix)), None)

    def read(self, file: InputFile) -> Iterator[Document]:
        """One document a JSON line or object, a Parquet row or a text file; what cannot be read has a reason."""
        documents = self._read_parquet if self.format_of(file.name) == ".parquet" else self._read_stream
        # Opening may fail for other reasons than damage: that is the caller's to report.
        with open(file.location, "rb"):
            pass
        try:
            yield from documents(file)
        except (EOFError, OSError, ZlibError, pyarrow.ArrowException):
            # Documents read before the damage are kept.
            yield Document(None, reason="damaged_file")

    def _read_stream(self, file: InputFile) -> Iterator[Document]:
        with self._open(file.location) as stream:
            if self.format_of(file.name) == ".jsonl":
                yield from self._read_lines(stream)
            elif self.format_of(file.name) == ".json":
                yield from self._read_json(stream)
            else:
                yield text_or_reason(stream.read())

    @staticmethod
    def _open(location: str) -> IO[bytes]:
        if location.lower().endswith(".gz"):
            return cast(IO[bytes], gzip.open(location, "rb"))
        if location.lower().endswith(".zst"):
            # Arrow's stream notices a frame cut short, which zstandard's reads as the end.
            compressed = pyarrow.CompressedInputStream(pyarrow.OSFile(location), "zstd")
            return cast(IO[bytes], io.BufferedReader(compressed))
        return open(location, "rb")

    def _read_lines(self, lines: Iterable[bytes]) -> Iterator[Document]:
        for line in lines:
            if not is_blank(line):
                yield self._row(parse_json(line))

    def _read_json(self, stream: IO[bytes]) -> Iterator[Document]:
        """JSON lines under the name .json, as C4 has them, or else one value: an object or an array of objects."""
        first = next((line for line in stream if not is_blank(line)), b"")
        if isinstance(parse_json(first), dict):
            yield from self._read_lines(itertools.chain([first], stream))
            return
        whole = first + stream.read()
        value = parse_json(whole)
        if isinstance(value, list):
            yield from map(self._row, value)
        elif isinstance(value, dict):
            yield self._row(value)
        else:
            yield from self._read_lines(io.BytesIO(whole))

    def _row(self, value: Any) -> Document:
        if isinstance(value, Document):
            return value
        text = value.get(self.text_key) if isinstance(value, dict) else None
        if not isinstance(text, str):
            return Document(None, reason="missing_text_key")
        return unless_surrogates(text)

    def _read_parquet(self, file: InputFile) -> Iterator[Document]:
        with pyarrow.parquet.ParquetFile(file.location) as table:
            if self.text_key not in table.schema_arrow.names:
                yield Document(None, reason="missing_text_key")
                return
            for batch in table.iter_batches(batch_size=1024, columns=[self.text_key]):
                column = batch.column(0).cast(pyarrow.large_binary())
                for value in column:
                    raw = value.as_py()
                    yield Document(None, reason="missing_text_key") if raw is None else text_or_reason(raw)
