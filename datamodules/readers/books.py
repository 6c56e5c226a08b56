"""Book reader: Project Gutenberg's plain texts without their frame, and EPUBs in reading order.

Only lines that are Gutenberg's own markers part a book from its frame: a book without them is kept whole, since text
kept too much is seen later, text lost never.
"""

import codecs
import contextlib
import posixpath
import re
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from urllib.parse import unquote, urldefrag
from xml.etree.ElementTree import Element

from datamodules.readers.base import InputFile
from datamodules.readers.document import Document, text_or_reason, unless_surrogates
from datamodules.readers.formats.bounded_streams import RefusedError, open_bounded, read_whole, zip_member
from datamodules.readers.formats.web.html_text import html_to_text
from datamodules.readers.formats.web.xhtml import xhtml_as_html
from datamodules.readers.formats.xml import parse_xml
from datamodules.readers.html import creative_commons, decode_html
from datamodules.readers.paths import PathReader

HEADER_LINES = 600
"""Lines within which the header ends, as in the `gutenberg` package's strip_headers."""
GUTENBERG_LICENSE = "LicenseRef-Project-Gutenberg"

_START = re.compile(
    r"^[ \t]*(?:\*{3} ?START OF (?:THE|THIS) PROJECT GUTENBERG|\*+ ?END[* ]+THE SMALL PRINT|"
    r"\*END\*? ?THE SMALL PRINT|The Project Gutenberg Etext (?:of .{0,200} )?begins here)[^\n]*$", re.I | re.M,
)  # fmt: skip
_END = re.compile(
    r"^[ \t]*(?:\*{3} ?END OF (?:THE|THIS) PROJECT GUTENBERG|"
    r"End of (?:the |this )?Project Gutenberg(?:'s|’s)? (?:e-?text|e-?book)?)[^\n]*$", re.I | re.M,
)  # fmt: skip
_FIELD = re.compile(
    r"^(Title|Release Date|Character set encoding):[ \t]*([^\n]{1,300}(?:\n[ \t]+[^\n]{1,300})*)", re.I | re.M
)
_NUMBER = re.compile(r"\[(?:e-?book|e-?text) #(\d{1,7})\]", re.I)
_NO_CHARSETS = ("punycode", "idna", "unicode_escape", "raw_unicode_escape")
"""Codecs of Python that no book is written in; the first takes time with the square of the size."""
_TEXT_TYPES = ("text/x-oeb1-document", "application/x-dtbook+xml", "image/svg+xml")
"""Types of chapters beside HTML: of EPUB's predecessor, of talking books, and pictures, of which some are pages."""
_VAGUE_TYPES = ("", "text/xml", "application/xml", "text/plain")
"""Types of chapters whose name decides."""
_DATE_FORMS = ("%B %d, %Y", "%d %B %Y", "%d %b %Y", "%B, %Y", "%b %d, %Y")


def strip_gutenberg(text: str) -> tuple[str, str]:
    """(header, book) of a Project Gutenberg text; the header is empty where no marker is found.

    The last marker of the end counts, so that a book which quotes one is not cut, and that of the start only within
    the first 600 lines.
    """
    text = text.replace("\r\n", "\n")
    lines = _offset_of_line(text, HEADER_LINES)
    starts = list(_START.finditer(text, 0, lines))
    start = starts[0] if starts else None
    if start is not None and "SMALL PRINT" not in start[0].upper() and len(starts) > 1:
        # Texts of 2003 to 2006 have the small print behind the new marker.
        start = next((later for later in starts[1:] if "SMALL PRINT" in later[0].upper()), start)
    begin = start.end() if start else 0
    if start is None and _NUMBER.search(text, 0, lines) is None:
        return "", text
    ends = list(_END.finditer(text, begin))
    # A second line "End of Project Gutenberg's X" may come before the marker proper: one frame, one cut.
    end = len(text)
    for marker in reversed(ends):
        if text[marker.end() : end].strip() and end != len(text):
            break
        end = marker.start()
    return text[:begin], text[begin:end].strip()


def _offset_of_line(text: str, number: int) -> int:
    offset = 0
    for _ in range(number):
        offset = text.find("\n", offset) + 1
        if not offset:
            return len(text)
    return offset


def header_fields(header: str) -> dict[str, str]:
    """Title, release date and encoding that a Gutenberg header names, by name in lower case."""
    return {name.lower(): " ".join(value.split()) for name, value in _FIELD.findall(header)}


def iso_date(written: str) -> str | None:
    """A date as Gutenberg writes it ("June 1, 2008 [eBook #1342]") in ISO 8601, or None."""
    written = written.partition("[")[0].strip()
    for form in _DATE_FORMS:
        try:
            parsed = datetime.strptime(written, form)
        except ValueError:
            continue
        return parsed.strftime("%Y-%m-%d" if "%d" in form else "%Y-%m")
    return None


def gutenberg_document(text: str) -> Document:
    """A book without its frame, with what the header says of it."""
    header, book = strip_gutenberg(text)
    document = unless_surrogates(book)
    if not header or document.text is None:
        return document
    fields, number = header_fields(header), _NUMBER.search(header)
    return replace(
        document,
        # Two editions of one book never part between training and validation.
        group=fields.get("title"),
        url=f"https://www.gutenberg.org/ebooks/{number[1]}" if number else None,
        license=GUTENBERG_LICENSE,
        date=iso_date(fields.get("release date", "")),
    )


class Books(PathReader):
    """Books in plain text (Project Gutenberg's frame taken off) and EPUB, one document each.

    Gutenberg's header gives address, date of release and license; an EPUB's metadata gives date, address and, where it
    is a Creative Commons address, license. The title is the group.
    """

    SUFFIXES = (".txt", ".epub")

    def documents(self, path: str, file: InputFile) -> Iterator[Document]:
        """The book of a file."""
        if self.format_of(file.name) == ".epub":
            with zipfile.ZipFile(path) as archive:
                yield from epub(archive, self.max_bytes)
            return
        with open_bounded(path) as stream:
            raw = read_whole(stream, self.max_bytes)
        document = text_or_reason(raw)
        if document.text is None:
            encoding = header_fields(raw[:20_000].decode("ascii", "replace")).get("character set encoding", "")
            # No more is known than before where that fails: the reason stays.
            with contextlib.suppress(LookupError, ValueError):
                if encoding and codecs.lookup(encoding).name not in _NO_CHARSETS:
                    document = Document(raw.decode(encoding))
        yield document if document.text is None else gutenberg_document(document.text)


def epub(archive: zipfile.ZipFile, max_bytes: int) -> Iterator[Document]:
    """The text of an EPUB in the order of its spine, then a reason for each chapter that is not in it.

    Reasons of chapters are `missing_chapter`, `chapter_of_other_type` (a picture without a text in its place) and those
    of `decode_html` and `refuse_slow`. A book in which no chapter can be read has these alone, or `no_text`.

    Args:
        archive: the EPUB.
        max_bytes: bytes of all chapters together at most, before their markup is taken off.
    """
    try:
        package_path = _package(archive, max_bytes)
        package = parse_xml(zip_member(archive, package_path, max_bytes))
    except KeyError:
        yield Document(None, reason="no_epub")
        return
    except RefusedError as refused:
        yield Document(None, reason=str(refused))
        return
    chapters: list[str] = []
    lost: list[str] = []
    left = max_bytes
    for name in _spine(package, package_path):
        if name is None:
            lost.append("chapter_of_other_type")
            continue
        try:
            raw = zip_member(archive, name, left)
        except KeyError:
            lost.append("missing_chapter")
            continue
        except RefusedError as refused:
            # The rest of a book that is too large is not read; an encrypted chapter is one of many.
            yield Document(None, reason=str(refused))
            return
        left -= len(raw)
        text = _chapter(raw)
        if text.text is None:
            lost.append(text.reason or "no_text")
        else:
            chapters.append(text.text.strip())
    whole = "\n\n".join(chapter for chapter in chapters if chapter)
    if whole or not lost:
        yield _with_metadata(whole, package) if whole else Document(None, reason="no_text")
    yield from (Document(None, reason=reason) for reason in lost)


def _chapter(raw: bytes) -> Document:
    decoded = decode_html(raw)
    if decoded.text is None:
        return decoded
    try:
        return Document(html_to_text(xhtml_as_html(decoded.text)))
    except RefusedError as refused:
        return Document(None, reason=str(refused))


def _with_metadata(text: str, package: Element) -> Document:
    document = gutenberg_document(text)
    about = {name: package.findtext(f"metadata/{name}", "").strip() for name in ("title", "date", "rights", "source")}
    address = about["source"]
    return replace(
        document,
        group=document.group or (about["title"] or None),
        url=document.url or (address if address.startswith(("http://", "https://")) else None),
        license=document.license or creative_commons(about["rights"]),
        date=document.date or (about["date"] or None),
    )


def _package(archive: zipfile.ZipFile, max_bytes: int) -> str:
    container = parse_xml(zip_member(archive, "META-INF/container.xml", max_bytes))
    rootfile = container.find(".//rootfile")
    return "" if rootfile is None else rootfile.get("full-path", "")


def _spine(package: Element, package_path: str) -> Iterator[str | None]:
    """Names in the archive of the chapters, each once; None for one that is no text and has none to fall back on."""
    manifest = {item.get("id"): item for item in package.iterfind("manifest/item")}
    folder, seen = posixpath.dirname(package_path), set()
    for reference in package.iterfind("spine/itemref"):
        item = manifest.get(reference.get("idref"))
        passed: set[str | None] = set()
        while item is not None and not _is_text(item) and item.get("id") not in passed:
            passed.add(item.get("id"))
            item = manifest.get(item.get("fallback"))
        if item is None or not _is_text(item):
            yield None
            continue
        name = posixpath.normpath(posixpath.join(folder, unquote(urldefrag(item.get("href", "")).url)))
        if name not in seen:
            seen.add(name)
            yield name


def _is_text(item: Element) -> bool:
    """True if an item of the manifest is of a type of text, or of none and named as HTML is."""
    kind = item.get("media-type", "").partition(";")[0].strip().lower()
    named = urldefrag(item.get("href", "")).url.lower().endswith((".xhtml", ".html", ".htm"))
    return kind in _TEXT_TYPES or "html" in kind or (named and kind in _VAGUE_TYPES)
