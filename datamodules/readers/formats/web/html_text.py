"""Text of HTML by Resiliparse: all of a body, or its main content.

Resiliparse's `main_content` drops more than menus: lists less than four levels below the body, and what is alone in
some kinds of elements. That suits crawls, where most lists are menus; manuals and books lose text by it.
"""

import re
from typing import Any

from datamodules.readers.formats.web.html_bounds import refuse_slow

_FALLBACKS = ("img", "area", "embed", "video", "audio")
"""Elements whose text is shown where they are not: descriptions of pictures, "your browser does not support ..."."""
_NAVIGATION = ("nav", "[role=navigation]", "[role=search]", "a.headerlink")
"""Elements that lead to other text, by the standards; the last is the pilcrow of headings in manuals by Sphinx."""
_RUBY = re.compile(r"<ruby[\s/>]", re.I)
_READINGS = ("rt", "rp", "rtc")


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
    # Without `alt_texts` figures and objects go with the tables and the code in them.
    text: str = extract_plain_text(
        html, preserve_formatting=True, main_content=main_content, alt_texts=True, skip_elements=skip_elements
    )
    return text


def _without_readings(html: str) -> str:
    """A page whose ruby annotations are their bases alone: readings between the letters of words are no text."""
    from resiliparse.parse.html import HTMLTree

    tree: Any = HTMLTree.parse(html)
    document = tree.document
    for name in _READINGS:
        for node in list(document.get_elements_by_tag_name(name)):
            if node.parent is not None:
                node.parent.remove_child(node)
    for node in list(document.get_elements_by_tag_name("ruby")):
        if node.parent is not None:
            node.parent.replace_child(tree.create_text_node(node.text), node)
    # Written and parsed again: the extractor passes over text nodes beside each other.
    return str(document.html)
