"""JATS articles: formulas, scripts, citations, blocks within blocks, encodings and parts of articles."""

import time
from pathlib import Path

import pytest

from datamodules.readers import JatsArticles
from datamodules.readers.formats.markup.jats_text import tex_formula
from datamodules.readers.formats.markup.scripts import scripted
from datamodules.readers.jats import articles
from tests.helpers.reading import outcomes, read_all, tar

MATHML = 'xmlns:mml="http://www.w3.org/1998/Math/MathML"'
PREAMBLE = "\\documentclass[12pt]{minimal} \\usepackage{amsmath} \\setlength{\\oddsidemargin}{-69pt} \\begin{document}"


def article(body: str, front: str = "") -> str:
    return (
        f'<article xmlns:xlink="http://www.w3.org/1999/xlink" {MATHML}>'
        f"<front><article-meta>{front}</article-meta></front>"
        f"<body>{body}</body></article>"
    )


def text(body: str) -> str | None:
    (document,) = articles(article(body).encode())
    return document.text


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (
            f"Let <inline-formula><alternatives><tex-math>{PREAMBLE}$$\\alpha$$\\end{{document}}</tex-math>"
            "<mml:math><mml:mi>α</mml:mi></mml:math></alternatives></inline-formula> be the rate.",
            "Let $\\alpha$ be the rate.",
        ),
        (
            f"So <disp-formula><label>(1)</label><tex-math>{PREAMBLE}\\begin{{equation*}} x \\end{{equation*}}"
            "\\end{document}</tex-math><mml:math><mml:mi>x</mml:mi></mml:math></disp-formula> holds.",
            "So\n\n\\begin{equation*} x \\end{equation*}\n\nholds.",
        ),
        (
            "Let <mml:math><mml:mover><mml:mi>x</mml:mi><mml:mo>¯</mml:mo></mml:mover></mml:math> be the mean of "
            "<mml:math><mml:mfrac><mml:mn>1</mml:mn><mml:msqrt><mml:mi>n</mml:mi></mml:msqrt></mml:mfrac></mml:math>.",
            "Let \\bar{x} be the mean of \\frac{1}{\\sqrt{n}}.",
        ),
        (
            "<mml:math><mml:semantics><mml:mi>y</mml:mi><mml:annotation encoding='application/x-tex'>\\eta"
            "</mml:annotation></mml:semantics></mml:math> is.",
            "\\eta is.",
        ),
        (
            "<mml:math><mml:munderover><mml:mo>∑</mml:mo><mml:mrow><mml:mi>i</mml:mi><mml:mo>=</mml:mo><mml:mn>1</mml:mn>"
            "</mml:mrow><mml:mi>n</mml:mi></mml:munderover><mml:msubsup><mml:mi>x</mml:mi><mml:mi>i</mml:mi><mml:mn>2"
            "</mml:mn></mml:msubsup></mml:math>",
            "∑_{i = 1}^nx_i^2",
        ),
        ("5 × 10<sup>6</sup> cells at 10<sup>−9</sup> M", "5 × 10^6 cells at 10^{−9} M"),
        ("H<sub>2</sub>O, Ca<sup>2+</sup>, x<sub>max</sub>", "H_2O, Ca^{2+}, x_{max}"),
        ("the 1<sup>st</sup>, XIX<sup>e</sup>, M<sup>me</sup>", "the 1st, XIXe, Mme"),
        (
            "as before<sup><xref ref-type='bibr'>1</xref>,<xref ref-type='bibr'>2</xref></sup>. So",
            "as before. So",
        ),
        ("as before<xref ref-type='bibr'><sup>12</sup></xref> and", "as before and"),
        ("as before<xref ref-type='bibr'>1</xref>,<xref ref-type='bibr'>2</xref>, and", "as before, and"),
        ("by Smith [<xref ref-type='bibr'>12</xref>] and <xref ref-type='bibr'>Doe</xref>.", "by Smith [12] and Doe."),
        ("see<sup><xref ref-type='fig'>2</xref></sup>", "see^2"),
        ("one<break/>two", "one two"),
        (
            "Steps:<list><list-item><label>1</label><p>First</p></list-item><list-item><p>Second</p></list-item></list>done.",
            "Steps:\n\nFirst\n\nSecond\n\ndone.",
        ),
        ("Run<preformat>\nif x:\n    y = ''\n\n    z\n</preformat>now", "Run\n\nif x:\n    y = ''\n\n    z\n\nnow"),
        ("call <code>f()</code> or <code>\nfor a:\n  b\n</code>", "call f() or\n\nfor a:\n  b"),
        ("<def-list><def-item><term>IQ</term><def><p>quotient</p></def></def-item></def-list>", "IQ\n\nquotient"),
        ("<verse-group><verse-line>Roses</verse-line><verse-line>red</verse-line></verse-group>", "Roses\nred"),
        ("a<disp-quote><p>b</p><attrib>C</attrib></disp-quote>d", "a\n\nb\n\nC\n\nd"),
    ],
)  # fmt: skip
def test_text_of_a_paragraph(written: str, expected: str) -> None:
    assert text(f"<p>{written}</p>") == expected


@pytest.mark.parametrize(
    ("source", "display", "expected"),
    [
        ("$$x$$", False, "$x$"),
        ("\\(x\\)", False, "$x$"),
        ("$a$ and $b$", True, "$a$ and $b$"),
        ("\\begin{document}\\[x\\]\\end{document}", True, "x"),
        ("\\begin{document}x", True, "x"),
        ("", False, ""),
    ],
)
def test_formulas_are_bare_lines_or_between_dollars(source: str, display: bool, expected: str) -> None:
    assert tex_formula(source, display) == expected


def test_letters_are_raised_and_ordinals_are_words() -> None:
    assert scripted("x", "n", True) == "^n"
    assert scripted("x", "th", False) == "_{th}"
    assert scripted("the 20", "th", True) == "th"
    assert scripted("e", "e", True) == "^e"
    assert scripted("word", "*", True) == "*"
    assert scripted("word", " ", True) == " "


@pytest.mark.parametrize("encoding", ["gb2312", "big5", "shift_jis", "euc-kr", "iso-8859-2", "windows-1251", "utf-16"])
def test_declared_encodings_are_read(tmp_path: Path, encoding: str) -> None:
    letters = {"gb2312": "汉字", "big5": "漢字", "shift_jis": "かな漢字", "euc-kr": "한국어", "iso-8859-2": "Łódź"}
    words = letters.get(encoding, "Москва")
    whole = f'<?xml version="1.0" encoding="{encoding}"?>' + article(f"<p>{words}</p>")
    (tmp_path / "a.xml").write_bytes(whole.encode(encoding))
    assert outcomes(JatsArticles([str(tmp_path)])) == [words]


@pytest.mark.parametrize("before", ["\n", "\ufeff", "\ufeff\r\n ", " \t\n"])
def test_blanks_before_the_declaration_are_passed_over(before: str) -> None:
    raw = f'{before}<?xml version="1.0" encoding="UTF-8"?>{article("<p>é</p>")}'.encode()
    assert [document.text for document in articles(raw)] == ["é"]


def test_an_encoding_that_lies_or_is_none_is_a_reason() -> None:
    for encoding in ("gb2312", "punycode", "idna", "base64", "x-unknown"):
        raw = f'<?xml version="1.0" encoding="{encoding}"?>'.encode() + article("<p>\xff</p>").encode("latin-1")
        assert [document.reason for document in articles(raw)] == ["invalid_xml"]


def test_every_article_of_a_file_and_every_part_of_an_article_is_a_document(tmp_path: Path) -> None:
    one = article("<p>One.</p>", '<article-id pub-id-type="doi">10.1/a</article-id>')
    part = (
        "<sub-article><front-stub><title-group><article-title>Um</article-title></title-group></front-stub>"
        "<body><p>Uma.</p></body></sub-article><response><front-stub/></response></article>"
    )
    several = f"<set>{one}{article('')}{one.replace('</article>', part)}</set>"
    (tmp_path / "a.tar").write_bytes(tar({"a.xml": several.encode(), "b.xml": b"<html/>", "c.pdf": b"%PDF"}))
    found = read_all(JatsArticles([str(tmp_path)]))
    assert [document.text or document.reason for document in found] == [
        "One.", "no_body", "One.", "Um\n\nUma.", "no_body", "no_article",
    ]  # fmt: skip
    assert [document.group for document in found] == [None, None, *["https://doi.org/10.1/a"] * 3, None]
    assert found[3].url == "https://doi.org/10.1/a"


def test_figures_alone_are_no_body() -> None:
    assert [d.reason for d in articles(article("<sec><title/><fig><p>x</p></fig></sec>").encode())] == ["no_body"]


@pytest.mark.parametrize(
    "body",
    [
        "<p>" + "<alternatives>" * 240 + "x" * 1000 + "</alternatives>" * 240 + "</p>",
        "<p>" + "a<sup>" * 240 + "</sup>" * 240 + "</p>" + "<p>a<sup>b</sup></p>" * 30_000,
        "<p>" + "<xref ref-type='bibr'>1</xref>," * 60_000 + "</p>",
        "<p>" + "<sup><xref ref-type='bibr'>1</xref></sup>" * 40_000 + "</p>",
        "<mml:math>" + "<mml:msup><mml:mi>x</mml:mi><mml:mn>2</mml:mn></mml:msup>" * 20_000 + "</mml:math>",
        "<p><tex-math>" + "\\begin{document}" * 60_000 + "</tex-math></p>",
        "<p>" + "\n" * 1_000_000 + "</p>",
    ],
    ids=lambda body: ascii(body[:24]),
)
def test_long_articles_are_read_in_linear_time(body: str) -> None:
    raw = article(body).encode()
    start = time.process_time()
    assert len(list(articles(raw))) == 1
    assert time.process_time() - start < 5
