"""Wikitext: MediaWiki's markup to text, parsed by mwparserfromhell.

Templates are not expanded, which needs the whole wiki: those of measures, numbers, languages and signs show their
arguments, others nothing. What these would have shown (dates in a box, pronunciations) is lost, and sentences around
them can have gaps.
"""

import gc
import html
import re
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import mwparserfromhell
from mwparserfromhell import nodes

from datamodules.readers.formats.bounded_streams import RefusedError
from datamodules.readers.formats.markup.scripts import scripted
from datamodules.readers.formats.markup.wiki_preprocessor import GONE, MARKS, Preprocessor
from datamodules.readers.formats.markup.wiki_words import LANGUAGES, without_switches

MAX_LIST_DEPTH = 40
"""Markers before a list item; mwparserfromhell's own limit of depth for other markup."""
MAX_BACKTRACKING = 20_000_000
"""Unclosed openings times characters of the page: each makes the parser try the rest of the page once more. At this
limit it takes seconds; articles that people wrote have a hundredth of it."""

MAX_PAGE = 4 * 2**20
"""Characters of a page at most, twice what MediaWiki stores: the parser takes up to 15 microseconds for each."""

_DROPPED_TAGS = frozenset({
    "table", "ref", "references", "gallery", "timeline", "score", "imagemap", "graph", "mapframe", "maplink",
    "templatestyles", "categorytree", "style", "script", "inputbox", "section", "indicator",
})  # fmt: skip
_SINGLE_TAGS = frozenset({
    "br", "hr", "wbr", "li", "dt", "dd", "img", "nobr",
})  # fmt: skip
_MARKUP = re.compile(
    r"\{\{|\}\}|\{\||\|\}(?!\})|\[|\]|<(?P<tag>[a-zA-Z]{1,20})\b[^<>]{0,1000}?(?P<single>/?)>|</(?P<end>[a-zA-Z]{1,20})"
    r"|(?P<broken><[a-zA-Z])"
)
_CLOSES = {"}}": "{{", "|}": "{|", "]": "["}
_LISTS = re.compile(rf"^[*#:;]{{{MAX_LIST_DEPTH + 1}}}", re.M)
_QUOTES = re.compile(r"'{2,}")
_CODE_TAGS = frozenset({"code", "tt", "kbd", "samp"})
_CODE_ITALICS = re.compile(r"''(\w[\w .-]{0,80})''")
_BRACKETS = re.compile(" ?[(（\\[]([^()（）\\[\\]\n]*+)[)）\\]]")
_PUNCTUATION = " ,;:/、，；·\u00a0"
_GONE = re.compile(f" ?(?:{GONE} ?)+([,.;:!?)）、。，]?)")
_GONE_LINES = re.compile(f"^(?:{GONE}[ \t]?)+$", re.M)
_LEFT_TAGS = re.compile(
    r"</?(?:div|span|center|font|small|big|b|i|u|s|em|strong|tr|td|th|ref|sup|sub|blockquote|li|ul|ol|dl|dt|dd|br|hr|"
    r"table|references|gallery|noinclude|includeonly|onlyinclude|nowiki|poem|cite|abbr|code)(?:\s[^<>\n]{0,300})?/?>",
    re.I,
)
"""Tags that nothing closes or opens: MediaWiki shows none of them."""
_HEADING = "\x00"
"""Marks a heading, with its level, until it is known whether any text follows."""


def unclosed(markup: str) -> int:
    """Openings of templates, links, tables and tags that nothing closes, in the order they must be closed; and tags
    without their own end, as `<ref `."""
    stack: list[str] = []
    waiting: Counter[str] = Counter()
    lost = 0
    for match in _MARKUP.finditer(markup):
        token, tag, end = match[0], match["tag"], match["end"]
        if match["broken"]:
            lost += 1
            continue
        if end:
            opening = f"<{end.lower()}"
        elif tag:
            if not match["single"] and tag.lower() not in _SINGLE_TAGS:
                stack.append(f"<{tag.lower()}")
                waiting[stack[-1]] += 1
            continue
        elif token in _CLOSES:
            opening = _CLOSES[token]
        else:
            stack.append(token)
            waiting[token] += 1
            continue
        if not waiting[opening]:
            continue
        while stack:
            waiting[popped := stack.pop()] -= 1
            if popped == opening:
                break
            lost += 1
    return lost + len(stack)


def plain_text(markup: str, dropped_namespaces: Collection[str]) -> str:
    """Text of a page: headings, paragraphs and list items, without tables, references, files and categories.

    Args:
        markup: source of the page.
        dropped_namespaces: lower-case names of namespaces, in the wiki's language too, to which a link is no text.

    Raises:
        RefusedError: `too_large`, `too_deep`, or `unclosed_markup` for a page that the parser would take minutes for.
    """
    if len(markup) > MAX_PAGE:
        raise RefusedError("too_large")
    if _LISTS.search(markup):
        raise RefusedError("too_deep")
    page = Preprocessor(markup)
    if (page.unclosed + unclosed(page.text)) * len(markup) > MAX_BACKTRACKING:
        raise RefusedError("unclosed_markup")
    with _collector_off():
        code = mwparserfromhell.parse(page.text, skip_style_tags=True)
        text = _Renderer(page, frozenset(dropped_namespaces)).text(code)
    text = _LEFT_TAGS.sub("", text) if "<" in text else text
    text = "\n".join(map(_without_quotes, text.split("\n"))) if "''" in text else text
    return _tidied(without_switches(text), page)


@contextmanager
def _collector_off() -> Iterator[None]:
    # The garbage collector looks at all nodes again and again, which makes long pages quadratic; a tree has no circles.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class _Renderer:
    """Text of parsed markup; what must not be taken for markup again is set aside."""

    def __init__(self, page: Preprocessor, dropped: frozenset[str]) -> None:
        self.page, self.dropped = page, dropped

    def text(self, code: Any) -> str:
        parts: list[str] = []
        self._render(code, parts)
        return "".join(parts)

    def _render(self, code: Any, parts: list[str]) -> None:
        # Recursive: the parser itself goes no deeper than 40.
        for node in code.nodes:
            if isinstance(node, nodes.Text):
                parts.append(str(node))
            elif isinstance(node, nodes.HTMLEntity):
                parts.append(self._character(node))
            elif isinstance(node, nodes.Wikilink):
                self._link(node, parts)
            elif isinstance(node, nodes.ExternalLink):
                if node.title is not None:
                    self._render(node.title, parts)
                elif not node.brackets:
                    parts.append(str(node.url))
            elif isinstance(node, nodes.Heading):
                parts.append(f"\n\n{_HEADING}{node.level}")
                self._render(node.title, parts)
                parts.append("\n\n")
            elif isinstance(node, nodes.Tag):
                self._tag(node, parts)

    def _character(self, node: Any) -> str:
        try:
            character = node.normalize()
        except (ValueError, OverflowError):  # no such character
            return str(node)
        if MARKS.match(character):
            return ""
        # Apostrophes and brackets written so are no markup.
        return self.page.set_aside(character) if character in "'[](){}_<>" else character

    def _link(self, node: Any, parts: list[str]) -> None:
        prefix, colon, _ = str(node.title).partition(":")
        name = prefix.strip().lower()
        if colon and (name in self.dropped or name in LANGUAGES):
            parts.append(GONE)
        elif node.text is None:
            parts.append(html.unescape(str(node.title).strip().removeprefix(":")))
        else:
            self._render(node.text, parts)

    def _tag(self, node: Any, parts: list[str]) -> None:
        name = str(node.tag).strip().lower()
        if name == "br":
            parts.append("\n")
        elif name in _DROPPED_TAGS or node.contents is None:
            parts.append(GONE if name in _DROPPED_TAGS and node.wiki_markup is None else "")
        elif name in ("sup", "sub"):
            parts.append(scripted("".join(parts[-3:])[-12:], self.text(node.contents), name == "sup"))
        elif name in _CODE_TAGS:
            text = _CODE_ITALICS.sub(r"\1", self.page.restored(self.text(node.contents).replace(GONE, "")))
            parts.append("\n".join(self.page.set_aside(line) for line in text.split("\n")))
        elif name in ("p", "div", "blockquote", "poem", "center"):
            parts.append("\n\n" if name in ("p", "blockquote") else "\n")
            self._render(node.contents, parts)
            parts.append("\n\n" if name in ("p", "blockquote") else "\n")
        else:
            self._render(node.contents, parts)


def _without_quotes(line: str) -> str:
    """A line without the apostrophes of bold and italics: those that are too many are apostrophes, as in MediaWiki."""
    parts = re.split(r"('{2,})", line)
    if len(parts) == 1:
        return line
    runs = [len(part) for part in parts[1::2]]
    left = [max(0, run - 5) + (run == 4) for run in runs]  # apostrophes in front
    kinds = [min(run - extra, 5) for run, extra in zip(runs, left, strict=True)]
    bold = [index for index, kind in enumerate(kinds) if kind == 3]
    if (len(bold) + kinds.count(5)) % 2 and (kinds.count(2) + kinds.count(5)) % 2:
        # One of the bold marks is an apostrophe and italics: behind one letter, else a word, else a space.
        def rank(index: int) -> int:
            before = parts[2 * index]
            return 2 if before[-1:] in ("", " ") else 0 if before[-2:-1] == " " else 1

        if bold:
            left[min(bold, key=rank)] += 1
    for index, extra in enumerate(left):
        parts[2 * index + 1] = "'" * extra
    return "".join(parts)


def _without_gone(match: re.Match[str]) -> str:
    """What is left of a pair of brackets, some of whose content showed nothing."""
    inside = match[1]
    if GONE not in inside:
        return match[0]
    pieces = inside.split(GONE)
    kept = [index for index, piece in enumerate(pieces) if piece.strip(_PUNCTUATION)]
    if not kept:
        return GONE
    first, last = kept[0], kept[-1]
    if first > 0:
        pieces[first] = pieces[first].lstrip(_PUNCTUATION)
    if last < len(pieces) - 1:
        pieces[last] = pieces[last].rstrip(_PUNCTUATION)
    text = ""
    for piece in pieces[first : last + 1]:
        if piece.lstrip()[:1] in (",", ";"):
            text = text.rstrip(_PUNCTUATION)
        text += piece
    space = " " if match[0].startswith(" ") else ""
    return f"{space}{match[0].lstrip()[0]}{' '.join(text.split())}{match[0][-1]}"


def _without_mark(match: re.Match[str]) -> str:
    return match[1] if match[1] or " " not in match[0] else " "


def _tidied(text: str, page: Preprocessor) -> str:
    """Paragraphs parted by one blank line; headings that no text follows before one of their level or above go."""
    kept: list[tuple[int, str]] = []  # (level of a heading or 0, text)
    for paragraph in re.split(r"\n\s*\n", _GONE_LINES.sub("", text)):
        block = "\n".join(filter(None, (" ".join(line.split()) for line in paragraph.split("\n"))))
        if GONE in block:
            block = _BRACKETS.sub(_without_gone, _BRACKETS.sub(_without_gone, block))
            block = "\n".join(filter(None, (_GONE.sub(_without_mark, line).strip() for line in block.split("\n"))))
        level = int(block[1]) if block.startswith(_HEADING) else 0
        if level:
            block = block[2:].strip()
            while kept and kept[-1][0] >= level:
                kept.pop()
        if block:
            kept.append((level, page.restored(block)))
    while kept and kept[-1][0]:
        kept.pop()
    return "\n\n".join(block for _, block in kept).strip()
