"""Fenced code blocks of a response: which part of its Markdown is the program.

Read as CommonMark reads fences, with two liberties that models take: any indentation, and a block that is never closed,
as in a response cut at its last token. What is thought before the response proper is no part of it.
"""

import re
from typing import NamedTuple

END_OF_THOUGHT = "</think>"
PYTHON = frozenset({"python", "python3", "py", "py3", "ipython"})
_FENCE = re.compile(
    r"(?P<indent>[ \t]*(?:(?:[-*+>]|\d{1,9}[.)])[ \t]+)*)"  # of a list or a quotation, which the block may begin
    r"(?P<fence>`{3,}|~{3,})[ \t]*(?P<info>[^\n]*)"
)


class Block(NamedTuple):
    """A fenced block: the first word behind its fence, in lower case, and its lines."""

    language: str
    code: str


def code_of(text: str) -> str:
    """The program of a response: the last block of Python, or else the last one of no language; all of the text where
    there is neither."""
    response = text.rpartition(END_OF_THOUGHT)[2]
    blocks = fenced_blocks(response)
    for languages in (PYTHON, {""}):
        if found := [block.code for block in blocks if block.language in languages]:
            return found[-1]
    return response


def fenced_blocks(text: str) -> list[Block]:
    """All blocks in order; one that is not closed goes up to the end."""
    blocks, lines = [], iter(text.splitlines())
    for line in lines:
        opening = _FENCE.fullmatch(line)
        # A backtick behind backticks is code within a line.
        if opening is None or ("`" in opening["info"] and opening["fence"][0] == "`"):
            continue
        closing = re.compile(rf"[ \t>]*{opening['fence']}{opening['fence'][0]}*[ \t]*")
        indentation = re.compile(rf"[ \t>]{{0,{len(opening['indent'])}}}")
        code = []
        for inner in lines:
            if closing.fullmatch(inner):
                break
            code.append(indentation.sub("", inner, count=1) + "\n")
        words = opening["info"].strip("{} .\t").split()
        blocks.append(Block(words[0].lower() if words else "", "".join(code)))
    return blocks
