r"""LaTeX to text: one file without comments, the author's own macros and the preamble.

The rules are RedPajama's (Together 2023, data_prep/arxiv): what comes before the first section and after the
bibliography is removed, formulas stay as they are written; of a book with a bibliography in each chapter all chapters
are kept. Beyond it, files are put together as \input says rather than one after another, and macros with arguments are
expanded too. TeX is a programming language and this is no TeX: what is defined in ways not known here stays as it is.
"""

import posixpath
import re
from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Mapping

from datamodules.readers.formats.markup.latex_source import LatexSources

Load = Callable[[str], str | None]
"""Source of a file by its name within a paper's folder."""

MAX_INPUTS = 500
"""Files put into each other; one that includes itself ends here."""
MAX_COMMANDS = 10_000
"""Commands that include files, looked at in all."""
MAX_PASSES = 4
"""Times macros are expanded: macros within macros, as deep as people write them."""
MAX_GROWTH = 4
"""Times the size that expansion may reach: macros that double each time reach any size (billion laughs)."""
MAX_ARGUMENT = 20_000
"""Characters of a macro's argument or body at most; longer ones are not simple."""

_SECTION = re.compile(
    r"\\(?:part|chapter|section|subsection|subsubsection|paragraph|subparagraph)\b\*?\s*+"
    r"(?:\[[^\]]{0,1000}+\])?+\s*+\{"
)
_BIBLIOGRAPHY = re.compile(
    r"\\appendix\b|\\begin\{(?:references|REFERENCES|thebibliography)\}|\\bibliography\{|\\printbibliography\b"
)
_CHAPTER = re.compile(r"\\appendix\b|\\chapter\b\*?\s*+(?:\[[^\]]{0,1000}+\])?+\s*+\{")
_INPUT = re.compile(
    r"\\(?:input|include|subfile)\s*\{([^{}\n]{1,300})\}|\\input\s+([\w./-]{1,300})|"
    r"\\(?:sub)?(?:import|includefrom|inputfrom)\*?\s*\{([^{}\n]{0,300})\}\s*\{([^{}\n]{1,300})\}"
)
_BEGIN_DOCUMENT, _END_DOCUMENT = "\\begin{document}", "\\end{document}"
_PACKAGES = re.compile(r"\\usepackage\s*+(?:\[[^\]]{0,500}+\])?+\s*+\{([^{}]{1,500}+)\}")
_DEFINITION = re.compile(
    r"\\(?:(?P<new>(?:re|provide)?newcommand|providecommand|DeclareMathOperator)\*?\s*+\{?+\s*+\\(?P<name>[A-Za-z]++)\s*+"
    r"\}?+\s*+(?:\[(?P<count>\d)\])?+\s*+(?P<default>\[)?+|"
    r"def\s*+\\(?P<plain>[A-Za-z]++)\s*+(?P<parameters>(?:#\d)*+)\s*+)(?=\{)"
)
_STRUCTURE = frozenset({
    "part", "chapter", "section", "subsection", "subsubsection", "paragraph", "subparagraph", "begin", "end", "item",
    "input", "include", "bibliography", "printbibliography", "appendix", "label", "ref", "cite", "caption", "footnote",
    "title", "author", "maketitle", "documentclass",
})  # fmt: skip
"""Commands by which a text is read: what an author makes of their looks is none of it."""
_COMMAND = re.compile(r"\\([A-Za-z]+)")
_PARAMETER = re.compile(r"#(\d)")
_BLANKS = re.compile(r"(?<![ \t])[ \t]*+\n(?:[ \t]*+\n)++")
_BRACE = re.compile(r"\\.|[{}]", re.S)


def main_file(files: Mapping[str, str]) -> str | None:
    r"""Name of the file that is compiled: the one with \documentclass and \begin{document} nearest the top.

    Of several it is the longest; where the class is named in a preamble, \begin{document} says it.
    """
    both = ("\\documentclass", "\\begin{document}")
    for marks in (both, ("\\documentstyle",), ("\\begin{document}",), ("\\documentclass",), ("\\section",)):
        found = [name for name, source in files.items() if all(mark in source for mark in marks)]
        if found:
            return min(found, key=lambda name: (name.count("/"), -len(files[name]), name))
    return None


class Paper:
    r"""A paper's sources put together: what \input, \include, \import and \subfile name in its place.

    Args:
        main: name of the main file, within the paper's folder.
        load: gives the source of a name within the paper's folder, or None.
        max_characters: characters of all files that are read; what would exceed it is left out.
    """

    def __init__(self, main: str, load: Load, max_characters: int) -> None:
        self.main, self.load, self.left = main, load, max_characters
        self.max_characters = max_characters
        source = load(main) or ""
        self.sources = LatexSources(source)
        self._prepared: dict[str, str | None] = {main: self.sources.prepared(source[:max_characters])}

    def flat(self) -> str:
        """All in one, up to the end of the document, with verbatim text set aside."""
        parts: list[str] = []
        entered: list[str] = []
        size = inputs = 0
        whole = (self._prepared[self.main] or "").partition(_END_DOCUMENT)[0]
        begins = _BEGIN_DOCUMENT in whole  # else one of its parts does
        stack: list[tuple[str, int, str]] = [(whole, 0, self.main)]
        while stack and size <= self.max_characters:
            source, position, file = stack.pop()
            match = _INPUT.search(source, position) if inputs < MAX_COMMANDS else None
            part = source[position : match.start() if match else len(source)]
            parts.append(part)
            size += len(part)
            if match:
                stack.append((source, match.end(), file))
                inputs += 1
                name = posixpath.join(match[3] or "", match[1] or match[2] or match[4]).strip().strip('"')
                found = self.first(posixpath.dirname(file), f"{name}.tex", name) if len(entered) < MAX_INPUTS else None
                if found is not None and all(found[0] != open_file for _, _, open_file in stack):
                    entered.append(found[0])
                    stack.append((_body(found[1]) if begins else found[1].partition(_END_DOCUMENT)[0], 0, found[0]))
        return "".join(parts)[: self.max_characters]

    def first(self, folder: str, *names: str) -> tuple[str, str] | None:
        """Name and source of the first file there is, as TeX looks: from the main file's folder, then from beside.

        No path leads out of the paper's folder.
        """
        for name in names:
            for base in dict.fromkeys((posixpath.dirname(self.main), "", folder)):
                path = posixpath.normpath(posixpath.join(base, name))
                if path.startswith(("/", "..")):
                    continue
                if path not in self._prepared:
                    source = self.load(path)
                    if source is not None and len(source) > self.left:
                        source = None
                    self.left -= len(source or "")
                    self._prepared[path] = None if source is None else self.sources.prepared(source)
                if (prepared := self._prepared[path]) is not None:
                    return path, prepared
        return None


def _body(source: str) -> str:
    """What an included file gives: of one that is a document by itself (subfiles, standalone) its body."""
    return source.partition(_BEGIN_DOCUMENT)[2].partition(_END_DOCUMENT)[0] if _BEGIN_DOCUMENT in source else source


class _Groups:
    """Where the groups of a source end, found in one pass over its braces: unclosed ones are no search each."""

    def __init__(self, source: str) -> None:
        self.starts, self.ends = array("q"), array("q")
        # More than this many open at once are not closed within the limit, but for the last.
        opened: deque[int] = deque(maxlen=MAX_ARGUMENT)
        for brace in _BRACE.finditer(source):
            if brace[0] == "{":
                opened.append(len(self.starts))
                self.starts.append(brace.start())
                self.ends.append(-1)
            elif brace[0] == "}" and opened:
                self.ends[opened.pop()] = brace.end()

    def end(self, start: int) -> int:
        """Position behind the brace that closes the one at `start`, or -1 where none does within the limit."""
        end = self.ends[bisect_left(self.starts, start)]
        return end if end <= start + MAX_ARGUMENT else -1


def definitions(source: str) -> tuple[dict[str, tuple[int, str]], str]:
    r"""Macros that a source defines, and the source without these definitions.

    Returns:
        name -> (number of arguments, body), and what is left. Macros with an optional argument are not taken.
    """
    macros: dict[str, tuple[int, str]] = {}
    kept: list[str] = []
    position = 0
    groups = _Groups(source)
    for match in _DEFINITION.finditer(source):
        if match.start() < position or match["default"]:
            continue
        end = groups.end(match.end())
        if end < 0:
            continue
        body = source[match.end() + 1 : end - 1]
        if match["plain"]:
            name, count = match["plain"], match["parameters"].count("#")
        else:
            name, count = match["name"], int(match["count"] or 0)
            if match["new"] == "DeclareMathOperator":
                body = f"\\operatorname{{{body}}}"
        if name in _STRUCTURE:  # how a heading looks
            kept.append(source[position : match.start()])
            position = end
        elif not _uses(body, name):  # a redefinition in terms of itself has no end
            macros[name] = (count, body)
            kept.append(source[position : match.start()])
            position = end
    kept.append(source[position:])
    return macros, "".join(kept)


def _uses(body: str, name: str) -> bool:
    # A pattern for each name would cost more to compile than all bodies to search.
    command = f"\\{name}"
    place = body.find(command)
    while place >= 0:
        follows = body[place + len(command) : place + len(command) + 1]
        if not (follows.isascii() and follows.isalpha()):
            return True
        place = body.find(command, place + 1)
    return False


def expand(source: str, macros: Mapping[str, tuple[int, str]]) -> str:
    """A source with macros replaced by their bodies; one whose arguments are not in braces stays as it is."""
    max_characters = MAX_GROWTH * len(source) + 10_000
    for _ in range(MAX_PASSES):
        expanded, changed = _expand_once(source, macros, max_characters)
        if not changed:
            break
        source = expanded
    return source


def _expand_once(source: str, macros: Mapping[str, tuple[int, str]], max_characters: int) -> tuple[str, bool]:
    parts: list[str] = []
    groups = _Groups(source)
    position = size = 0
    changed = False
    for match in _COMMAND.finditer(source):
        if match.start() < position or match[1] not in macros or (match.start() and source[match.start() - 1] == "\\"):
            continue
        count, body = macros[match[1]]
        arguments: list[str] = []
        end = match.end()
        for _ in range(count):
            after = end
            while after < len(source) and source[after] in " \t\n":
                after += 1
            close = groups.end(after) if source[after : after + 1] == "{" else -1
            if close < 0:
                break
            arguments.append(source[after + 1 : close - 1])
            end = close
        if len(arguments) < count:
            continue
        uses = _PARAMETER.findall(body) if count else []
        if (
            size + len(body) + sum(len(arguments[int(use) - 1]) for use in uses if 0 < int(use) <= count)
            > max_characters
        ):
            return source, False
        value = _substituted(body, arguments)
        # \R followed by a letter was parted by a space that TeX swallows; the body may end in a command.
        follows = source[end : end + 1]
        if follows.isalpha() and re.search(r"\\[A-Za-z]+$", value):
            value += " "
        parts += [source[position : match.start()], value]
        size += match.start() - position + len(value)
        if size > max_characters:
            return source, False
        position, changed = end, True
    parts.append(source[position:])
    return "".join(parts), changed


def _substituted(body: str, arguments: list[str]) -> str:
    def argument(parameter: re.Match[str]) -> str:
        number = int(parameter[1])
        return arguments[number - 1] if 0 < number <= len(arguments) else parameter[0]

    return _PARAMETER.sub(argument, body)


def paper(main: str, load: Load, max_characters: int) -> str | None:
    """The text of a paper, or None where no section begins.

    Args:
        main: name of its main file.
        load: gives the source of a name within the paper's folder, or None.
        max_characters: characters of all files that are read.
    """
    sources = Paper(main, load, max_characters)
    whole = sources.flat()
    macros: dict[str, tuple[int, str]] = {}
    names = (name.strip() for names in _PACKAGES.findall(whole) for name in names.split(","))
    for name in list(dict.fromkeys(names))[:MAX_INPUTS]:
        # Styles of the author's own; those that everybody has are not in the folder.
        if (style := sources.first("", f"{name}.sty")) is not None:
            macros |= definitions(style[1])[0]
    defined, source = definitions(whole)
    preamble, begin, body = source.partition(_BEGIN_DOCUMENT)
    source = body if begin else preamble
    macros |= defined
    if (start := _SECTION.search(source)) is None:  # headings may be macros
        source = expand(source, macros)
        start = _SECTION.search(source)
    if start is None:
        return None
    source = expand(_without_bibliographies(source[start.start() :]), macros)
    return sources.sources.restored(_BLANKS.sub("\n\n", source).strip())


def _without_bibliographies(source: str) -> str:
    """A text up to its bibliography or appendix; one that a further chapter follows is that of a chapter."""
    parts: list[str] = []
    position = 0
    while end := _BIBLIOGRAPHY.search(source, position):
        parts.append(source[position : end.start()])
        chapter = None if end[0].startswith("\\appendix") else _CHAPTER.search(source, end.end())
        if chapter is None or chapter[0].startswith("\\appendix"):
            return "".join(parts)
        position = chapter.start()
    return "".join([*parts, source[position:]])
