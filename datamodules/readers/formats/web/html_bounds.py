"""Bounds on HTML that parsers are slow on: depth, options and attributes, each a reason to drop a page.

A parser written in C or Rust cannot be stopped by a clock in the process that called it, and a process for each page
costs more than to read it. So what takes a parser more than linear time is bounded before it begins: nesting, options
of a selection, attributes of a tag. Found by timing Lexbor on repetitions of 50 kinds of markup: no other kind took
four times as long at twice the length. Nothing bounds Trafilatura beyond these.
"""

from typing import Any

from datamodules.readers.formats.bounded_streams import RefusedError
from datamodules.readers.formats.web.html_depth import MAX_DEPTH, depth

MAX_ESTIMATE = 2**16
"""Depth by the tags beyond which no tree is built."""
MAX_LOOKED_AT = 10**10
"""Tags times depth by the tags, while a tree is built to count its depth: half a second."""
MAX_REOPENED = 4_000_000
"""Formatting elements that a parser may open again, 250 ns each, while a tree is built to count its depth."""
_ARK = 3
"""Equal formatting elements that are opened again at most (HTML Standard, section 13.2.4.3)."""


def refuse_slow(html: str) -> None:
    """Check that a page can be parsed and its text extracted in time linear in its length.

    Raises:
        RefusedError: `too_deep`, `too_many_options` or `too_many_attributes`.
    """
    if depth(html) <= MAX_DEPTH:
        return
    # The estimate takes elements to stay open where it is in doubt: unclosed anchors, formatting in cells.
    formatting: set[str] = set()
    estimate = depth(html, MAX_ESTIMATE, formatting)
    tags = html.count("<")
    is_costly = (
        estimate > MAX_ESTIMATE
        or tags * estimate > MAX_LOOKED_AT
        or tags * min(estimate, _ARK * len(formatting)) > MAX_REOPENED
    )
    if is_costly or depth_of_tree(html) > MAX_DEPTH:
        raise RefusedError("too_deep")


def depth_of_tree(html: str) -> int:
    """Elements within each other, in the tree that Lexbor builds; counting stops above `MAX_DEPTH`."""
    from resiliparse.parse.html import HTMLTree

    # The walk does not hold a path: depth is the document's choice.
    node: Any = HTMLTree.parse(html).document
    deepest = level = 0
    while True:
        child = node.first_child
        if child is not None:
            node, level = child, level + 1
            # Text within the innermost element is a level, and so is the document.
            deepest = max(deepest, level - 1)
            if deepest > MAX_DEPTH:
                return deepest
            continue
        while node.next is None:
            level -= 1
            if level <= 0:
                return deepest
            node = node.parent
        node = node.next
