"""Text of HTML: readings of ruby go in linear time, and raised numbers stay numbers of their own."""

import time

import pytest

from datamodules.readers.formats.web.html_text import html_to_text, text_without_navigation


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p><ruby>漢<rp>(</rp><rt>かん</rt><rp>)</rp>字<rt>じ</ruby>です</p>", "漢字です"),
        ("<p><ruby><rb>東<rb>京<rt>とう<rt>きょう</ruby>へ</p>", "東京へ"),
        ("<p><ruby>a<ruby>b<rt>c</ruby><rt>d</ruby>e</p>", "abe"),
        ("<p><RUBY class=x>漢<RT>かん</RT></RUBY>字</p>", "漢字"),
        ("<p><ruby>x<rt>y<p>next</p>", "x\n\nnext"),
        ("<p>no <rt>ruby</rt> here</p>", "no ruby here"),
        ("<p>6.02 times 10<sup>23</sup>, m<sup>&minus;2</sup></p>", "6.02 times 10^23, m^{−2}"),
        ("<p>2<sup>10</sup>=1024, x<sub>1</sub>, <i>x</i><sup>2</sup></p>", "2^10=1024, x_1, x^2"),
        ("<p>the 1<sup>st</sup>, M<sup>me</sup>, a note<sup>[1]</sup></p>", "the 1st, Mme, a note[1]"),
    ],
)
def test_what_is_above_or_below_a_line(html: str, text: str) -> None:
    assert html_to_text(html) == text
    assert text_without_navigation(html) == text


@pytest.mark.parametrize(
    "unit", ["<ruby>x<rt>y</ruby>", "<ruby>x<rt>y</rt></ruby>", "10<sup>2</sup> ", "<p>x<sup>1</p>"]
)
def test_thousands_of_them_take_linear_time(unit: str) -> None:
    began = time.process_time()
    html_to_text("<html><body>" + unit * 20_000)
    assert time.process_time() - began < 15  # the square of their number took an hour
