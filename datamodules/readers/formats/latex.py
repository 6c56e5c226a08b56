r"""LaTeX to text: one file without comments, the author's own macros and the preamble.

The rules are RedPajama's (Together 2023, data_prep/arxiv): what comes before the first section and after the
bibliography is removed, formulas stay as they are written. Beyond it, files are put together as \input says rather than
one after another, and macros with arguments are expanded too. TeX is a programming language and this is no TeX: what is
defined in ways not known here stays as it is.
"""

import posixpath
import re
from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Mapping

Load = Callable[[str], str | None]
"""Source of a file by its name within a paper's folder."""

MAX_INPUTS = 500
"""Files put into each other; one that includes itself ends here."""
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
_INPUT = re.compile(r"\\(?:input|include|subfile)\s*\{([^{}\n]{1,300})\}|\\input\s+([\w./-]{1,300})")
_PACKAGES = re.compile(r"\\usepackage\s*+(?:\[[^\]]{0,500}+\])?+\s*+\{([^{}]{1,500}+)\}")
_VERBATIM = re.compile(r"\\begin\{(verbatim|Verbatim|lstlisting|minted)\*?\}")
_DEFINITION = re.compile(
    r"\\(?:(?P<new>(?:re|provide)?newcommand|providecommand|DeclareMathOperator)\*?\s*+\{?+\s*+\\(?P<name>[A-Za-z]++)\s*+"
    r"\}?+\s*+(?:\[(?P<count>\d)\])?+\s*+(?P<default>\[)?+|"
    r"def\s*+\\(?P<plain>[A-Za-z]++)\s*+(?P<parameters>(?:#\d)*+)\s*+)(?=\{)"
)
_COMMAND = re.compile(r"\\([A-Za-z]+)")
_PARAMETER = re.compile(r"#(\d)")
_BLANKS = re.compile(r"(?<![ \t])[ \t]*+\n(?:[ \t]*+\n)++")
_COMMENT = re.compile(r"(?<!\\)(?:\\\\)*+%")
_BRACE = re.compile(r"\\.|[{}]", re.S)


def strip_comments(source: str) -> str:
    r"""A source without comments: from each % that no backslash makes a character to the end of its line.

    A line that was only a comment goes with its end, as TeX reads it; verbatim text is left alone.
    """
    kept: list[str] = []
    inside: str | None = None
    for line in source.replace("\r\n", "\n").split("\n"):
        if inside is not None:
            kept.append(line)
            if inside in line:
                inside = None
            continue
        start = _comment_start(line)
        if start == 0 or (start > 0 and not line[:start].strip()):
            continue
        line = line if start < 0 else line[:start].rstrip()
        kept.append(line)
        if begun := list(_VERBATIM.finditer(line)):
            end = f"\\end{{{begun[-1][1]}"
            inside = None if end in line[begun[-1].end() :] else end
    return "\n".join(kept)


def _comment_start(line: str) -> int:
    """Position of the first % behind an even number of backslashes, or -1."""
    found = _COMMENT.search(line)
    return found.end() - 1 if found else -1


def main_file(files: Mapping[str, str]) -> str | None:
    r"""Name of the file that is compiled: the one with \documentclass and \begin{document} nearest the top."""
    for marks in (("\\documentclass", "\\begin{document}"), ("\\documentstyle",), ("\\documentclass",), ("\\section",)):
        found = [name for name, source in files.items() if all(mark in source for mark in marks)]
        if found:
            return min(found, key=lambda name: (name.count("/"), -len(files[name]), name))
    return None


def flatten(main: str, load: Load, max_characters: int) -> str:
    r"""The main file with what \input, \include and \subfile name in its place, or nothing where it is not there.

    Args:
        main: name of the file, within the paper's folder.
        load: gives the source of a name within the paper's folder, or None.
        limit: characters at most; what would exceed it is left out.
    """
    parts: list[str] = []
    size = inputs = 0
    stack: list[tuple[str, int]] = [(strip_comments(load(main) or ""), 0)]
    while stack and size <= max_characters:
        source, position = stack.pop()
        match = _INPUT.search(source, position)
        part = source[position : match.start() if match else len(source)]
        parts.append(part)
        size += len(part)
        if match:
            stack.append((source, match.end()))
            inputs += 1
            name = (match[1] or match[2]).strip().strip('"')
            if inputs <= MAX_INPUTS and (found := _load_first(load, main, f"{name}.tex", name)) is not None:
                stack.append((strip_comments(found), 0))
    return "".join(parts)[:max_characters]


def _load_first(load: Load, main: str, *names: str) -> str | None:
    # As TeX looks: from the folder of the main file. No path leads out of the paper's.
    for name in names:
        for base in dict.fromkeys((posixpath.dirname(main), "")):
            path = posixpath.normpath(posixpath.join(base, name))
            if not path.startswith(("/", "..")) and (source := load(path)) is not None:
                return source
    return None


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
        if not _uses(body, name):  # a redefinition in terms of itself has no end
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
        load: see `flatten`.
        limit: characters at most while files are put together.
    """
    whole = flatten(main, load, max_characters)
    macros: dict[str, tuple[int, str]] = {}
    for name in [name for names in _PACKAGES.findall(whole) for name in names.split(",")][:MAX_INPUTS]:
        # Styles of the author's own; those that everybody has are not in the folder.
        macros |= definitions(strip_comments(_load_first(load, main, f"{name.strip()}.sty") or ""))[0]
    defined, source = definitions(whole)
    start = _SECTION.search(source)
    if start is None:
        return None
    source = source[start.start() :]
    end = _BIBLIOGRAPHY.search(source)
    source = source[: end.start()] if end else source
    source = expand(source, macros | defined)
    return _BLANKS.sub("\n\n", source.replace("\\end{document}", "")).strip()
