"""HTTP responses as crawlers stored them: a lenient parser of heads, and payloads decoded as far as they are encoded.

Archives hold heads that do not fit their payloads: crawlers store decoded payloads under the head as it was sent
(Common Crawl's news until May 2019, ClueWeb09), servers name encodings that do not exist. So a head only suggests a
decoding; magic bytes and sizes of chunks decide, and a payload that does not agree is taken as it is. A payload that
begins as the head says and breaks off later is refused, since what is missing cannot be known.
"""

import io
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, cast

import pyarrow

from datamodules.readers.formats.bounded_streams import RefusedError, read_whole

MAX_HEAD = 2**20
"""Bytes of a head at most. Servers refuse requests above 8 to 64 KB; responses with many cookies are longer."""

_HEAD_END = re.compile(rb"\r?\n[ \t]*\r?\n")
_STATUS = re.compile(rb"[A-Z]{2,8}/?\d?(?:\.\d)?[ \t]*(\d{3})(?!\d)", re.I)
_CONTINUED = re.compile(rb"\r?\n[ \t]+")
_CHUNK = re.compile(rb"[ \t]*([0-9a-f]{1,15})[ \t]*(?:;[^\r\n]{0,4096})?\r?\n", re.I)
_CHUNK_END = re.compile(rb"\r?\n")
_CHARSET = re.compile(r"charset\s*=\s*[\"']?\s*([\w.:-]{1,40})", re.I)
_GZIP, _ZSTD = b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd"
_BINARY = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
"""Control characters that no text in an encoding of 8 bits holds: binary data, by the MIME Sniffing Standard (7.2)."""
_BYTE_ORDER_MARKS = (b"\xfe\xff", b"\xff\xfe", b"\xef\xbb\xbf")
_HTML_BEGINS = re.compile(
    rb"(?:\xef\xbb\xbf)?(?:[\t\n\f\r ]|<!--.{0,8192}?-->)*+(?:<!DOCTYPE HTML|"
    rb"<(?:HTML|HEAD|SCRIPT|IFRAME|H1|DIV|FONT|TABLE|A|STYLE|TITLE|B|BODY|BR|P)(?=[ \t\n\f\r>]))", re.I | re.S,
)  # fmt: skip
_OTHER_BEGINS = (
    _GZIP[:2], _ZSTD, b"%PDF-", b"PK\x03\x04", b"\x89PNG", b"GIF8", b"\xff\xd8\xff", b"RIFF", b"Rar!",
    b"\x00\x00\x01\x00", b"\xd0\xcf\x11\xe0", b"ID3", b"OggS", b"FWS", b"CWS", b"\x1a\x45\xdf\xa3",
)  # fmt: skip
_XHTML_BEGINS = re.compile(rb"(?:\xef\xbb\xbf)?[\t\n\f\r ]*+<\?xml.{0,2048}?<html\b", re.I | re.S)


@dataclass(frozen=True)
class HttpResponse:
    """A response as stored.

    Attributes:
        status: status code; None where the first line holds none.
        headers: values by name in lower case, in order.
        payload: all behind the head, not decoded.
    """

    status: int | None
    headers: dict[str, list[str]]
    payload: bytes

    @property
    def media_type(self) -> str | None:
        """Media type in lower case without parameters, from the first header that holds one; None for none."""
        for value in self.headers.get("content-type", []):
            for part in value.split(","):
                kind = part.partition(";")[0].strip(" \t\"'").lower()
                if re.fullmatch(r"[\w!#$&^.+-]+/[\w!#$&^.+-]+", kind):
                    return kind
        return None

    @property
    def charset(self) -> str | None:
        """Label of the character encoding in the Content-Type."""
        found = _CHARSET.search(", ".join(self.headers.get("content-type", [])))
        return found[1] if found else None


def parse_response(block: bytes) -> HttpResponse:
    """The head and the payload of a stored response; line feeds alone end lines, too.

    Raises:
        ValueError: where no end of the head is found within `MAX_HEAD` bytes.
    """
    end = _HEAD_END.search(block, 0, MAX_HEAD)
    if end is None:
        raise ValueError("the head of a response has no end")
    first, *lines = _CONTINUED.sub(b" ", block[: end.start()]).replace(b"\r", b"").split(b"\n")
    status = _STATUS.match(first)
    headers: dict[str, list[str]] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if colon:
            headers.setdefault(name.strip().decode("latin-1").lower(), []).append(value.strip().decode("latin-1"))
    return HttpResponse(int(status[1]) if status else None, headers, block[end.end() :])


def looks_like_page(payload: bytes) -> bool:
    """True if a payload of no known type begins as HTML does, by the MIME Sniffing Standard (section 7.1)."""
    return _HTML_BEGINS.match(payload) is not None or _XHTML_BEGINS.match(payload) is not None


def looks_like_other_file(payload: bytes) -> bool:
    """True if a payload begins as an archive, a picture, a film or an office document, whatever its type."""
    return payload.startswith(_OTHER_BEGINS)


def decoded_payload(response: HttpResponse, max_bytes: int) -> bytes:
    """The payload without chunks and compression, where it has them.

    Args:
        response: as stored.
        max_bytes: bytes of the result at most.

    Raises:
        RefusedError: `too_large`, having decoded one block more.
        ValueError: for a payload that is damaged or in an unknown encoding.
    """
    payload = response.payload
    if "chunked" in _codings(response, "transfer-encoding"):
        payload = _joined_chunks(payload)
    for coding in reversed(_codings(response, "content-encoding") + _codings(response, "transfer-encoding")):
        payload = _decompressed(payload, coding, max_bytes)
    if payload.startswith(_GZIP):  # compressed, whatever the head says: no page begins so
        payload = _inflated(payload, zlib.MAX_WBITS | 16, max_bytes)
    if len(payload) > max_bytes:
        raise RefusedError("too_large")
    return payload


def is_binary(payload: bytes) -> bool:
    """True if a payload begins as no text does."""
    return not payload.startswith(_BYTE_ORDER_MARKS) and _BINARY.search(payload, 0, 1445) is not None


def _codings(response: HttpResponse, header: str) -> list[str]:
    values = ",".join(response.headers.get(header, []))
    return [coding for part in values.split(",") if (coding := part.strip(" \t\"'").lower())]


def _joined_chunks(payload: bytes) -> bytes:
    """The content of chunks (RFC 9112, section 7.1), or the payload itself where it does not begin with a chunk."""
    parts: list[bytes] = []
    position = 0
    while size := _CHUNK.match(payload, position):
        begin = size.end()
        position = begin + int(size[1], 16)
        if begin == position:
            return b"".join(parts)
        end = _CHUNK_END.match(payload, position)
        if end is None:
            break
        parts.append(payload[begin:position])
        position = end.end()
    if parts:
        raise ValueError("chunks break off")
    return payload


def _decompressed(payload: bytes, coding: str, max_bytes: int) -> bytes:
    if payload.startswith(_GZIP):
        return _inflated(payload, zlib.MAX_WBITS | 16, max_bytes)
    if payload.startswith(_ZSTD):
        try:
            return read_whole(pyarrow.CompressedInputStream(io.BytesIO(payload), "zstd"), max_bytes)
        except OSError as error:
            raise ValueError("not zstd") from error
    if coding == "deflate":
        if len(payload) > 1 and payload[0] & 0x0F == 8 and int.from_bytes(payload[:2], "big") % 31 == 0:
            return _inflated(payload, zlib.MAX_WBITS, max_bytes)
        return _unless_text(payload, lambda: _inflated(payload, -zlib.MAX_WBITS, max_bytes))
    if coding == "br":
        return _unless_text(payload, lambda: _without_brotli(payload, max_bytes))
    return payload


def _unless_text(payload: bytes, decompress: Callable[[], bytes]) -> bytes:
    """What a decoder without magic bytes makes of a payload, or the payload itself where it is text and not encoded."""
    try:
        return decompress()
    except (ValueError, OSError, zlib.error) as error:
        if is_binary(payload):
            raise ValueError("a compressed payload is damaged") from error
        return payload


def _inflated(payload: bytes, window: int, max_bytes: int) -> bytes:
    """All members of a zlib stream; what follows the last and is none is passed over, as browsers do."""
    parts: list[bytes] = []
    left = max_bytes
    while True:
        member = zlib.decompressobj(window)
        try:
            part = member.decompress(payload, left + 1)
        except zlib.error as error:
            raise ValueError("a compressed payload is damaged") from error
        left -= len(part)
        if left < 0:
            raise RefusedError("too_large")
        if not member.eof:
            raise ValueError("a compressed payload is cut short")
        parts.append(part)
        payload = member.unused_data
        if not payload.startswith(_GZIP):
            return b"".join(parts)


def _without_brotli(payload: bytes, max_bytes: int) -> bytes:
    from fastwarc.stream_io import BrotliReader

    return read_whole(cast(IO[bytes], BrotliReader(io.BytesIO(payload))), max_bytes)
