"""Long texts cut at paragraphs: a book in one file as documents of a size that filters and splits expect."""

import functools
from collections.abc import Iterator

from common.console import announce

SEPARATORS = ("\n\n", "\n", " ")


def cut_at_paragraphs(text: str, most: int) -> Iterator[str]:
    """Parts of a text of about equal length, at most `most` characters each; joined they are the text.

    A cut is behind the last paragraph's end of the last quarter of a part, else behind a line's, else behind a space.
    """
    start = 0
    while (left := len(text) - start) > most:
        aim = start + -(-left // -(-left // most))
        low = start + (aim - start) * 3 // 4
        ends = (text.rfind(mark, low, aim) + len(mark) for mark in SEPARATORS if text.rfind(mark, low, aim) >= 0)
        end = next(ends, aim)
        yield text[start:end]
        start = end
    yield text[start:]


@functools.cache
def _names_said(most: int) -> list[str]:
    """Names that this process has said for a length."""
    return []


def announce_cut(name: str, most: int) -> None:
    """Say once in a process that texts are cut, with the first of them."""
    said = _names_said(most)
    if not said:
        said.append(name)
        announce(f"{name} is longer than cut_characters={most:,}: it is cut at paragraphs, as all longer texts are")
