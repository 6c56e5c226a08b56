"""Books: nothing of a frame is kept, nothing of a book is lost."""

import io
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.readers import Books
from datamodules.readers.books import GUTENBERG_LICENSE, iso_date, strip_gutenberg
from tests.helpers.reading import outcomes, read_all

HEADER = (
    "The Project Gutenberg eBook of Emma\n\nThis ebook is for the use of anyone anywhere.\n\nTitle: Emma\n\n"
    "Author: Jane Austen\n\nRelease date: August 1, 1994 [eBook #158]\n\nLanguage: English\n\n"
    "*** START OF THE PROJECT GUTENBERG EBOOK EMMA ***\n"
)
FOOTER = "\n*** END OF THE PROJECT GUTENBERG EBOOK EMMA ***\n\nUpdated editions will replace the previous one.\n"
lines = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\x00"), max_size=20), max_size=8)


@settings(max_examples=50, deadline=None)
@given(body=lines.map("\n".join))
def test_the_frame_goes_and_the_body_stays(body: str) -> None:
    header, book = strip_gutenberg(HEADER + "\n" + body + "\n" + FOOTER)
    assert book == body.strip()
    assert header.endswith("EMMA ***")
    assert strip_gutenberg(body) == ("", body)


def test_a_book_that_quotes_the_marker_is_not_cut() -> None:
    body = "Chapter 1\n\nEnd of Project Gutenberg's frame, she read aloud.\n\nChapter 2\n\nAnd it went on."
    assert strip_gutenberg(HEADER + body + FOOTER)[1] == body
    twice = "Text.\n\nEnd of the Project Gutenberg EBook of Emma, by Jane Austen"
    assert strip_gutenberg(HEADER + twice + FOOTER)[1] == "Text."
    small = "*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*\n"
    assert strip_gutenberg("Welcome\n" + small + "\nText.\n\nEnd of Project Gutenberg's Etext of Emma\n")[1] == "Text."


def test_the_header_is_provenance(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(HEADER + "Text." + FOOTER)
    (tmp_path / "b.txt").write_bytes(
        (HEADER.replace("Language", "Character set encoding: ISO-8859-1\nLanguage") + "Fräulein" + FOOTER).encode(
            "latin-1"
        )
    )
    (tmp_path / "c.txt").write_text("A book of my own.\n")
    first, second, third = read_all(Books([str(tmp_path)]))
    assert (first.text, first.url, first.license, first.date, first.group) == (
        "Text.", "https://www.gutenberg.org/ebooks/158", GUTENBERG_LICENSE, "1994-08-01", "Emma"
    )  # fmt: skip
    assert second.text == "Fräulein"
    assert (third.text, third.license, third.url) == ("A book of my own.\n", None, None)


@pytest.mark.parametrize(
    ("written", "expected"),
    [("June, 2004 [EBook #5]", "2004-06"), ("12 May 2001", "2001-05-12"), ("soon", None), ("", None)],
)
def test_dates(written: str, expected: str | None) -> None:
    assert iso_date(written) == expected


def epub(chapters: dict[str, bytes], package: str | None = None) -> bytes:
    items = "".join(
        f'<item id="i{n}" href="{name}" media-type="application/xhtml+xml"/>' for n, name in enumerate(chapters)
    )
    spine = "".join(f'<itemref idref="i{n}"/>' for n in reversed(range(len(chapters))))
    package = package or (
        '<package xmlns="http://www.idpf.org/2007/opf"><metadata xmlns:dc="http://purl.org/dc/elements/1.1/">'
        "<dc:title>A Title</dc:title><dc:date>2011-02-03</dc:date><dc:source>https://example.org/book</dc:source>"
        "<dc:rights>https://creativecommons.org/licenses/by/4.0/</dc:rights></metadata>"
        f"<manifest>{items}</manifest><spine>{spine}</spine></package>"
    )
    container = (
        '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
        '<rootfile full-path="OEBPS/content.opf"/></rootfiles></container>'
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("META-INF/container.xml", container)
        archive.writestr("OEBPS/content.opf", package)
        for name, content in chapters.items():
            archive.writestr(f"OEBPS/{name}", content)
    return buffer.getvalue()


def test_an_epub_is_read_in_the_order_of_its_spine(tmp_path: Path) -> None:
    chapters = {"two.xhtml": b"<html><p>Second.</p></html>", "one.xhtml": b"<html><h1>First</h1><p>Text.</p></html>"}
    (tmp_path / "a.epub").write_bytes(epub(chapters))
    (document,) = read_all(Books([str(tmp_path)]))
    assert document.text is not None
    assert document.text.split() == ["First", "Text.", "Second."]
    assert (document.group, document.date, document.license) == ("A Title", "2011-02-03", "CC-BY-4.0")
    assert document.url == "https://example.org/book"


def test_hostile_epubs_have_reasons(tmp_path: Path) -> None:
    laughs = '<!DOCTYPE p [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><package>&b;</package>'
    cases = {
        "a": (epub({"x.xhtml": b"<p>" + b"x" * 50_000_000}), "<too_large>"),
        "b": (epub({}, laughs), "<xml_entities>"),
        "c": (epub({}, "<package>" * 100_000), "<too_deep>"),
        "d": (epub({"x.xhtml": b"<p>x"})[:-30], "<damaged_file>"),
        "e": (b"", "<damaged_file>"),
        "f": (epub({"x.xhtml": b"<div>" * 100_000}), "<too_deep>"),
        "g": (epub({"../../../etc/passwd": b"<p>only a name within the archive</p>"}), "<no_text>"),
    }
    for name, (content, _) in cases.items():
        (tmp_path / f"{name}.epub").write_bytes(content)
    reader = Books([str(tmp_path)], max_document_megabytes=10)
    assert outcomes(reader) == [expected for _, expected in cases.values()]
