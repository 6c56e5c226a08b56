"""Numbers as people and tables write them: one value, whatever it is spelled with."""

import time
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment import Arithmetic, ExactMatch, PrefixMatch
from alignment.rewards.base import Response
from alignment.rewards.numbers import final_number
from common.errors import InputError


def response(text: str, **row: Any) -> Response:
    return Response([1], [2], text, "stop", row)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # A minus in any dash; a range and a dash between words are none.
        ("x = \u20133", -3), ("\u22123", -3), ("\uff0d3", -3), ("\u20123.5", "-3.5"), ("3\u20135", 5),
        ("a \u2013 5", 5),
        # Digits of any script.
        ("\uff11\uff12\uff13", 123), ("\uff11\uff0e\uff15", "1.5"), ("\u0664\u0662", 42), ("\u0967\u0968", 12),
        ("\uff0d\uff11\uff0c\uff10\uff10\uff10", -1000), ("\u0661\u066c\u0662\u0663\u0664\u066b\u0665", "1234.5"),
        # Groups of three apart by one sign.
        ("1 000", 1000), ("12 345.5", "12345.5"), ("1 234 567", 1234567), ("1\u00a0000", 1000), ("1\u202f000", 1000),
        ("1\u2009000", 1000), ("1'000", 1000), ("1\u2019234", 1234), ("1_000_000", 1000000), ("-1 000", -1000),
        ("2 to 1 000", 1000), ("1,000 000", 0), ("1 00", 0), ("5 100 20", 20), ("7 1 000", 0), ("1000 000", 0),
        # Powers.
        ("10^3", 1000), ("10**3", 1000), ("2^10", 1024), ("10^{-2}", "1/100"), ("10\u00b3", 1000), ("10\u207b\u00b2",
        "1/100"), ("6.02 \u00d7 10^23", "602e21"), ("3 * 10^2", 300), ("1.5\\times10^{3}", 1500), ("2 x 10\u00b2", 200),
        ("-10^2", -100), ("\u20132\u00b2", -4), ("x^2 = 9", 9), ("9 = x^2", 9), ("0^-1", None), ("10^1234", None),
        ("5 m\u00b2", 5), ("3 \u00d7 4", 4), ("x**2", None),
        # No digit before the point.
        (".5", "1/2"), ("is -.5", "-1/2"), ("$.75", "3/4"), ("v.5", None), ("a..5", None), ("1.2.3", None),
    ],
)  # fmt: skip
def test_spellings(text: str, value: Any) -> None:
    assert final_number(text) == (None if value is None else Fraction(value))
    assert final_number(f"#### {text}") is None or value is None or "####" not in text


@settings(max_examples=100, deadline=None)
@given(
    value=st.integers(-(10**12), 10**12),
    sign=st.sampled_from(["", ",", " ", "\u00a0", "\u202f", "\u2009", "'", "\u2019", "_"]),
    minus=st.sampled_from("-\u2212\u2013\uff0d"),
    zero=st.sampled_from([ord("0"), 0xFF10, 0x0660, 0x0966]),
)
def test_a_number_is_read_in_any_spelling(value: int, sign: str, minus: str, zero: int) -> None:
    spelled = f"{abs(value):,}".replace(",", sign)
    spelled = "".join(chr(zero + int(one)) if one.isascii() and one.isdigit() else one for one in spelled)
    spelled = minus * (value < 0) + spelled
    for text in (spelled, f"It is {spelled}.", f"({spelled})", f"x #### {spelled}\nand 3 more"):
        assert final_number(text) == value


@pytest.mark.parametrize(
    "text", ["1 111" * 8000, "1^" * 9000, "1**" * 9000, "\u00b2" * 9000, "1\u00b2" * 9000, "1 x 10" * 9000, " " * 50000,
             "1 " * 20000, "1" + " " * 50000 + "x", "\uff11" * 50000, "10^{" * 9000, "'1" * 9000]
)  # fmt: skip
def test_no_text_takes_long(text: str) -> None:
    start = time.process_time()
    final_number(text)
    assert time.process_time() - start < 1


@settings(max_examples=300, deadline=None)
@given(text=st.text(alphabet="0123456789.,-+/eE#^*{} x'_\u00d7\u00b2\u207b\u2013\uff11\u00a0"))
def test_no_text_is_an_error(text: str) -> None:
    found = final_number(text)
    assert found is None or isinstance(found, Fraction)


def test_arithmetic_reads_rows_and_responses_alike() -> None:
    responses = [
        response("\u20131\u202f000", answer=-1000), response("10^3", answer="1 000"), response("0.5", answer=".5"),
        response("\uff13", answer=3.0), response("3", answer="#### 3"), response("1 000", answer=1),
    ]  # fmt: skip
    assert Arithmetic()(responses).tolist() == [1, 1, 1, 1, 1, 0]


def test_a_whole_number_of_a_table_is_that_number() -> None:
    """A column with a missing value is of floats."""
    for wanted in (3.0, [3.0, 4.0]):
        assert ExactMatch()([response("3", answer=wanted), response("3.0", answer=wanted)]).tolist() == [1, 1]
    assert ExactMatch()([response("3.0", answer=3), response("3.0", answer="3")]).tolist() == [0, 0]
    assert ExactMatch()([response("0.5", answer=0.5), response("1e+16", answer=1e16)]).tolist() == [1, 1]
    assert PrefixMatch()([response("3", answer=3.0)]).tolist() == [1]


@pytest.mark.parametrize("reward", [ExactMatch(), PrefixMatch(), Arithmetic()])
@pytest.mark.parametrize("nothing", [None, float("nan")])
def test_a_missing_answer_is_named_as_missing(reward: Any, nothing: Any) -> None:
    with pytest.raises(InputError, match="'answer' of a row is (null|nan), which a reward reads"):
        reward.check({"prompt": "?", "answer": nothing})
