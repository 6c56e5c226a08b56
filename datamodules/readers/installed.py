"""Installed text: sources, docstrings, READMEs and licenses of Python and its installed distributions.

No download and no folder to name buy a start without a network; the price is a small, one-sided corpus.
"""

import ast
import gc
import os
import warnings
from abc import abstractmethod
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from sysconfig import get_path

from common.errors import InputError
from datamodules.readers.base import InputFile, Reader, provenance_name
from datamodules.readers.document import Document, text_or_reason, unless_surrogates
from datamodules.readers.formats.bounded_streams import RefusedError
from datamodules.readers.formats.web.html_text import html_to_text
from datamodules.readers.html import looks_like_html


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
        """True if a file is of the kind this reader reads, by its path within the distribution."""

    def candidates(self) -> Iterator[InputFile]:
        """Files of the standard library, then those that the distributions' records name and that exist."""
        if self.standard_library:
            root = Path(get_path("stdlib"))
            for folder, folders, names in os.walk(root):
                folders[:] = [name for name in folders if name not in ("site-packages", "dist-packages", "__pycache__")]
                for path in (Path(folder, name) for name in names if self.wants(name)):
                    if file := InputFile.at(path, provenance_name(f"python/{path.relative_to(root).as_posix()}")):
                        yield file
        for distribution in self._distributions():
            owner = distribution.name  # parses the metadata at each access
            for entry in distribution.files or []:
                # Asked before the path is made: a record can list ten thousand headers.
                if self.wants(str(entry)) and (
                    file := InputFile.at(Path(str(entry.locate())), provenance_name(f"{owner}/{entry}"))
                ):
                    yield file

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
            try:
                yield Document(html_to_text(description) if looks_like_html(description) else description)
            except RefusedError as refused:
                yield Document(None, reason=str(refused))


class Licenses(InstalledFiles):
    """License, copying and notice files of distributions."""

    def wants(self, name: str) -> bool:
        """LICENSE, LICENCE, COPYING, COPYRIGHT and NOTICE files that are not programs."""
        path = Path(name)
        return path.stem.upper().startswith(("LICEN", "COPYING", "COPYRIGHT", "NOTICE")) and path.suffix.lower() in (
            "", ".txt", ".md", ".rst", ".html", ".apache", ".bsd", ".mit",
        )  # fmt: skip

    def read(self, file: InputFile) -> Iterator[Document]:
        """The whole file."""
        yield text_or_reason(Path(file.location).read_bytes())
