"""XML from untrusted sources: parsed by expat in blocks, without custom entities, to a limited depth.

ElementTree over a file would be shorter, but it expands entities, and takes a page's whole dump into memory.
"""

from collections.abc import Callable, Iterator
from html.entities import entitydefs
from typing import IO
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from datamodules.readers.formats.bounded_streams import BLOCK, RefusedError

MAX_DEPTH = 256
"""Elements within each other; libxml2's limit, too."""


def new_parser(
    start: Callable[[str, dict[str, str]], object],
    end: Callable[[str], object],
    characters: Callable[[str], object],
) -> expat.XMLParserType:
    """An expat parser that calls back with local names of elements and attributes.

    While it parses, it raises RefusedError: `xml_entities` for a document that declares entities (billion laughs, files
    of this machine), `too_deep` beyond `MAX_DEPTH`. External definitions are never fetched; HTML's entities, which
    documents with an external definition may use, are known.
    """
    level = 0

    def open_element(name: str, attributes: dict[str, str]) -> None:
        nonlocal level
        level += 1
        if level > MAX_DEPTH:
            raise RefusedError("too_deep")
        start(name.rpartition(" ")[2], {key.rpartition(" ")[2]: value for key, value in attributes.items()})

    def close_element(name: str) -> None:
        nonlocal level
        level -= 1
        end(name.rpartition(" ")[2])

    def refuse(*_: object) -> None:
        raise RefusedError("xml_entities")

    def skipped(name: str, is_parameter: bool) -> None:
        if not is_parameter:
            characters(entitydefs.get(name, ""))

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.UseForeignDTD(True)  # an entity that is not known is skipped, not an error
    parser.StartElementHandler = open_element
    parser.EndElementHandler = close_element
    parser.CharacterDataHandler = characters
    parser.EntityDeclHandler = refuse
    parser.SkippedEntityHandler = skipped
    parser.ExternalEntityRefHandler = lambda *_: 1  # nothing is fetched
    return parser


def parse_xml(raw: bytes) -> Element:
    """The tree of a document.

    Raises:
        RefusedError: `invalid_xml`, or as `new_parser` says.
    """
    builder = TreeBuilder()
    parser = new_parser(builder.start, builder.end, builder.data)
    try:
        parser.Parse(raw, True)
    except (expat.ExpatError, LookupError, ValueError) as error:
        raise RefusedError("invalid_xml") from error
    return builder.close()


def feed(parser: expat.XMLParserType, stream: IO[bytes]) -> Iterator[None]:
    """Parse a stream in pieces, stopping after each, so that what the callbacks collected can be taken.

    Raises:
        RefusedError: `invalid_xml`, or as `new_parser` says.
    """
    try:
        while block := stream.read(BLOCK):
            parser.Parse(block, False)
            yield
        parser.Parse(b"", True)
        yield
    except (expat.ExpatError, LookupError, ValueError) as error:
        yield  # what was complete before
        raise RefusedError("invalid_xml") from error


def text_of(element: Element, leave_out: frozenset[str] = frozenset()) -> str:
    """All text within an element in order, white space collapsed, but for that of elements of some names."""
    parts: list[str] = []
    # Not recursive: depth is the document's choice.
    stack: list[Element | str | None] = [element]
    while stack:
        node = stack.pop()
        if node is None or isinstance(node, str):
            parts.append(node or "")
        elif node is element or node.tag not in leave_out:
            parts.append(node.text or "")
            for child in reversed(node):
                stack += [child.tail, child]
    return " ".join("".join(parts).split())
