"""Text of HTML by Resiliparse: all of a body, or its main content.

Resiliparse's `main_content` drops more than menus: lists less than four levels below the body, and what is alone in
some kinds of elements. That suits crawls, where most lists are menus; manuals and books lose text by it.
"""

import re

from datamodules.readers.formats.markup.scripts import scripted
from datamodules.readers.formats.web.html_bounds import refuse_slow

_FALLBACKS = ("img", "area", "embed", "video", "audio")
"""Elements whose text is shown where they are not: descriptions of pictures, "your browser does not support ..."."""
_NAVIGATION = ("nav", "[role=navigation]", "[role=search]", "a.headerlink")
"""Elements that lead to other text, by the standards; the last is the pilcrow of headings in manuals by Sphinx."""
_RUBY = re.compile(r"<ruby[\s/>]", re.I)
_READINGS = ("rt", "rp", "rtc")
_RUBY_TAGS = re.compile(
    r"</?(ruby|rb|rtc|rt|rp|p|div|li|dt|dd|t[dhr]|table|h[1-6]|section|article|body)(?:[\s/][^<>]*)?>", re.I
)
_SCRIPTS = re.compile(r"<su([pb])(?:\s[^<>]*)?>([^<>]{1,40})</su\1>", re.I)


def main_content(html: str) -> str:
    """The main content of a page, without navigation, advertisements and forms; empty where there is none.

    Raises:
        RefusedError: as `refuse_slow` says.
    """
    return _plain_text(html, main_content=True, skip_elements=(*_FALLBACKS, "svg"))


def html_to_text(html: str) -> str:
    """Text of an HTML fragment by Resiliparse's extractor; scripts, styles and markup go, lists and paragraphs stay.

    Raises:
        RefusedError: as `refuse_slow` says.
    """
    return _plain_text(html, main_content=False, skip_elements=_FALLBACKS)


def text_without_navigation(html: str) -> str:
    """All text of a page but for its `nav` elements, forms and what has the role of either.

    Raises:
        RefusedError: as `refuse_slow` says.
    """
    return _plain_text(html, main_content=False, skip_elements=(*_FALLBACKS, *_NAVIGATION))


def _plain_text(html: str, main_content: bool, skip_elements: tuple[str, ...]) -> str:
    from resiliparse.extract.html2text import extract_plain_text

    refuse_slow(html)
    if _RUBY.search(html):
        html = _without_readings(html)
    html = _scripts_as_text(html)
    # Without `alt_texts` figures and objects go with the tables and the code in them.
    text: str = extract_plain_text(
        html, preserve_formatting=True, main_content=main_content, alt_texts=True, skip_elements=skip_elements
    )
    return text


def _without_readings(html: str) -> str:
    """A page whose ruby annotations are their bases alone: readings between the letters of words are no text.

    Tags are looked for in the text, because a tree from which thousands of nodes are taken costs the square of their
    number. What lies outside of paragraphs ends a reading whose end tag is missing.
    """
    kept: list[str] = []
    begin = depth = 0
    is_reading = False
    for match in _RUBY_TAGS.finditer(html):
        if not is_reading:
            kept.append(html[begin : match.start()])
        begin = match.end()
        is_end, name = match[0].startswith("</"), match[1].lower()
        if name == "ruby":
            depth = max(0, depth - 1) if is_end else depth + 1
            is_reading = is_reading and depth > 0 and not is_end
        elif name in _READINGS:
            is_reading = depth > 0 and not is_end
        elif name == "rb":
            is_reading = False
        else:
            depth, is_reading = 0, False
            begin = match.start()  # a block's own tag stays
    if not is_reading:
        kept.append(html[begin:])
    return "".join(kept)


def _scripts_as_text(html: str) -> str:
    """A page whose superscripts and subscripts without markup of their own are written out: 10^6 and not 106."""

    def written(match: re.Match[str]) -> str:
        before = html[max(0, match.start() - 12) : match.start()]
        if not before or not (before[-1].isalnum() or before[-1] in ")]>"):
            return match[0]
        return scripted(before, match[2], raised=match[1].lower() == "p")

    return _SCRIPTS.sub(written, html)
