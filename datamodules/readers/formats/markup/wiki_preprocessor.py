"""Wikitext before its parser: templates, comments, references and verbatim text, found in one pass as MediaWiki does.

A parser of markup tries and fails at every opening, which costs minutes where braces are nested. Here braces are a
stack (MediaWiki's own preprocessor), and what is verbatim is set aside, so that nothing in it is taken for markup.
"""

import html
import re

from datamodules.readers.formats.markup.wiki_templates import rendered

GONE = "\x01"
"""Where something was that shows nothing: brackets around it may be empty for that reason."""
_OPEN, _CLOSE, _BLOCK = "\x02", "\x03", "\x04"
_LITERAL = {"{": "\x05", "}": "\x06", "=": "\x07"}
"""Characters that are no markup any more."""
_RESTORED = str.maketrans({mark: character for character, mark in _LITERAL.items()})
MARKS = re.compile("[\x00-\x08]")
"""Characters that text cannot have, used as marks of other things."""
MAX_TEMPLATE_DEPTH = 40
"""Templates within each other, as MediaWiki allows; what is deeper shows nothing."""

_VERBATIM = frozenset({"nowiki", "pre", "syntaxhighlight", "source", "math", "chem", "ce"})
_DROPPED = frozenset({
    "ref", "references", "gallery", "timeline", "score", "imagemap", "graph", "mapframe", "maplink", "templatestyles",
    "categorytree", "style", "script", "inputbox", "indicator", "templatedata", "hiero", "rss", "section", "chart",
})  # fmt: skip
_TOKEN = re.compile(
    rf"<!--|<(?P<tag>{'|'.join(sorted(_VERBATIM | _DROPPED))})(?P<attributes>(?:\s[^<>]{{0,1000}}|)/?)>"
    r"|(?P<open>\{{2,})|(?P<close>\}{2,})|\[\[|\]\]|\|",
    re.I,
)
_ENDS = {name: re.compile(rf"</{name}\s*>", re.I) for name in _VERBATIM | _DROPPED}
_PLACE = re.compile(f"{_OPEN}([0-9]{{1,9}}){_CLOSE}")
_BLOCK_PLACE = re.compile(f"{_BLOCK}([0-9]{{1,9}}){_CLOSE}")
_TABLE_TAG = re.compile(r"<(?:(/)?table\b|/?p\b(?!\s*=))[^<>]{0,1000}>", re.I)
_NOWIKI = re.compile(r"</?nowiki\s*/?>", re.I)


class _Braces:
    """A run of braces that is open, and the arguments within it so far."""

    __slots__ = ("arguments", "count", "links", "parts")

    def __init__(self, count: int) -> None:
        self.count, self.links = count, 0
        self.arguments: list[str] = []
        self.parts: list[str] = []

    def taken(self) -> list[str]:
        arguments = [*self.arguments, "".join(self.parts)]
        self.arguments, self.parts, self.links = [], [], 0
        return arguments


class Preprocessor:
    """Markup without templates and verbatim text, and what was set aside.

    Args:
        markup: source of a page.

    Attributes:
        text: the markup for the parser.
        unclosed: openings of templates that nothing closes.
    """

    def __init__(self, markup: str) -> None:
        self._aside: list[str] = []
        self.unclosed = 0
        self.text = _without_tables(_without_html_tables(self._scanned(MARKS.sub("", markup))))

    def set_aside(self, text: str, block: bool = False) -> str:
        """A mark for text in which nothing is markup; a block is a paragraph with its white space."""
        self._aside.append(text)
        place = f"{_BLOCK if block else _OPEN}{len(self._aside) - 1}{_CLOSE}"
        return f"\n\n{place}\n\n" if block else place

    def restored(self, text: str) -> str:
        """A text with what was set aside in its place."""
        for place in (_PLACE, _BLOCK_PLACE):
            text = place.sub(lambda match: self._aside[int(match[1])], text)
        return text.translate(_RESTORED)

    def _scanned(self, markup: str) -> str:
        stack = [_Braces(0)]
        without_end: set[str] = set()
        position = 0
        while match := _TOKEN.search(markup, position):
            top = stack[-1]
            top.parts.append(markup[position : match.start()])
            position = match.end()
            token = match[0]
            if token == "|":
                if len(stack) > 1 and not top.links:
                    top.arguments.append("".join(top.parts))
                    top.parts = []
                else:
                    top.parts.append(token)
            elif match["open"]:
                stack.append(_Braces(len(token)))
            elif match["close"]:
                self._close(stack, len(token))
            elif token in ("[[", "]]"):
                top.links = top.links + 1 if token == "[[" else max(0, top.links - 1)
                top.parts.append(token)
            elif token == "<!--":
                end = markup.find("-->", position)
                position = len(markup) if end < 0 else end + 3
                before = markup[: match.start()] if match.start() < 200 else markup[match.start() - 200 : match.start()]
                if before.rpartition("\n")[2].strip() == "" and markup.startswith("\n", position):
                    position += 1  # a line that was only a comment
            else:
                position = self._tag(markup, match, top.parts, without_end)
        stack[-1].parts.append(markup[position:])
        return self._flattened(stack)

    def _tag(self, markup: str, match: re.Match[str], parts: list[str], without_end: set[str]) -> int:
        name = match["tag"].lower()
        if match["attributes"].endswith("/"):
            parts.append(GONE if name in _DROPPED else self.set_aside(""))
            return match.end()
        # A name without an end is searched for once.
        end = None if name in without_end else _ENDS[name].search(markup, match.end())
        if end is None:
            without_end.add(name)
            parts.append(match[0])
            return match.end()
        if name in _DROPPED:
            parts.append(GONE)
        else:
            parts.append(self._verbatim(name, markup[match.end() : end.start()], match["attributes"].lower()))
        return end.end()

    def _verbatim(self, name: str, content: str, attributes: str) -> str:
        if name in ("pre", "syntaxhighlight", "source"):
            content = html.unescape(_NOWIKI.sub("", content)) if name == "pre" else content
            lines = [line.rstrip() for line in MARKS.sub("", content).expandtabs(4).split("\n")]
            while lines and not lines[0]:
                del lines[0]
            text = "\n".join(lines).rstrip()
            inline = name != "pre" and "\n" not in text and ("inline" in attributes or name == "source")
            return self.set_aside(text.strip() if inline else text, block=not inline) if text else GONE
        if name == "nowiki":
            return "\n".join(map(self.set_aside, MARKS.sub("", html.unescape(content)).split("\n")))
        return self.set_aside(" ".join(content.split()))

    def _close(self, stack: list[_Braces], count: int) -> None:
        while count >= 2 and len(stack) > 1:
            top = stack[-1]
            taken = min(3, count, top.count)
            arguments = top.taken()
            value = None
            if len(stack) <= MAX_TEMPLATE_DEPTH:
                value = self._shown(arguments, taken == 3)
            top.count -= taken
            count -= taken
            shown = value.replace("=", _LITERAL["="]) if value else GONE
            if top.count >= 2:
                top.parts.append(shown)
                continue
            stack.pop()
            stack[-1].parts.append("{" * top.count + shown)
        # What follows another brace is none of `|}`, the end of a table.
        stack[-1].parts.append(_LITERAL["}"] * count)

    @staticmethod
    def _shown(arguments: list[str], is_parameter: bool) -> str | None:
        if is_parameter:  # {{{name|default}}}
            return arguments[1] if len(arguments) > 1 else None
        name, *parts = arguments
        return rendered(name.replace(GONE, ""), parts) if len(name) < 200 else None

    def _flattened(self, stack: list[_Braces]) -> str:
        parts = list(stack[0].parts)
        for braces in stack[1:]:
            self.unclosed += braces.count // 2
            parts += [_LITERAL["{"] * braces.count, "|".join([*braces.arguments, "".join(braces.parts)])]
        return "".join(parts)


def _without_tables(text: str) -> str:
    """A text without tables, which begin and end with a line; from one that nothing closes on, it is left as it is."""
    if "{|" not in text:
        return text
    kept: list[str] = []
    depth = begun = 0
    lines = text.split("\n")
    for index, line in enumerate(lines):
        start = line.lstrip(" \t:*#")
        if start.startswith("{|"):
            begun = begun if depth else index
            depth += 1
        elif depth and start.startswith("|}"):
            depth -= 1
            if not depth:
                kept.append(GONE + start[2:])
        elif not depth:
            kept.append(line)
    return "\n".join(kept + lines[begun:] if depth else kept)


def _without_html_tables(text: str) -> str:
    """A text without `<table>`s, whose cells need no end, which its parser takes for markup that nothing closes.

    Paragraphs, which need none either, become blank lines. From a table that nothing closes on, all is left as it is.
    """
    if not _TABLE_TAG.search(text):
        return text
    parts: list[str] = []
    depth = position = begun = 0
    for match in _TABLE_TAG.finditer(text):
        is_paragraph = match[0][:2].lower() == "<p" or match[0][:3].lower() == "</p"
        if not depth:
            parts.append(text[position : match.start()])
            position = match.end()
            if is_paragraph:
                parts.append("\n\n")
            if is_paragraph or match[1]:  # the end of no table
                continue
            begun = match.start()
        if not is_paragraph:
            depth += -1 if match[1] else 1
            position = match.end()
            if not depth:
                parts.append(GONE)
    return "".join([*parts, text[begun if depth else position :]])
