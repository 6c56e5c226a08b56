"""Visible text of HTML: its characters counted without a parser, in linear time at any depth."""

import numpy as np

from common.compute.compiled import compiled

MARKS = tuple(np.frombuffer(mark, dtype=np.uint8) for mark in (b"<script", b"<style", b"<!--", b"-->"))
"""What `visible_characters` looks for, as the compiled loops take it."""


def visible_text_characters(html: str) -> int:
    """Characters outside of tags, comments, scripts and styles, white space included."""
    return int(visible_characters(np.frombuffer(html.encode("utf-8", "replace"), dtype=np.uint8), *MARKS))


@compiled
def _begins(text: np.ndarray, place: int, name: np.ndarray) -> bool:
    if place + len(name) > len(text):
        return False
    for offset in range(len(name)):
        byte = np.int64(text[place + offset])
        if ord("A") <= byte <= ord("Z"):
            byte += 32
        if byte != name[offset]:
            return False
    return True


@compiled
def _skip_to(text: np.ndarray, place: int, mark: np.ndarray) -> int:
    """Behind the next occurrence of a mark, or the end of the text."""
    while place < len(text):
        if _begins(text, place, mark):
            return place + len(mark)
        place += 1
    return len(text)


@compiled
def visible_characters(
    text: np.ndarray, script: np.ndarray, style: np.ndarray, comment: np.ndarray, comment_end: np.ndarray
) -> int:
    """Characters outside of tags, comments, scripts and styles."""
    characters, place, size = 0, 0, len(text)
    while place < size:
        following = np.int64(text[place + 1]) if place + 1 < size else 0
        is_letter = ord("a") <= following | 32 <= ord("z")
        if text[place] != ord("<") or not (
            is_letter or following == ord("/") or following == ord("!") or following == ord("?")
        ):
            characters += text[place] & 0xC0 != 0x80
            place += 1
            continue
        if _begins(text, place, comment):
            place = _skip_to(text, place + len(comment), comment_end)
            continue
        is_script, is_style = _begins(text, place, script), _begins(text, place, style)
        while place < size and text[place] != ord(">"):
            place += 1
        place += 1
        if is_script or is_style:
            name = script if is_script else style
            # The tag that closes is the one that opens with a slash: it is skipped as a tag.
            while place < size and not (
                text[place] == ord("<")
                and place + 1 < size
                and text[place + 1] == ord("/")
                and _begins(text, place + 2, name[1:])
            ):
                place += 1
    return characters
