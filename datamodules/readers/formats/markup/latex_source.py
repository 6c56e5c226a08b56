r"""LaTeX source before its macros: comments, branches that are never taken, and verbatim text.

TeX decides by running the document what a % is. Here it is text in verbatim environments, in \verb and in addresses,
and begins a comment elsewhere; that is right but for macros that change the meaning of characters.
"""

import re

_VERBATIM = (
    "verbatim", "Verbatim", "BVerbatim", "LVerbatim", "SaveVerbatim", "verbatimtab", "lstlisting", "minted", "alltt",
    "sagesilent", "sageblock", "pycode", "pyconsole", "asy", "luacode", "spverbatim", "tcblisting", "Sinput", "Soutput",
)  # fmt: skip
_DROPPED = ("comment", "filecontents")
_OWN_VERBATIM = re.compile(
    r"\\(?:lstnewenvironment|DefineVerbatimEnvironment|newverbatim|DefineShortVerb|newtcblisting)\s*+\{([A-Za-z]{1,40}\*?)\}"
)
_OWN_MINTED = re.compile(r"\\newminted(?:\[([A-Za-z]{1,40})\]|\s*+\{([A-Za-z]{1,40})\})")
_OWN_COMMENT = re.compile(r"\\excludecomment\s*+\{([A-Za-z]{1,40})\}")
_COMMENT = re.compile(r"(?<!\\)(?:\\\\)*+%")
_ADDRESS = re.compile(r"\\(?:url|href|path|nolinkurl|burl|hyperref|verb|lstinline|mintinline|Verb)(?![A-Za-z])")
_WITHIN_LINE = re.compile(
    r"\\(?:url|href|path|nolinkurl|burl)\s*+(?:\[[^\[\]\n]*+\])?+\s*+\{(?:[^{}\n\\]|\\.|\{[^{}\n]*+\})*+\}"
    r"|\\(?:url|path)([|!+/#~])[^\n]*?\1"
    r"|\\(?:verb|Verb)\*?+([^A-Za-z\s*])[^\n]*?\2"
    r"|\\lstinline\s*+(?:\[[^\[\]\n]*+\])?+([^A-Za-z\s*{])[^\n]*?\3|\\mintinline\s*+\{[^{}\n]*+\}([^A-Za-z\s*{])[^\n]*?\4"
    r"|\\.|(?P<comment>%)"
)
_INLINE = re.compile(
    r"(?<!\\)\\(?:(?:verb|Verb)\*?+([^A-Za-z\s*])[^\n]{0,2000}?\1"
    r"|lstinline\s*+(?:\[[^\[\]\n]*+\])?+([^A-Za-z\s*{])[^\n]{0,2000}?\2)"
)
_CONDITIONAL = re.compile(
    r"\\(?:newif|def|newcommand|renewcommand)\s*+\{?+\s*+\\if[A-Za-z@]*+"
    r"|\\let\s*+\\if[A-Za-z@]*+\s*+=?+\s*+(?:\\if[A-Za-z@]*+)?+"
    r"|\\(?P<name>if[A-Za-z@]*+|else|fi)(?![A-Za-z@])(?P<zero>\s?0(?![0-9]))?+"
)
_NO_CONDITIONALS = frozenset({
    "iff", "ifthenelse", "ifstrequal", "ifstrempty", "ifblank", "ifdefempty", "ifdefstring", "ifbool", "iftoggle",
    "ifcsdef", "ifcsundef", "ifundef", "ifnumcomp", "ifnumequal", "ifnumless", "ifnumgreater", "ifboolexpr", "ifinlist",
    "iflanguage", "ifstrcmp", "ifdefequal", "ifcsstring", "ifthispageodd", "ifpgfplots", "ifboolexpe", "ifempty",
})  # fmt: skip
_MARKS = re.compile("[\x01\x02]")
_PLACE = re.compile("\x01([0-9]{1,9})\x02")


class LatexSources:
    """Sources of a paper with verbatim text set aside, so that no macro, input or end of the text is found in it.

    Args:
        main: source of the main file, which may define environments of verbatim text and of comments.
    """

    def __init__(self, main: str) -> None:
        verbatim = [match[1] for match in _OWN_VERBATIM.finditer(main)]
        verbatim += [match[1] or f"{match[2]}code" for match in _OWN_MINTED.finditer(main)]
        self.dropped = (*_DROPPED, *(match[1] for match in _OWN_COMMENT.finditer(main)))
        self.verbatim = (*_VERBATIM, *verbatim)
        self._begin = _beginnings(self.verbatim)
        self._aside: list[str] = []

    def prepared(self, source: str) -> str:
        r"""A source without comments and branches never taken, up to \endinput."""
        stripped = strip_comments(_MARKS.sub("", source), self.verbatim, self.dropped)
        parts: list[str] = []
        position = 0
        while match := self._begin.search(stripped, position):
            end = _end_of(stripped, match[1], match.end())
            parts += [
                self._without_verb(stripped[position : match.start()]),
                self._place(stripped[match.start() : end]),
            ]
            position = end
        parts.append(self._without_verb(stripped[position:]))
        return without_false_branches("".join(parts)).partition("\\endinput")[0]

    def restored(self, text: str) -> str:
        """A text with its verbatim parts."""
        return _PLACE.sub(lambda match: self._aside[int(match[1])], text)

    def _without_verb(self, text: str) -> str:
        return _INLINE.sub(lambda match: self._place(match[0]), text)

    def _place(self, text: str) -> str:
        self._aside.append(text)
        return f"\x01{len(self._aside) - 1}\x02"


def _beginnings(names: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(rf"\\begin\{{((?:{'|'.join(map(re.escape, names))})\*?+)\}}")


def _end_of(source: str, name: str, start: int) -> int:
    end = source.find(f"\\end{{{name}}}", start)
    return len(source) if end < 0 else end + len(name) + 6


def strip_comments(source: str, verbatim: tuple[str, ...] = _VERBATIM, dropped: tuple[str, ...] = _DROPPED) -> str:
    r"""A source without comments: from each % that no backslash makes a character to the end of its line.

    A line that was only a comment goes with its end, as TeX reads it, and so do environments of comments; verbatim text
    and addresses are left alone. Line ends of any system are line feeds.

    Args:
        source: a source.
        verbatim: names of environments in which nothing is a comment.
        dropped: names of environments that are comments.
    """
    begin = _beginnings((*verbatim, *dropped))
    kept: list[str] = []
    inside: str | None = None
    drops = False
    for line in source.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        if inside is not None:
            before, found, after = line.partition(inside)
            if not drops:
                kept.append(line)
            elif found and after.strip():
                kept.append(after)
            if found:
                inside = None
            continue
        start = _comment_start(line)
        if start == 0 or (start > 0 and not line[:start].strip()):
            continue
        line = line if start < 0 else line[:start].rstrip()
        begun = list(begin.finditer(line)) if "\\begin{" in line else []
        if not begun:
            kept.append(line)
            continue
        name = begun[-1][1]
        drops = name.rstrip("*") in dropped
        end = f"\\end{{{name}}}"
        before, after = line[: begun[-1].start()], line[begun[-1].end() :]
        if end in after:
            line = before + after.partition(end)[2] if drops else line
        else:
            inside = end
            line = before if drops else line
        if line.strip() or not drops:
            kept.append(line)
    return "\n".join(kept)


def _comment_start(line: str) -> int:
    """Position of the % that begins a comment, or -1."""
    if "%" not in line:
        return -1
    if _ADDRESS.search(line):
        return next((match.start() for match in _WITHIN_LINE.finditer(line) if match["comment"]), -1)
    found = _COMMENT.search(line)
    return found.end() - 1 if found else -1


def without_false_branches(source: str) -> str:
    r"""A source without what \iffalse (and \if0) hides; other conditionals, which only TeX can decide, stay."""
    if "\\iffalse" not in source and "\\iftrue" not in source and not re.search(r"\\if\s?0", source):
        return source
    parts: list[str] = []
    # Of each open conditional: None for those that stay, else whether the branch that is open is taken.
    taken: list[bool | None] = []
    hidden = position = 0
    for match in _CONDITIONAL.finditer(source):
        name = match["name"]
        if name is None or name in _NO_CONDITIONALS:
            continue
        decided = {"iffalse": False, "iftrue": True}.get(name, False if name == "if" and match["zero"] else None)
        if not hidden:
            parts.append(source[position : match.start()])
        position = match.end() if name != "if" or decided is False else match.start() + 3
        stays = False
        if name.startswith("if"):
            taken.append(decided)
            hidden += decided is False
            stays = decided is None
        elif not taken:
            stays = True
        elif name == "else":
            if taken[-1] is None:
                stays = True
            else:
                hidden += 1 if taken[-1] else -1
                taken[-1] = not taken[-1]
        else:
            last = taken.pop()
            hidden -= last is False
            stays = last is None
        if stays and not hidden:
            parts.append(source[match.start() : position])
    if hidden:  # a branch that ends in another file, or never
        return source
    return "".join([*parts, source[position:]])
