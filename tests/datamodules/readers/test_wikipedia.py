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
from datamodules.readers.formats.wikitext import MAX_BACKTRACKING, MAX_PAGE, plain_text, unclosed
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
    article, *others, empty = read_all(WikipediaDump([str(tmp_path)]))
    assert [(other.text, other.reason) for other in others] == [
        (None, "other_namespace"), (None, "redirect"), (None, "other_content_model"),
    ]  # fmt: skip
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
    "piece",
    ["{{", "[[", "{{{a|", "<b>", "<ref name=a>", "[http://a ", "{|\n|", "*#:;", "[[ {{ ]] }}", "<div>x", "<ref "],
)
def test_markup_that_nothing_closes_costs_seconds_at_most(piece: str) -> None:
    start = time.perf_counter()
    with pytest.raises(RefusedError, match="unclosed_markup|too_deep"):
        plain_text(piece * 20_000, ())
    assert time.perf_counter() - start < 10


def test_cells_and_paragraphs_need_no_end() -> None:
    rows = "<table>" + "<tr><td>[[a]]<td>b\n" * 5_000 + "</table>" + "<p>c\n" * 5_000
    assert plain_text(rows, ()) == "\n\n".join(["c"] * 5_000)


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


@pytest.mark.parametrize(
    ("markup", "expected"),
    [
        ("a <math>f''(x) = \\{\\}</math> b", "a f''(x) = \\{\\} b"),
        ("<code>s = ''</code>, <code>main()</code>, <code>f(''x'')</code>", "s = '', main(), f(x)"),
        ("<nowiki>''a'' [[b]] {{c}} __TOC__ &lt;</nowiki>", "''a'' [[b]] {{c}} __TOC__ <"),
        ("<code><nowiki>a || ''</nowiki></code>", "a || ''"),
        ("int main() and __FILE__ and __init__", "int main() and __FILE__ and __init__"),
        ("<pre>\nif x:\n    y = ''\n\n    f()\n</pre> after", "if x:\n    y = ''\n\n    f()\n\nafter"),
        (
            'So\n<syntaxhighlight lang="python">\ndef f():\n\treturn {{}}\n</syntaxhighlight>\nend',
            "So\n\ndef f():\n    return {{}}\n\nend",
        ),
        ("a <syntaxhighlight lang=c inline>f( )</syntaxhighlight> b", "a f( ) b"),
        ("''Hamlet'''s and '''b''' '''c'''", "Hamlet's and b c"),
        ("say l'''amour'' now\n'''''d'''''", "say l'amour now\nd"),
        ("''''a''' x", "'a x"),
        ("(; , Akhilleus, )", "(; , Akhilleus, )"),
        ("A ({{IPA|x}}; {{y}}, ''Akhilleus'', {{z}}) b", "A (Akhilleus) b"),
        ("A ({{x}}; {{y}}) b, c{{x}}, d {{x}}. e {{x}} f", "A b, c, d. e f"),
        ("A (Greek: {{x}}; Latin: y) b<ref>c</ref>.", "A (Greek; Latin: y) b."),
        ("f() and ( ) and [ ]", "f() and ( ) and [ ]"),
        ("[[OS&nbsp;X]] [[a&amp;b]]", "OS X a&b"),
        ("a<table><tr><td>b<tr><td>c<table>d</table></table>e</table>", "ae"),
        ("a<p>b<P class=x>c</p><pre>p</pre><poem>d\ne</poem>", "a\n\nb\n\nc\n\np\n\nd\ne"),
        (
            "a <table> b</div> <span class=x>c <BR>d, 1 <b and &lt;div&gt; <nowiki></div></nowiki>",
            "a b c\nd, 1 <b and <div> </div>",
        ),
        ("[[de:Turm]]a [[:de:Turm]] [[simple:x]][[Datei:y]]", "a de:Turm"),
        ("CO<sub>2</sub>, 10<sup>-6</sup>, the 1<sup>st</sup>", "CO_2, 10^{-6}, the 1st"),
        ("__notoc__a__KEIN_INHALTSVERZEICHNIS__\n__ALGO_NUEVO__\nb", "a\n\nb"),
        ("a <!-- {{ -->b\n<!-- c -->\nd", "a b\nd"),
        ("&#39;&#39;a&#39;&#39; &#91;&#91;b]]", "''a'' [[b]]"),
        ("{{unknown|a|b}}x {{{p|q}}} {{{r}}}", "x q"),
        ("a {{b", "a {{b"),
        ("a\n:{| class=x\n| b\n{|\n| c\n|}\n|}\nd {| e", "a\n\nd {| e"),
        ("a }} b { c } d", "a }} b { c } d"),
    ],
)
def test_what_looks_like_markup(markup: str, expected: str) -> None:
    assert plain_text(markup, ("datei",)) == expected


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{convert|300|m|ft}}", "300 m"),
        ("{{convert|3|-|5|km|mi}}", "3–5 km"),
        ("{{convert|5|ft|10|in|m|abbr=on}}", "5 ft 10 in"),
        ("{{Convert|20|C|F}}", "20 °C"),
        ("{{convert|2|x|4|m}}", "2 × 4 m"),
        ("{{lang|fr|mot juste}}", "mot juste"),
        ("{{lang-el|Ἀχιλλεύς}}", "Ἀχιλλεύς"),
        ("{{langx|de|Haus}}", "Haus"),
        ("{{nowrap|a {{lang|fr|b}} c}}", "a b c"),
        ("{{nowrap|1=x = y}}", "x = y"),
        ("{{val|1.5|0.2|e=6|u=m/s}}", "(1.5±0.2)×10^6 m/s"),
        ("{{val|300|ul=km}}", "300 km"),
        ("{{math|''x'' {{=}} 2}}", "x = 2"),
        ("{{frac|1|2}} {{frac|3|1|4}} {{sfrac|5}}", "1/2 3 1/4 1/5"),
        ("{{circa|1900}} {{c.|1900|1910}} {{fl.|1200}}", "c. 1900 c. 1900 – c. 1910 fl. 1200"),
        ("x{{snd}}y{{nbsp}}z", "x – y z"),
        ("x{{sup|2}} {{chem|H|2|O}}", "x^2 H_2O"),
        ("{{formatnum:1234}} {{lc:ABC}} {{#if:x|y}}", "1234 abc"),
        ("{{nihongo|Tokyo|東京|Tōkyō}}", "Tokyo (東京, Tōkyō)"),
        ("{{HMS|Victory}}", "HMS Victory"),
        ("{{unité|12|km}}, {{XXX}}{{s-|XIX|e}}", "12 km, XIXe siècle"),
        ("{{laS|arbor}}", "arbor"),
        ("{{quote|text=A b.|author=C}}", "A b."),
        ("{{abbr|kg|kilogram}}, {{US$|5}}", "kg, US$5"),
        ("{{nowrap|[[a|b]] c}}", "b c"),
    ],
)
def test_templates_within_sentences(template: str, expected: str) -> None:
    assert plain_text(template, ()) == expected


@pytest.mark.parametrize(
    "markup",
    [
        "#REDIRECT [[A]]", "#weiterleitung [[A]]", "  #REDIRECTION [[A]]\n{{R}}", "#перенаправление [[А]]",
        "#重定向 [[甲]]", "#REDIRECT: [[A]]", "#BERALIH [[A]]",
    ],
)  # fmt: skip
def test_redirects_without_the_element(tmp_path: Path, markup: str) -> None:
    (tmp_path / "a.xml").write_bytes(dump(page("A", markup), page("B", "#One [[x]] is a list.\n#Two")))
    assert outcomes(WikipediaDump([str(tmp_path)])) == ["<redirect>", "B\n\nOne x is a list.\nTwo"]


@pytest.mark.parametrize(
    "bad", [b"\x0b", b"\x00", b"\xff", b"\xed\xa0\x80", "\uffff".encode(), b"&#11;", b"&#x1F;", b"&#xD800;"]
)
@pytest.mark.parametrize("filler", [0, 2**20 - 600, 2**20 - 597])
def test_one_character_that_xml_lacks_ends_no_dump(tmp_path: Path, bad: bytes, filler: int) -> None:
    whole = dump(page("F", "x" * filler), page("A", "one BAD two"), page("B", "three")).replace(b"BAD", bad)
    (tmp_path / "a.xml").write_bytes(whole)
    found = outcomes(WikipediaDump([str(tmp_path)]))
    assert found[1].replace("\ufffd", "") == "A\n\none two" or found[1].replace("\ufffd", "") == "A\n\none  two"
    assert found[2] == "B\n\nthree"


def test_dumps_in_other_encodings(tmp_path: Path) -> None:
    text = dump(page("Ä", "Öl.")).decode()
    (tmp_path / "a.xml").write_bytes(f'<?xml version="1.0" encoding="iso-8859-1"?>{text}'.encode("latin-1"))
    (tmp_path / "b.xml").write_bytes(text.encode("utf-16"))
    (tmp_path / "c.xml").write_bytes(b"\xef\xbb\xbf\n" + text.encode())
    (tmp_path / "d.xml").write_bytes(text.encode("utf-16-be"))
    (tmp_path / "e.xml").write_bytes(text.encode("utf-16-le"))
    assert outcomes(WikipediaDump([str(tmp_path)])) == ["Ä\n\nÖl."] * 5


@pytest.mark.parametrize(
    ("opening", "closing"), [("{{a|", "}}"), ("{{nowrap|", "}}"), ("{{{a|", "}}}"), ("[[a|", "]]"), ("<i>", "</i>")]
)
def test_closed_markup_30_deep_is_linear(opening: str, closing: str) -> None:
    piece = opening * 30 + "x" + closing * 30 + "\n"

    def seconds(characters: int) -> float:
        start = time.process_time()
        plain_text(piece * (characters // len(piece)), ())
        return time.process_time() - start

    seconds(10_000)
    assert seconds(120_000) < 12 * max(seconds(20_000), 0.02)


def test_templates_deep_and_pages_long_are_bounded() -> None:
    start = time.process_time()
    assert plain_text("{{nowrap|" * 50_000 + "x" * 100_000 + "}}" * 50_000 + "y", ()) == "y"
    assert time.process_time() - start < 5
    with pytest.raises(RefusedError, match="too_large"):
        plain_text("x" * (MAX_PAGE + 1), ())
