"""Common Crawl reader: WARC and WET files, by FastWARC.

WET files hold text that is extracted already and are a sixth of the size, yet keep menus and advertisements: FineWeb
(Penedo et al. 2024, section 3.2) trained better on text extracted from WARC.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.path_lists import PathList
from datamodules.readers.base import InputFile
from datamodules.readers.document import Document, text_or_reason
from datamodules.readers.formats.bounded_streams import (
    FREE_EXPANSION,
    MALFORMED,
    MAX_EXPANSION,
    RefusedError,
    read_whole,
)
from datamodules.readers.formats.web.http_response import (
    HttpResponse,
    decoded_payload,
    looks_like_other_file,
    looks_like_page,
    parse_response,
)
from datamodules.readers.formats.web.warc import whole_records
from datamodules.readers.html import Extractor, check_extractor, page
from datamodules.readers.paths import PathReader

_XHTML = "application/xhtml+xml"
_HTML_TYPES = ("text/html", _XHTML)


class CommonCrawl(PathReader):
    """Pages of WARC files (responses with status 200 in HTML) and texts of WET files, with address and date of crawl.

    Args:
        paths: see `PathReader`; for example s3://commoncrawl/crawl-data/CC-MAIN-2024-10/segments/*/wet/*.gz
        extractor: of the main text of pages: `resiliparse`, or `trafilatura` (optional dependency `web`).
        max_megabytes: see `Reader`.
        downloads: see `PathReader`; null for crawls larger than the disk.
        max_document_megabytes: see `PathReader`.

    Raises:
        InputError: for an extractor that is not there.
    """

    SUFFIXES = (".warc", ".wet")
    IS_CRAWL = True

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
        """One document a page or text, and a reason for each response that is none.

        Reasons are `http_status`, `not_html`, `not_http` (such as of name servers), `unknown_type` (no Content-Type,
        and nothing that begins as HTML does), `revisit` (the page is in another file), `truncated_page` (the crawler
        stopped before its end), `damaged_page`,
        `damaged_record`, `too_large` and those of `page`. Requests, metadata and the like are no documents.
        """
        from fastwarc.warc import WarcRecordType as Kind

        size = Path(path).stat().st_size
        expansion = max(FREE_EXPANSION, MAX_EXPANSION * size)
        wanted = Kind.response | Kind.resource | Kind.revisit | Kind.conversion
        for record in whole_records(path, expansion):
            if record is None:
                yield Document(None, reason="damaged_record")
                continue
            if record.content_length > expansion:
                # Passing over it would take hours: the rest of the file is given up.
                raise RefusedError("compression_bomb")
            if not record.record_type & wanted:
                continue
            url, date = record.headers.get("WARC-Target-URI"), record.headers.get("WARC-Date")
            yield replace(self._document(record, Kind), url=_printable(url), date=_printable(date))

    def _document(self, record: Any, kind: Any) -> Document:
        """The document of a record, or the reason why it has none."""
        claimed: int = record.content_length
        headers = record.headers
        if record.record_type == kind.revisit:
            return Document(None, reason="revisit")
        if claimed > self.max_bytes:
            return Document(None, reason="too_large")
        if headers.get("WARC-Truncated") or headers.get("WARC-Segment-Number"):
            return Document(None, reason="truncated_page")
        # In memory, so that the next record can be read whatever this one does to a parser.
        record.freeze()
        # FastWARC reads a record that is cut short as one that ends there.
        if record.content_length < claimed:
            raise EOFError(f"{record.content_length} bytes of {claimed} are there")
        try:
            block = read_whole(record.reader, self.max_bytes)
            is_named = "http" in (headers.get("Content-Type") or "http").lower()
            if record.record_type == kind.response and not is_named and not block.startswith(b"HTTP/"):
                return Document(None, reason="not_http")  # such as of name servers
            if record.record_type == kind.conversion:
                return text_or_reason(block)
            if record.record_type == kind.resource:
                # A file without a head, as `wget` stores what comes by FTP: the record has the type.
                types = [headers.get("Content-Type") or ""]
                return self._page(HttpResponse(200, {"content-type": types}, block))
            return self._page(parse_response(block))
        except RefusedError as refused:
            return Document(None, reason=str(refused))
        except MALFORMED:
            return Document(None, reason="damaged_page")

    def _page(self, response: HttpResponse) -> Document:
        if response.status != 200:
            return Document(None, reason="http_status")
        media_type = response.media_type
        if media_type is not None and media_type not in _HTML_TYPES:
            return Document(None, reason="not_html")
        payload = decoded_payload(response, self.max_bytes)
        if looks_like_other_file(payload):
            return Document(None, reason="not_html")
        if media_type is None and not looks_like_page(payload):
            return Document(None, reason="unknown_type")
        return page(payload, self.extractor, response.charset, is_xhtml=media_type == _XHTML)


def _printable(header: str | None) -> str | None:
    return None if header is None else header.encode("utf-8", "backslashreplace").decode()[:2000]
