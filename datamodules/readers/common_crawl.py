"""Common Crawl reader: WARC and WET files, by FastWARC.

WET files hold text that is extracted already and are a sixth of the size, yet keep menus and advertisements: FineWeb
(Penedo et al. 2024, section 3.2) trained better on text extracted from WARC.
"""

import re
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
from datamodules.readers.formats.warc import whole_records
from datamodules.readers.html import Extractor, check_extractor, page
from datamodules.readers.paths import PathReader

_HTML_TYPES = ("text/html", "application/xhtml+xml")
_CHARSET = re.compile(r"charset\s*=\s*[\"']?([\w.:-]{1,40})", re.I)


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
        """One document a page or text; other records are passed over."""
        from fastwarc.warc import WarcRecordType

        size = Path(path).stat().st_size
        expansion = max(FREE_EXPANSION, MAX_EXPANSION * size)
        wanted = WarcRecordType.response | WarcRecordType.conversion
        for record in whole_records(path, expansion):
            if record.content_length > expansion:
                # Passing over it would take hours: the rest of the file is given up.
                raise RefusedError("compression_bomb")
            if not record.record_type & wanted:
                continue
            url, date = record.headers.get("WARC-Target-URI"), record.headers.get("WARC-Date")
            document = self._document(record, WarcRecordType.conversion)
            if document is not None:
                yield replace(document, url=_printable(url), date=_printable(date))

    def _document(self, record: Any, conversion: Any) -> Document | None:
        """The document of a record, or None for one that is no page."""
        claimed: int = record.content_length
        is_text = record.record_type == conversion
        if not is_text and not record.is_http:
            return None
        if claimed > self.max_bytes:
            return Document(None, reason="too_large")
        record.freeze()
        # FastWARC reads a record that is cut short as one that ends there.
        if record.content_length < claimed:
            raise EOFError(f"{record.content_length} bytes of {claimed} are there")
        try:
            if is_text:
                return text_or_reason(read_whole(record.reader, self.max_bytes))
            record.parse_http(auto_decode="all")
            headers = record.http_headers
            kind = (headers.get("Content-Type") or "").partition(";")[0].strip().lower()
            if headers.status_code != 200 or kind not in _HTML_TYPES:
                return None
            declared = _CHARSET.search(headers.get("Content-Type") or "")
            raw = read_whole(record.reader, self.max_bytes)
            return page(raw, self.extractor, declared[1] if declared else None)
        except RefusedError as refused:
            return Document(None, reason=str(refused))
        except MALFORMED:
            # The record is in memory, so that the next can be read whatever this one did to a parser.
            return Document(None, reason="damaged_page")


def _printable(header: str | None) -> str | None:
    return None if header is None else header.encode("utf-8", "backslashreplace").decode()[:2000]
