"""Wikitext: MediaWiki's markup to text, parsed by mwparserfromhell.

Templates are dropped, not expanded: expanding needs the whole wiki. What they would have shown (dates in a box,
pronunciations) is lost, and sentences around them can have gaps.
"""

import re
from collections import Counter
from collections.abc import Collection
from typing import Any

import mwparserfromhell
from mwparserfromhell import nodes

from datamodules.readers.formats.bounded_streams import RefusedError

MAX_LIST_DEPTH = 40
"""Markers before a list item; mwparserfromhell's own limit of depth for other markup."""
MAX_BACKTRACKING = 20_000_000
"""Unclosed openings times characters of the page: each makes the parser try the rest of the page once more. At this
limit it takes seconds; articles that people wrote have a hundredth of it."""

_DROPPED_TAGS = frozenset({
    "table", "ref", "references", "gallery", "timeline", "score", "imagemap", "graph", "mapframe", "maplink",
    "templatestyles", "categorytree", "style", "script", "inputbox", "section", "indicator",
})  # fmt: skip
_SINGLE_TAGS = frozenset({
    "br", "hr", "wbr", "li", "dt", "dd", "img", "nobr",
})  # fmt: skip
_MARKUP = re.compile(
    r"\{\{|\}\}|\{\||\|\}(?!\})|\[|\]|<(?P<tag>[a-zA-Z]{1,20})\b[^<>]{0,1000}?(?P<single>/?)>|</(?P<end>[a-zA-Z]{1,20})"
)
_CLOSES = {"}}": "{{", "|}": "{|", "]": "["}
_LISTS = re.compile(rf"^[*#:;]{{{MAX_LIST_DEPTH + 1}}}", re.M)
_QUOTES = re.compile(r"'{2,5}")
_SWITCHES = re.compile(r"__[A-Z]{3,24}__")
_HEADING = "\x00"
"""Marks a heading, with its level, until it is known whether any text follows."""


def unclosed(markup: str) -> int:
    """Openings of templates, links, tables and tags that nothing closes, in the order they must be closed."""
    stack: list[str] = []
    waiting: Counter[str] = Counter()
    lost = 0
    for match in _MARKUP.finditer(markup):
        token, tag, end = match[0], match["tag"], match["end"]
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
    """Text of a page: headings, paragraphs and list items, without templates, tables, references, files and categories.

    Args:
        markup: source of the page.
        dropped_namespaces: lower-case names of namespaces, in the wiki's language too, to which a link is no text.

    Raises:
        RefusedError: `too_deep`, or `unclosed_markup` for a page that the parser would take minutes for.
    """
    if _LISTS.search(markup):
        raise RefusedError("too_deep")
    if unclosed(markup) * len(markup) > MAX_BACKTRACKING:
        raise RefusedError("unclosed_markup")
    markup = markup.replace(_HEADING, "")
    parts: list[str] = []
    _render(mwparserfromhell.parse(markup, skip_style_tags=True), frozenset(dropped_namespaces), parts)
    text = _SWITCHES.sub("", _QUOTES.sub("", "".join(parts)))
    return _tidied(text)


def _render(code: Any, dropped: frozenset[str], parts: list[str]) -> None:
    # Recursive: the parser itself goes no deeper than 40.
    for node in code.nodes:
        if isinstance(node, nodes.Text):
            parts.append(str(node))
        elif isinstance(node, nodes.HTMLEntity):
            try:
                parts.append(node.normalize())
            except (ValueError, OverflowError):  # no such character
                parts.append(str(node))
        elif isinstance(node, nodes.Wikilink):
            prefix, colon, _ = str(node.title).partition(":")
            if colon and prefix.strip().lower() in dropped:
                continue
            if node.text is None:
                parts.append(str(node.title).lstrip(":"))
            else:
                _render(node.text, dropped, parts)
        elif isinstance(node, nodes.ExternalLink):
            if node.title is not None:
                _render(node.title, dropped, parts)
            elif not node.brackets:
                parts.append(str(node.url))
        elif isinstance(node, nodes.Heading):
            parts.append(f"\n\n{_HEADING}{node.level}")
            _render(node.title, dropped, parts)
            parts.append("\n\n")
        elif isinstance(node, nodes.Tag):
            name = str(node.tag).strip().lower()
            if name == "br":
                parts.append("\n")
            elif name not in _DROPPED_TAGS and node.contents is not None:
                _render(node.contents, dropped, parts)


def _tidied(text: str) -> str:
    """Paragraphs parted by one blank line; headings that no text follows before one of their level or above go."""
    kept: list[tuple[int, str]] = []  # (level of a heading or 0, text)
    for paragraph in re.split(r"\n\s*\n", text):
        lines = (" ".join(line.split()) for line in paragraph.split("\n"))
        block = "\n".join(line for line in lines if line)
        # Templates leave brackets with nothing but punctuation behind.
        block = re.sub(r" ?\([\s,;:]{0,20}\)", "", block).strip()
        level = int(block[1]) if block.startswith(_HEADING) else 0
        if level:
            block = block[2:].strip()
            while kept and kept[-1][0] >= level:
                kept.pop()
        if block:
            kept.append((level, block))
    while kept and kept[-1][0]:
        kept.pop()
    return "\n\n".join(block for _, block in kept)
