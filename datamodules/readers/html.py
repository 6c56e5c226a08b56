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
from datamodules.readers.formats.html_depth import MAX_DEPTH, depth
from datamodules.readers.paths import PathReader

Extractor = Literal["resiliparse", "trafilatura"]

UNDECODABLE_SHARE = 0.01
"""Share of replacement characters above which bytes were no text in the encoding found."""

_CREATIVE_COMMONS = re.compile(
    r"creativecommons\.org/(?:licenses|publicdomain)/(by(?:-(?:nc|nd|sa))*|zero|mark)/(\d\.\d)", re.I
)
_LINK = re.compile(r"<(?:a|link)\b([^<>]{0,4500}+)>", re.I)
_LICENSE = re.compile(r"\brel\s*+=\s*+[\"']?+[^\"']{0,200}\blicense\b", re.I)


def looks_like_html(text: str) -> bool:
    """True if a description is mostly HTML: more than one tag in each 200 characters."""
    return text.count("</") * 200 > len(text)


def html_to_text(html: str) -> str:
    """Text of an HTML fragment by Resiliparse's extractor; scripts, styles and markup go, lists and paragraphs stay.

    Raises:
        RefusedError: `too_deep` beyond `MAX_DEPTH`.
    """
    from resiliparse.extract.html2text import extract_plain_text

    if depth(html) > MAX_DEPTH:
        raise RefusedError("too_deep")
    text: str = extract_plain_text(html, preserve_formatting=True, alt_texts=False)
    return text


def main_text(html: str, extractor: Extractor) -> str:
    """The main text of a page, without navigation, advertisements and forms; empty where there is none.

    Raises:
        RefusedError: `too_deep` beyond `MAX_DEPTH`.
    """
    if depth(html) > MAX_DEPTH:
        raise RefusedError("too_deep")
    if extractor == "trafilatura":
        import trafilatura

        # The settings of FineWeb (Penedo et al. 2024, datatrove's Trafilatura).
        return trafilatura.extract(html, favor_precision=True, include_comments=False, include_images=False) or ""
    from resiliparse.extract.html2text import extract_plain_text

    text: str = extract_plain_text(html, preserve_formatting=True, main_content=True, alt_texts=False)
    return text


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

    Args:
        raw: the page.
        declared: charset in the HTTP header.

    Returns:
        The page as a document, or the reason `undecodable`.
    """
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding, map_encoding_to_html5

    # ISO-2022 (escapes) and UTF-16 (zeros) can be UTF-8 as well, anything else that is UTF-8 is meant so.
    if b"\x1b" not in raw and b"\0" not in raw:
        document = text_or_reason(raw)
        if document.text is not None:
            return document
    encoding = map_encoding_to_html5(declared, fallback_utf8=False) if declared else None
    if encoding is not None:
        try:
            return unless_surrogates(raw.decode(encoding).removeprefix("\ufeff"))
        except (UnicodeError, LookupError):
            encoding = None
    text: str = bytes_to_str(raw, detect_encoding(raw, from_html_meta=True) or "utf-8", errors="replace")
    if text.count("\ufffd") > UNDECODABLE_SHARE * len(text):
        return Document(None, reason="undecodable")
    return unless_surrogates(text)


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


def page(raw: bytes, extractor: Extractor, declared: str | None = None, url: str | None = None) -> Document:
    """A page as a document: its main text, or a reason; with the address and the license it names."""
    decoded = decode_html(raw, declared)
    if decoded.text is None:
        return Document(None, reason=decoded.reason, url=url)
    try:
        text = main_text(decoded.text, extractor)
    except RefusedError as refused:
        return Document(None, reason=str(refused), url=url)
    if not text.strip():
        return Document(None, reason="no_main_text", url=url)
    return Document(text, url=url, license=page_license(decoded.text))


class HtmlFiles(PathReader):
    """Trees of HTML pages, one document each; `license` is what a rel="license" link of the page names.

    Args:
        paths: see `PathReader`.
        extractor: `resiliparse`, or `trafilatura` (optional dependency `web`).
        max_megabytes: see `Reader`.
        downloads: see `PathReader`.
        max_document_megabytes: see `PathReader`.

    Raises:
        InputError: for an extractor that is not there.
    """

    SUFFIXES = (".html", ".htm", ".xhtml")

    def __init__(
        self,
        paths: PathList,
        extractor: Extractor = "resiliparse",
        max_megabytes: float | None = None,
        downloads: str | None = "data/downloads",
        max_document_megabytes: float = 64,
    ) -> None:
        super().__init__(paths, max_megabytes, downloads, max_document_megabytes)
        check_extractor(extractor)
        self.extractor: Extractor = extractor

    def documents(self, path: str, file: InputFile) -> Iterator[Document]:
        """The main text of the page."""
        with open_bounded(path) as stream:
            yield page(read_whole(stream, self.max_bytes), self.extractor)
