"""HTML reader: bytes to characters as browsers do it, then the main text by Resiliparse or Trafilatura.

Resiliparse is about ten times as fast, Trafilatura leaves less boilerplate (Bevendorff et al. 2023; Penedo et al.
2024, section 3.2): the first is the default because text of a whole crawl has to be extracted.
"""

import re
from collections.abc import Iterator
from typing import Literal

from common.errors import InputError
from common.path_lists import PathList
from datamodules.readers.base import InputFile
from datamodules.readers.document import Document, text_or_reason, unless_surrogates
from datamodules.readers.formats.bounded_streams import RefusedError, open_bounded, read_whole
from datamodules.readers.formats.web.character_encodings import (
    byte_order_mark,
    codec_of,
    decoded,
    label_within,
    mostly_utf8,
)
from datamodules.readers.formats.web.html_bounds import refuse_slow
from datamodules.readers.formats.web.html_text import main_content, text_without_navigation
from datamodules.readers.formats.web.xhtml import begins_as_xml, xhtml_as_html
from datamodules.readers.paths import PathReader

Extractor = Literal["resiliparse", "trafilatura"]

_CREATIVE_COMMONS = re.compile(
    r"creativecommons\.org/(?:licenses|publicdomain)/(by(?:-(?:nc|nd|sa))*|zero|mark)/(\d\.\d)", re.I
)
_LINK = re.compile(r"<(?:a|link)\b([^<>]{0,4500}+)>", re.I)
_LICENSE = re.compile(r"\brel\s*+=\s*+[\"']?+[^\"']{0,200}\blicense\b", re.I)


def looks_like_html(text: str) -> bool:
    """True if a description is mostly HTML: more than one tag in each 200 characters."""
    return text.count("</") * 200 > len(text)


def main_text(html: str, extractor: Extractor) -> str:
    """The main text of a page, without navigation, advertisements and forms; empty where there is none.

    Raises:
        RefusedError: as `refuse_slow` says.
    """
    if extractor == "resiliparse":
        return main_content(html)
    import trafilatura

    refuse_slow(html)
    # The settings of FineWeb (Penedo et al. 2024, datatrove's Trafilatura).
    return trafilatura.extract(html, favor_precision=True, include_comments=False, include_images=False) or ""


def check_extractor(extractor: str) -> None:
    """Refuse an extractor that there is not, before anything is read.

    Raises:
        InputError: for an unknown name or a library that is not installed.
    """
    if extractor not in ("resiliparse", "trafilatura"):
        raise InputError(f"extractor={extractor!r}: give resiliparse or trafilatura")
    if extractor == "trafilatura":
        try:
            import trafilatura  # noqa: F401
        except ImportError as error:
            raise InputError(
                "extractor='trafilatura' is not installed: pip install '.[web]', or give resiliparse"
            ) from error


def decode_html(raw: bytes, declared: str | None = None) -> Document:
    """Characters of a page: UTF-8 if they are that, else the declared, the page's own or the likeliest encoding.

    A label is kept while few bytes have no character in it: each of those becomes U+FFFD.

    Args:
        raw: the page.
        declared: charset in the HTTP header.

    Returns:
        The page as a document, or the reason `undecodable`.
    """
    mark = byte_order_mark(raw)
    if mark is not None:
        text = decoded(raw, mark)
        return Document(None, reason="undecodable") if text is None else unless_surrogates(text)
    # ISO-2022 (escapes) and UTF-16 (zeros) can be UTF-8 as well, anything else that is UTF-8 is meant so.
    is_plain = b"\x1b" not in raw and b"\0" not in raw
    if is_plain:
        document = text_or_reason(raw)
        if document.text is not None:
            return document
    codecs = [codec_of(label) for label in (declared, label_within(raw)) if label]
    if is_plain:
        text = mostly_utf8(raw, "utf-8" in codecs)
        if text is not None:
            return unless_surrogates(text)
    for codec in codecs:
        if codec is not None and not (is_plain and codec == "utf-8"):
            text = decoded(raw, codec)
            if text is not None:
                return unless_surrogates(text)
    from resiliparse.parse.encoding import detect_encoding

    text = decoded(raw, detect_encoding(raw) or "utf-8")
    return Document(None, reason="undecodable") if text is None else unless_surrogates(text)


def creative_commons(text: str) -> str | None:
    """SPDX identifier of the first Creative Commons address in a text."""
    found = _CREATIVE_COMMONS.search(text)
    if found is None:
        return None
    kind, version = found[1].upper(), found[2]
    return {"ZERO": f"CC0-{version}", "MARK": "CC-PDM-1.0"}.get(kind, f"CC-{kind}-{version}")


def page_license(html: str) -> str | None:
    """Creative Commons license that a page says it is under, by a link with rel="license"."""
    links = (creative_commons(link[1]) for link in _LINK.finditer(html) if _LICENSE.search(link[1]))
    return next((license for license in links if license), None)


def page(
    raw: bytes,
    extractor: Extractor | None,
    declared: str | None = None,
    url: str | None = None,
    is_xhtml: bool = False,
) -> Document:
    """A page as a document: its main text, or a reason; with the address and the license it names.

    Args:
        raw: the page.
        extractor: of the main text; None for all text but navigation.
        declared: charset in the HTTP header.
        url: where it was published.
        is_xhtml: whether it was published as XHTML; a page with an XML declaration is read as such in any case.
    """
    decoded = decode_html(raw, declared)
    if decoded.text is None:
        return Document(None, reason=decoded.reason, url=url)
    html = xhtml_as_html(decoded.text) if is_xhtml or begins_as_xml(decoded.text) else decoded.text
    try:
        text = text_without_navigation(html) if extractor is None else main_text(html, extractor)
    except RefusedError as refused:
        return Document(None, reason=str(refused), url=url)
    if not text.strip():
        return Document(None, reason="no_main_text", url=url)
    return Document(text, url=url, license=page_license(decoded.text))


class HtmlFiles(PathReader):
    """Trees of HTML pages, one document each; `license` is what a rel="license" link of the page names.

    Args:
        paths: see `PathReader`.
        extractor: null for all text of a page but navigation and forms, which suits manuals; `resiliparse` or
            `trafilatura` (optional dependency `web`) for the main text alone, as of pages of the web, by rules that
            also drop short lists.
        max_megabytes: see `Reader`.
        downloads: see `PathReader`.
        max_document_megabytes: see `PathReader`.

    Raises:
        InputError: for an extractor that is not there.
    """

    SUFFIXES = (".html", ".htm", ".xhtml", ".xht")

    def __init__(
        self,
        paths: PathList,
        extractor: Extractor | None = None,
        max_megabytes: float | None = None,
        downloads: str | None = "data/downloads",
        max_document_megabytes: float = 64,
    ) -> None:
        super().__init__(paths, max_megabytes, downloads, max_document_megabytes)
        if extractor is not None:
            check_extractor(extractor)
        self.extractor: Extractor | None = extractor

    def documents(self, path: str, file: InputFile) -> Iterator[Document]:
        """The text of the page."""
        is_xhtml = (self.format_of(file.name) or "").startswith(".xht")
        with open_bounded(path) as stream:
            yield page(read_whole(stream, self.max_bytes), self.extractor, is_xhtml=is_xhtml)
