"""MediaWiki dumps: what is an article, what is its text, and what the parser must not be given."""

import bz2
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mwparserfromhell.parser import ParserError

from datamodules.readers import WikipediaDump, wikipedia
from datamodules.readers.formats.bounded_streams import RefusedError
from datamodules.readers.formats.wikitext import MAX_BACKTRACKING, plain_text, unclosed
from tests.helpers.reading import dump, outcomes, page, read_all

SOURCE = """{{Infobox|a={{b|c}}}}
'''Ein Baum''' ist eine [[Pflanze|grüne Pflanze]] ({{IPA|x}}) &amp; mehr.<ref name="a">Quelle</ref>

[[Datei:Baum.jpg|thumb|Ein [[Bild]]]]
== Aufbau ==
=== Wurzel ===
* Erstens
* [https://example.org Zweitens]
{| class="wikitable"
| DEBRIS
|}
== Einzelnachweise ==
<references />
[[Kategorie:Baum]]__NOTOC__"""
TEXT = "Ein Baum ist eine grüne Pflanze & mehr.\n\nAufbau\n\nWurzel\n\nErstens\nZweitens"


def test_articles_are_read_and_nothing_else(tmp_path: Path) -> None:
    pages = [
        page("Ein Baum", SOURCE),
        page("Diskussion:Baum", "x", ns=1),
        page("Umleitung", "#WEITERLEITUNG [[Baum]]", extra='<redirect title="Baum" />'),
        page("Stil", "a{}", model="css"),
        page("Leer", "{{nur Vorlage}}"),
    ]
    (tmp_path / "dewiki-pages-articles1.xml-p1p9.bz2").write_bytes(bz2.compress(dump(*pages)))
    article, empty = read_all(WikipediaDump([str(tmp_path)]))
    assert article.text == f"Ein Baum\n\n{TEXT}"
    assert (article.url, article.date) == ("https://de.wikipedia.org/wiki/Ein_Baum", "2024-01-02T03:04:05Z")
    assert article.license == "CC-BY-SA-4.0"
    assert (empty.text, empty.reason) == (None, "no_text")


def test_a_cut_or_broken_dump_keeps_what_came_before(tmp_path: Path) -> None:
    pages = [page(f"A{i}", f"Text {i}.") for i in range(3)]
    whole = dump(*pages)
    (tmp_path / "a.xml").write_bytes(whole[:-60])
    (tmp_path / "b.xml").write_bytes(b"")
    streams = bz2.compress(whole[:900]) + bz2.compress(whole[900:])
    (tmp_path / "c.xml.bz2").write_bytes(streams[:-20])
    (tmp_path / "d.xml").write_bytes(b"<!DOCTYPE m [<!ENTITY a 'x'>]>" + whole)
    found = outcomes(WikipediaDump([str(tmp_path)]))
    assert found[:4] == ["A0\n\nText 0.", "A1\n\nText 1.", "<invalid_xml>", "<invalid_xml>"]
    assert found[-2:] == ["<damaged_file>", "<xml_entities>"]


def test_a_page_above_the_limit_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_bytes(dump(page("A", "x" * 3_000_000), page("B", "Text.")))
    assert outcomes(WikipediaDump([str(tmp_path)], max_document_megabytes=1)) == ["<too_large>", "B\n\nText."]


@pytest.mark.parametrize(
    "piece", ["{{", "[[", "{{{a|", "<b>", "<ref name=a>", "[http://a ", "{|\n|", "*#:;", "[[ {{ ]] }}", "<div>x"]
)
def test_markup_that_nothing_closes_costs_seconds_at_most(piece: str) -> None:
    start = time.perf_counter()
    with pytest.raises(RefusedError, match="unclosed_markup|too_deep"):
        plain_text(piece * 20_000, ())
    assert time.perf_counter() - start < 10


def test_closed_markup_counts_for_nothing() -> None:
    assert unclosed(SOURCE) == 0
    assert unclosed("}}" * 9 + "{{" * 5) == 5
    assert unclosed("{{ [ }} ]") == 1
    many = "{{a|b=c}} [[d|e]]<ref>x</ref><br> [0,1)\n\n" * 500
    assert unclosed(many) * len(many) <= MAX_BACKTRACKING
    assert plain_text("{{" * 39 + "x" + "}}" * 39 + "y", ()) == "y"


PIECES = [
    "{{", "}}", "[[", "]]", "|", "==", "'''", "<ref>", "</ref>", "{|", "|}", "\n", "a", "b", "&#0;", "<br>", "*", ":",
    "http://a",
]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(source=st.lists(st.sampled_from(PIECES), max_size=30))
def test_any_markup_becomes_text(source: list[str]) -> None:
    text = plain_text("".join(source), ("file",))
    assert "\x00" not in text.replace("&#0;", "")
    assert text == text.strip()


@settings(max_examples=50, deadline=None)
@given(text=st.lists(st.text("abc .,", min_size=1, max_size=30).filter(str.strip), max_size=5))
def test_text_without_markup_is_kept(text: list[str]) -> None:
    paragraphs = [" ".join(paragraph.split()) for paragraph in text]
    assert plain_text("\n\n".join(paragraphs), ()) == "\n\n".join(paragraphs)


@pytest.mark.parametrize("error", [ParserError("x"), RecursionError(), IndexError()])
def test_an_article_that_breaks_the_parser_is_dropped_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def breaks(markup: str, dropped: object) -> str:
        if "hostile" in markup:
            raise error
        return markup

    monkeypatch.setattr(wikipedia, "plain_text", breaks)
    (tmp_path / "a.xml").write_bytes(dump(page("A", "one"), page("B", "hostile"), page("C", "two")))
    assert outcomes(WikipediaDump([str(tmp_path)])) == ["A\n\none", "<damaged_markup>", "C\n\ntwo"]
