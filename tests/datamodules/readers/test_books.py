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


def epub(chapters: dict[str, bytes], package: str | None = None, media_type: str = "application/xhtml+xml") -> bytes:
    items = "".join(f'<item id="i{n}" href="{name}" media-type="{media_type}"/>' for n, name in enumerate(chapters))
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
            archive.writestr(f"OEBPS/{name.partition('#')[0]}", content)
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
        "g": (epub({"../../../etc/passwd": b"<p>only a name within the archive</p>"}), "<missing_chapter>"),
        "h": (epub({}), "<no_text>"),
    }
    for name, (content, _) in cases.items():
        (tmp_path / f"{name}.epub").write_bytes(content)
    reader = Books([str(tmp_path)], max_document_megabytes=10)
    assert outcomes(reader) == [expected for _, expected in cases.values()]


def test_empty_elements_of_xhtml_do_not_swallow_a_book(tmp_path: Path) -> None:
    chapters = {
        "three.xhtml#start": b"<html><head><script src='a.js'/><style/></head><body><p>Third.</p></body></html>",
        "two.xhtml": b"<html><head><title/></head><body><a id='page1'/><p>Second <i/>part.</p></body></html>",
        "one.xhtml": b"<?xml version='1.0'?><html><body><p>First.</p><pre><![CDATA[a < b]]></pre></body></html>",
    }
    (tmp_path / "a.epub").write_bytes(epub(chapters))
    (text,) = outcomes(Books([str(tmp_path)]))
    assert " ".join(text.split()) == "First. a < b Second part. Third."


@pytest.mark.parametrize("media_type", ["text/x-oeb1-document", "text/html", "application/xhtml+xml; charset=utf-8"])
def test_chapters_of_older_and_inexact_types_are_read(tmp_path: Path, media_type: str) -> None:
    (tmp_path / "a.epub").write_bytes(epub({"a.html": b"<p>Text.</p>"}, media_type=media_type))
    assert outcomes(Books([str(tmp_path)])) == ["Text."]


def test_pages_drawn_in_svg_are_read(tmp_path: Path) -> None:
    drawn = (
        b"<svg xmlns='http://www.w3.org/2000/svg'><text x='1'>Drawn text.</text><path d='M0'/><text>More.</text></svg>"
    )
    page = b"<html><body><svg:svg xmlns:svg='http://www.w3.org/2000/svg'><svg:text>Inline.</svg:text></svg:svg></body></html>"
    (tmp_path / "a.epub").write_bytes(epub({"a.svg": drawn}, media_type="image/svg+xml"))
    (tmp_path / "b.epub").write_bytes(epub({"b.xhtml": page}))
    texts = outcomes(Books([str(tmp_path)]))
    assert [text.split() for text in texts] == [["Drawn", "text.", "More."], ["Inline."]]


def test_chapters_that_are_passed_over_are_counted(tmp_path: Path) -> None:
    chapters = {"deep.xhtml": b"<div>" * 1000 + b"x", "good.xhtml": b"<p>Text.</p>"}
    package = (
        '<package xmlns="http://www.idpf.org/2007/opf"><manifest>'
        '<item id="g" href="good.xhtml" media-type="application/xhtml+xml"/>'
        '<item id="m" href="missing.xhtml" media-type="application/xhtml+xml"/>'
        '<item id="d" href="deep.xhtml" media-type="application/xhtml+xml"/>'
        '<item id="p" href="p.jpg" media-type="image/jpeg"/>'
        '<item id="q" href="q.jpg" media-type="image/jpeg" fallback="g"/>'
        "</manifest><spine>"
        + "".join(f'<itemref idref="{name}"/>' for name in ("p", "m", "d", "q", "unknown"))
        + "</spine></package>"
    )
    (tmp_path / "a.epub").write_bytes(epub(chapters, package))
    other = "<chapter_of_other_type>"
    assert outcomes(Books([str(tmp_path)])) == ["Text.", other, "<missing_chapter>", "<too_deep>", other]


def test_text_in_figures_and_objects_stays_and_readings_of_ruby_go(tmp_path: Path) -> None:
    chapter = (
        "<html><body><p>山<ruby>路<rp>(</rp><rt>みち</rt><rp>)</rp></ruby>を<ruby>登<rt>のぼ</rt></ruby>る</p>"
        "<figure><img src='a.png' alt='A picture'/><pre>if a:\n    b()</pre><table><tr><td>Cell</td></tr></table>"
        "<figcaption>Caption</figcaption></figure><object data='x'><p>In an object.</p></object></body></html>"
    )
    (tmp_path / "a.epub").write_bytes(epub({"a.xhtml": chapter.encode()}))
    (text,) = outcomes(Books([str(tmp_path)]))
    assert text.startswith("山路を登る")
    assert "if a:\n    b()" in text
    assert "Cell" in text
    assert "Caption" in text
    assert "In an object." in text
    assert "picture" not in text
