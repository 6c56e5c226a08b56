"""XML from untrusted sources: parsed by expat in blocks, without custom entities, to a limited depth.

ElementTree over a file would be shorter, but it expands entities, and takes a page's whole dump into memory.
"""

import codecs
import re
from collections.abc import Callable, Iterator
from html.entities import entitydefs
from typing import IO
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from datamodules.readers.formats.bounded_streams import BLOCK, RefusedError

MAX_DEPTH = 256
"""Elements within each other; libxml2's limit, too."""

_DECLARATION = re.compile(rb"\s*+<\?xml\b[^>]{0,200}?\bencoding\s*=\s*[\"']([A-Za-z][\w.:-]{0,40})[\"'][^>]{0,200}?>")
_MULTIBYTE = {
    "gb2312": "gb18030", "gbk": "gb18030", "cp936": "gb18030", "gb18030": "gb18030", "big5": "big5hkscs",
    "big5-hkscs": "big5hkscs", "shift_jis": "cp932", "shift-jis": "cp932", "x-sjis": "cp932", "windows-31j": "cp932",
    "euc-jp": "euc_jp", "iso-2022-jp": "iso2022_jp", "euc-kr": "cp949", "ks_c_5601-1987": "cp949", "cp949": "cp949",
    "windows-949": "cp949", "utf8": "utf-8", "utf-32": "utf-32",
}  # fmt: skip
"""Encodings that expat cannot be taught, as it knows at most 256 characters of any but Unicode's."""
_NOT_CHARACTERS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_NOT_REFERENCES = re.compile(
    "&#(?:0*(?:[0-8]|1[124-9]|2[0-9]|3[01]|65534|65535)|x0*(?:[0-8bcef]|1[0-9a-f]|fff[ef]|d[89a-f][0-9a-f]{2}));", re.I
)
_REFERENCE = 32
"""Characters of a reference that a block may end within."""


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
    """The tree of a document, in any encoding that it declares; white space before its declaration is passed over.

    Raises:
        RefusedError: `invalid_xml`, or as `new_parser` says.
    """
    builder = TreeBuilder()
    parser = new_parser(builder.start, builder.end, builder.data)
    try:
        parser.Parse(_without_blanks(raw), True)
    except (expat.ExpatError, LookupError, ValueError) as error:
        raise RefusedError("invalid_xml") from error
    return builder.close()


def _without_blanks(raw: bytes) -> bytes | str:
    """A document from its first `<` on, decoded where expat cannot."""
    head = raw[:4096]
    if head.startswith(codecs.BOM_UTF8):
        raw, head = raw[3:], head[3:]
    if head[:1].isspace():
        raw = raw.lstrip()
        head = raw[:4096]
    encoding = _MULTIBYTE.get(declared_encoding(head) or "")
    # A text is passed on as UTF-8, and expat then takes no notice of what it declares.
    return raw if encoding is None else raw.decode(encoding)


def declared_encoding(head: bytes) -> str | None:
    """Name of the encoding that an XML declaration gives, in lower case."""
    found = _DECLARATION.match(head)
    return found[1].decode("ascii").lower() if found else None


def feed(parser: expat.XMLParserType, stream: IO[bytes]) -> Iterator[None]:
    """Parse a stream in pieces, stopping after each, so that what the callbacks collected can be taken.

    Characters that XML does not have, and bytes that are none in its encoding, become U+FFFD: one of them in a dump of
    gigabytes is no reason to end there.

    Raises:
        RefusedError: `invalid_xml`, or as `new_parser` says.
    """
    block = stream.read(BLOCK)
    if not block:
        yield
        raise RefusedError("invalid_xml")
    decoder = codecs.getincrementaldecoder(_encoding_of(block[:4096]))(errors="replace")
    rest = ""
    started = False
    try:
        while block:
            text = rest + _NOT_CHARACTERS.sub("\ufffd", decoder.decode(block))
            if not started:
                text = text.lstrip("\ufeff \t\r\n")
                started = bool(text)
            # A reference may go on in the next block.
            cut = text.rfind("&", max(0, len(text) - _REFERENCE))
            cut = len(text) if cut < 0 or ";" in text[cut:] else cut
            parser.Parse(_NOT_REFERENCES.sub("\ufffd", text[:cut]), False)
            rest = text[cut:]
            yield
            block = stream.read(BLOCK)
        parser.Parse(rest + decoder.decode(b"", True), True)
        yield
    except (expat.ExpatError, LookupError, ValueError) as error:
        yield  # what was complete before
        raise RefusedError("invalid_xml") from error


def _encoding_of(head: bytes) -> str:
    """Codec of a document by its byte-order mark or its declaration; UTF-8 where there is neither."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    for start, codec in ((b"\0<\0", "utf-16-be"), (b"<\0", "utf-16-le")):  # without a mark (XML 1.0, appendix F)
        if head.startswith(start):
            return codec
    name = declared_encoding(head) or "utf-8"
    try:
        known = codecs.lookup(_MULTIBYTE.get(name, name)).name
    except LookupError:
        return "utf-8"
    return known if known in _DECODED else "utf-8"


_DECODED = {codecs.lookup(name).name for name in (*_MULTIBYTE.values(), "latin-1", "cp1252", "cp1251", "koi8-r")}


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
