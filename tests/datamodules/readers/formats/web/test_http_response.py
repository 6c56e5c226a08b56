"""Records of crawls whose heads do not fit what follows: each is read or dropped alone, and the next is read."""

import gzip
import zlib
from pathlib import Path

import brotli
import pyarrow
import pytest

from datamodules.readers import CommonCrawl
from tests.helpers.reading import outcomes, read_all, record, response

TEXT = "The main text of this page has a sentence or two, and goes on for a while."
PAGE = ("<html><body>" + f"<p>{TEXT}</p>" * 4 + "</body></html>").encode()
SOUND = response("http://sound/", b"<html><body>" + b"<p>This page follows it, whole and sound.</p>" * 4)


def chunked(payload: bytes, extension: str = "", end: bytes = b"0\r\n\r\n") -> bytes:
    parts = [payload[i : i + 100] for i in range(0, len(payload), 100)]
    return b"".join(f"{len(part):x}{extension}\r\n".encode() + part + b"\r\n" for part in parts) + end


def raw_deflated(payload: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(payload) + compressor.flush()


def read(tmp_path: Path, head: str, payload: bytes, name: str = "a.warc.gz") -> list[str]:
    """What becomes of a record and of the one behind it: `page`, another text, or a reason."""
    records = [record("response", "http://a/", payload, head), SOUND]
    (tmp_path / name).write_bytes(b"".join(map(gzip.compress, records)) if name.endswith("gz") else b"".join(records))
    *found, last = outcomes(CommonCrawl([str(tmp_path / name)], max_document_megabytes=1))
    assert "whole and sound" in last
    return ["page" if TEXT in text else text for text in found]


def head(*lines: str, status: str = "HTTP/1.1 200 OK", kind: str | None = "text/html", end: str = "\r\n") -> str:
    return end.join([status, *([] if kind is None else [f"Content-Type: {kind}"]), *lines, "", ""])


HEADS_THAT_LIE = [
    *(f"Content-Encoding: {coding}" for coding in (
        "gzip", "br", "x-gzip", "deflate", "zstd", "none", "utf-8", "identity", "gzip, br", "x-unknown",
    )),
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: gzip, chunked",
]  # fmt: skip


@pytest.mark.parametrize("name", ["a.warc.gz", "a.warc"])
@pytest.mark.parametrize("line", HEADS_THAT_LIE)
def test_a_payload_that_is_not_encoded_as_its_head_says_is_taken_as_it_is(tmp_path: Path, line: str, name: str) -> None:
    assert read(tmp_path, head(line), PAGE, name) == ["page"]


@pytest.mark.parametrize(
    ("lines", "payload"),
    [
        (["Content-Encoding: gzip"], gzip.compress(PAGE)),
        (["Content-Encoding: x-gzip"], gzip.compress(PAGE)),
        (["Content-Encoding: GZIP"], gzip.compress(PAGE[:100]) + gzip.compress(PAGE[100:]) + b"behind"),
        (["Content-Encoding: deflate"], zlib.compress(PAGE)),
        (["Content-Encoding: deflate"], raw_deflated(PAGE)),
        (["Content-Encoding: br"], brotli.compress(PAGE)),
        (["Content-Encoding: zstd"], pyarrow.compress(PAGE, codec="zstd", asbytes=True)),
        (["Content-Encoding: deflate, gzip"], gzip.compress(zlib.compress(PAGE))),
        ([], gzip.compress(PAGE)),
        (["Content-Encoding: gzip"], gzip.compress(gzip.compress(PAGE))),
        (["Transfer-Encoding: chunked"], chunked(PAGE)),
        (["Transfer-Encoding: chunked"], chunked(PAGE, '; name="value"')),
        (["Transfer-Encoding: chunked"], chunked(PAGE, "  ")),
        (["Transfer-Encoding: chunked"], chunked(PAGE, end=b"0\r\nTrailer: x\r\n\r\n")),
        (["Transfer-Encoding: chunked", "Content-Encoding: gzip"], chunked(gzip.compress(PAGE))),
        (["Transfer-Encoding: gzip, chunked"], chunked(gzip.compress(PAGE))),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, list) else "",
)
def test_a_payload_that_is_encoded_is_decoded(tmp_path: Path, lines: list[str], payload: bytes) -> None:
    assert read(tmp_path, head(*lines), payload) == ["page"]


@pytest.mark.parametrize(
    ("lines", "payload", "reason"),
    [
        (["Content-Encoding: gzip"], gzip.compress(PAGE)[:-20], "damaged_page"),
        (["Content-Encoding: br"], brotli.compress(PAGE)[:-10], "damaged_page"),
        (["Content-Encoding: zstd"], pyarrow.compress(PAGE, codec="zstd", asbytes=True)[:-9], "damaged_page"),
        (["Content-Encoding: deflate"], zlib.compress(PAGE)[:-9], "damaged_page"),
        (["Transfer-Encoding: chunked"], chunked(PAGE)[:-150], "damaged_page"),
        (["Content-Encoding: gzip"], gzip.compress(b"<p>" + b"x" * 30_000_000), "too_large"),
        (["Content-Encoding: br"], brotli.compress(b"<p>" + b"x" * 30_000_000), "too_large"),
        (["Content-Encoding: deflate"], raw_deflated(b"<p>" + b"x" * 30_000_000), "too_large"),
        (["Content-Encoding: zstd"], pyarrow.compress(b"x" * 30_000_000, codec="zstd", asbytes=True), "too_large"),
        ([], gzip.compress(gzip.compress(b"x" * 30_000_000)), "not_html"),
        ([], b"%PDF-1.4 \xe4\xf6", "not_html"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_decoded_costs_one_record(tmp_path: Path, lines: list[str], payload: bytes, reason: str) -> None:
    assert read(tmp_path, head(*lines), payload) == [f"<{reason}>"]


@pytest.mark.parametrize(
    "http",
    [
        head("Set-Cookie: " + "x" * 100_000),
        head(end="\n"),
        head("Content-Encoding: gzip", end="\n"),
        head(status="HTTP/1.1 200OK"),
        head(status="HTTP/1.1 200"),
        head(status="HTTP/2 200"),
        head(status="http/1.0  200 Fine"),
        head(status="ICY 200 OK"),
        head(kind=None),
        head(kind=""),
        head(kind="html"),
        head(kind="text/html, text/html"),
        head(kind='"text/html"'),
        head(kind="TEXT/HTML;charset=utf-8"),
        head(kind='text/html; charset="utf-8", text/plain'),
        head("Content-Type: text/html", kind="/"),
        head("no colon here", ": no name", "X-Folded: a", " text/plain"),
    ],
    ids=lambda http: http[:60],
)
def test_heads_that_no_standard_allows_are_read(tmp_path: Path, http: str) -> None:
    assert read(tmp_path, http, PAGE) == ["page"]


@pytest.mark.parametrize(
    ("http", "payload", "reason"),
    [
        (head(kind=None), b'{"a": 1}', "unknown_type"),
        (head(kind="binary"), b"Some words.", "unknown_type"),
        (head(kind="binary"), b"\x89PNG", "not_html"),
        (head(kind="application/pdf"), b"%PDF-1.4", "not_html"),
        (head(kind="text/plain"), b"Text.", "not_html"),
        (head(status="HTTP/1.1 301 Moved"), PAGE, "http_status"),
        (head(status="HTTP/1.1 OK"), PAGE, "http_status"),
        ("HTTP/1.1 200 OK\r\nContent-Type: text/html", b"", "damaged_page"),
    ],
)
def test_every_response_that_is_no_page_has_a_reason(tmp_path: Path, http: str, payload: bytes, reason: str) -> None:
    assert read(tmp_path, http, payload) == [f"<{reason}>"]


def test_records_that_hold_a_part_of_a_page_do_not_pass_as_whole(tmp_path: Path) -> None:
    whole = response("http://a/", PAGE)
    records = [
        whole.replace(b"WARC-Date", b"WARC-Truncated: length\r\nWARC-Date"),
        whole.replace(b"WARC-Date", b"WARC-Segment-Number: 1\r\nWARC-Date"),
        whole.replace(b"WARC-Type: response", b"WARC-Type: revisit"),
        whole,
    ]
    (tmp_path / "a.warc.gz").write_bytes(b"".join(map(gzip.compress, records)))
    reasons = [document.reason for document in read_all(CommonCrawl([str(tmp_path)]))]
    assert reasons == ["truncated_page", "truncated_page", "revisit", None]


def test_pages_without_a_head_of_http_are_read_by_the_type_of_their_record(tmp_path: Path) -> None:
    records = [
        record("resource", "ftp://a/a.html", PAGE).replace(b"text/plain", b"text/html"),
        record("resource", "ftp://a/a.png", b"x").replace(b"text/plain", b"image/png"),
        record("response", "dns:a", b"a 300 IN A 1.2.3.4").replace(b"text/plain", b"text/dns"),
        SOUND,
    ]
    (tmp_path / "a.warc.gz").write_bytes(b"".join(map(gzip.compress, records)))
    documents = read_all(CommonCrawl([str(tmp_path)]))
    assert [document.reason for document in documents] == [None, "not_html", "not_http", None]
    assert documents[0].url == "ftp://a/a.html"


@pytest.mark.parametrize("kind", [b"text/html", b"application/octet-stream", b"message/rfc822", b""])
def test_a_response_of_http_is_known_whatever_its_record_calls_it(tmp_path: Path, kind: bytes) -> None:
    whole = response("http://a/", PAGE)
    assert whole.count(b"application/http") == 1
    named = whole.replace(b"Content-Type: application/http; msgtype=response", b"Content-Type: " + kind)
    (tmp_path / "a.warc.gz").write_bytes(gzip.compress(named))
    assert [document.reason for document in read_all(CommonCrawl([str(tmp_path)]))] == [None]


def test_xhtml_of_a_crawl_is_read_as_xhtml(tmp_path: Path) -> None:
    page = PAGE.replace(b"<body>", b"<head><title/><script src='a.js'/></head><body>")
    assert read(tmp_path, head(kind="application/xhtml+xml"), page) == ["page"]
    assert read(tmp_path, head(), b"<?xml version='1.0'?>" + page) == ["page"]


LONG = response("http://long/" + "x" * 100_000, PAGE)
NO_LENGTH = SOUND.replace(b"Content-Length: ", b"Content-Length: x", 1)


@pytest.mark.parametrize(
    ("records", "reasons"),
    [
        ([SOUND, LONG, SOUND], [None, "damaged_record", None]),
        ([LONG, SOUND], ["damaged_record", None]),
        ([SOUND, b"no record", SOUND, b"no record", b"nor this", SOUND, SOUND],
         [None, "damaged_record", None, "damaged_record", "damaged_record", None, None]),
        ([SOUND, NO_LENGTH, SOUND], [None, "damaged_page", None]),
        ([SOUND, SOUND.replace(b"\r\n", b"\n", 7), SOUND], [None, "damaged_record", None]),
        ([SOUND, b"no record"], [None, "damaged_file"]),
        ([b"no record"], ["damaged_file"]),
    ],
)  # fmt: skip
def test_a_record_whose_own_head_is_damaged_costs_itself(
    tmp_path: Path, records: list[bytes], reasons: list[str | None]
) -> None:
    (tmp_path / "a.warc.gz").write_bytes(b"".join(map(gzip.compress, records)))
    assert [document.reason for document in read_all(CommonCrawl([str(tmp_path)]))] == reasons
