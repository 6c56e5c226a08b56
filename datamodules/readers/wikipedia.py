"""Wikipedia reader: dumps of MediaWiki sites, page by page in bounded memory.

The dump of the source needs a parser that HTML dumps would not, but exists for every wiki, language and month.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from mwparserfromhell.parser import ParserError

from datamodules.readers.base import InputFile
from datamodules.readers.document import Document, unless_surrogates
from datamodules.readers.formats.bounded_streams import MALFORMED, RefusedError, open_bounded
from datamodules.readers.formats.markup.wiki_words import is_redirect
from datamodules.readers.formats.wikitext import plain_text
from datamodules.readers.formats.xml import feed, new_parser
from datamodules.readers.paths import PathReader

LICENSE = "CC-BY-SA-4.0"
"""Of all Wikimedia text since June 2023 (terms of use, section 7)."""

_NAME = re.compile(r"\.xml(?:-p\d+p\d+)?(?:\.(?:bz2|gz|zst|xz))?$", re.I)
_FIELDS = frozenset({"title", "ns", "timestamp", "model", "text", "base", "namespace"})
_NO_TEXT_NAMESPACES = {"-2", "6", "14"}
"""Keys of media, files and categories."""


class _Pages:
    """Collects pages from the parser's callbacks; `taken` hands over those that are complete."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.base = ""
        self.dropped = {"media", "file", "image", "category"}
        self.pages: list[dict[str, str]] = []
        self.page: dict[str, str] = {}
        self.field: str | None = None
        self.parts: list[str] = []
        self.size = 0
        self.drops_namespace = False

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if name == "page":
            self.page = {}
        elif name == "redirect":
            self.page["redirect"] = ""
        elif name in _FIELDS:
            self.field, self.parts, self.size = name, [], 0
            self.drops_namespace = attributes.get("key") in _NO_TEXT_NAMESPACES

    def characters(self, text: str) -> None:
        if self.field is not None:
            self.size += len(text)
            if self.size <= self.max_bytes:
                self.parts.append(text)

    def end(self, name: str) -> None:
        if name == "page":
            self.pages.append(self.page)
            self.page = {}
        elif name == self.field:
            value = "".join(self.parts)
            self.field, self.parts = None, []
            if name == "base":
                self.base = value.rpartition("/")[0]
            elif name == "namespace":
                if self.drops_namespace:
                    self.dropped.add(value.lower())
            else:
                self.page[name] = value
                if self.size > self.max_bytes:
                    self.page["too_large"] = ""

    def taken(self) -> list[dict[str, str]]:
        pages, self.pages = self.pages, []
        return pages


class WikipediaDump(PathReader):
    """Articles of MediaWiki XML dumps (pages-articles, .xml or .xml.bz2), one document each.

    Other pages are dropped as `other_namespace`, `redirect` or `other_content_model`, so that the report counts them.
    Keeps the address (from the dump's siteinfo), the date of the revision and the license of Wikimedia's text.
    """

    SUFFIXES = (".xml",)

    @classmethod
    def format_of(cls, name: str) -> str | None:
        """Dumps in parts are named pages-articles1.xml-p1p41242.bz2."""
        return ".xml" if _NAME.search(name) else None

    def wants(self, path: Path) -> bool:
        """XML files, compressed or not."""
        return self.format_of(path.name) is not None

    def documents(self, path: str, file: InputFile) -> Iterator[Document]:
        """One document an article, its title first."""
        pages = _Pages(self.max_bytes)
        parser = new_parser(pages.start, pages.end, pages.characters)
        with open_bounded(path) as stream:
            for _ in feed(parser, stream):
                yield from (self._article(page, pages) for page in pages.taken())

    @staticmethod
    def _article(page: dict[str, str], pages: _Pages) -> Document:
        title = page.get("title", "")
        address = quote(title.replace(" ", "_"), safe="/:(),'!*;@$~")
        url = f"{pages.base}/{address}" if pages.base else None
        date = page.get("timestamp") or None
        if reason := _not_an_article(page):
            return Document(None, reason=reason, url=url, date=date)
        try:
            text = plain_text(page.get("text", ""), pages.dropped)
        except RefusedError as refused:
            return Document(None, reason=str(refused), url=url, date=date)
        except (*MALFORMED, ParserError):
            return Document(None, reason="damaged_markup", url=url, date=date)
        if not text:
            return Document(None, reason="no_text", url=url, date=date)
        document = unless_surrogates(f"{title}\n\n{text}")
        return Document(document.text, document.reason, url=url, license=LICENSE, date=date)


def _not_an_article(page: dict[str, str]) -> str | None:
    if page.get("ns", "0") != "0":
        return "other_namespace"
    if "redirect" in page or is_redirect(page.get("text", "")):
        return "redirect"
    if page.get("model", "wikitext") != "wikitext":
        return "other_content_model"
    return "too_large" if "too_large" in page else None
