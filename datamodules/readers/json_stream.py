"""JSON values from bytes: one value, or the elements of an array one at a time, in bounded memory.

An array of a whole data set does not fit into memory. Only strings and brackets are looked at to find where an element
ends, so that one of them that is no JSON costs itself.
"""

import codecs
import json
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import IO, Any

from datamodules.readers.document import Document, text_or_reason
from datamodules.readers.formats.bounded_streams import BLOCK

TOO_LARGE = Document(None, reason="too_large")
_BLANKS = b" \t\r\n"
_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.S)
"""The rest of a string up to its end, or to that of the block."""
_OTHER = re.compile(rb'[^"\[\]{},]*+')


def parse_json(raw: bytes | None) -> Any:
    """The JSON value in bytes, or a `Document` with the reason why there is none; None means too many bytes.

    An integer of more digits than Python converts (4,300) is a `Decimal`.
    """
    document = TOO_LARGE if raw is None else text_or_reason(raw)
    if document.text is None:
        return document
    try:
        return json.loads(document.text)
    except RecursionError:
        return Document(None, reason="too_deep")
    except json.JSONDecodeError:
        return Document(None, reason="invalid_json")
    except ValueError:
        return json.loads(document.text, parse_int=_integer)


def _integer(digits: str) -> int | Decimal:
    try:
        return int(digits)
    except ValueError:
        return Decimal(digits)


def skip_blanks(stream: IO[bytes]) -> bytes:
    """The first byte of a stream that is no white space, which is left in it; none at the end.

    A byte-order mark in front is passed over.

    Args:
        stream: an `io.BufferedReader`.
    """
    while head := stream.peek(BLOCK):  # type: ignore[attr-defined]
        content = head.removeprefix(codecs.BOM_UTF8).lstrip(_BLANKS)
        stream.read(len(head) - len(content))
        if content:
            return bytes(content[:1])
    return b""


def array_elements(stream: IO[bytes], max_bytes: int) -> Iterator[bytes | None]:
    """The bytes of each element of an array; None for one of more than `max_bytes` bytes, whose rest is passed over.

    Args:
        stream: an `io.BufferedReader` whose next byte is the array's opening bracket. What follows the array stays in
            it.
        max_bytes: of an element.
    """
    stream.read(1)
    element, depth, in_string, is_first = _Element(max_bytes), 0, False, True
    while block := stream.peek(BLOCK):  # type: ignore[attr-defined]
        place = start = 0
        while place < len(block):
            if in_string:
                place = _STRING.match(block, place).end()  # type: ignore[union-attr]
                if place < len(block) and block[place] == ord("\\"):  # what it escapes is in the next block
                    break
                in_string = place == len(block)
            else:
                place = _OTHER.match(block, place).end()  # type: ignore[union-attr]
                if place == len(block):
                    break
                mark = block[place : place + 1]
                in_string = mark == b'"'
                if mark in (b"[", b"{"):
                    depth += 1
                elif mark in (b"]", b"}") and depth:
                    depth -= 1
                elif not depth and not in_string:
                    element.add(block[start:place])
                    if not (mark == b"]" and is_first and element.is_blank):
                        yield element.take()
                    is_first, start = False, place + 1
                    if mark != b",":
                        stream.read(start)
                        return
            place += 1
        cut = min(place, len(block))
        if cut == 0:  # a lone backslash: read what it escapes with it
            element.add(stream.read(2))
            continue
        element.add(block[start:cut])
        stream.read(cut)
    # No end: what was begun is no JSON.
    yield element.take() or b"["


class _Element:
    """Bytes of an element, as long as they are few enough."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes, self.parts, self.size = max_bytes, list[bytes](), 0

    def add(self, part: bytes) -> None:
        self.size += len(part)
        if self.size <= self.max_bytes:
            self.parts.append(part)
        else:
            self.parts.clear()

    @property
    def is_blank(self) -> bool:
        return self.size <= self.max_bytes and not b"".join(self.parts).strip(_BLANKS)

    def take(self) -> bytes | None:
        """The element, and begin the next one."""
        found = b"".join(self.parts) if self.size <= self.max_bytes else None
        self.parts, self.size = [], 0
        return found
