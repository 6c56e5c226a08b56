"""What rules say of responses, and what is made of several rewards."""

import re
import time
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment import Arithmetic, ExactMatch, OverlongPenalty, Pattern, PrefixMatch, WeightedSum
from alignment.rewards.base import Response, check_rows
from alignment.rewards.verifiable import MAX_NUMBER_LENGTH, final_number, normalized
from common.errors import InputError


def response(text: str, tokens: int = 3, **row: Any) -> Response:
    return Response([1, 2], list(range(tokens)), text, "stop", {"prompt": "?"} | row)


def test_the_very_answer_is_right_and_another_is_wrong() -> None:
    responses = [
        response(" ) ]\n", answer=") ]"),
        response(")]", answer=") ]"),
        response("7", answer=7),
        response("", answer="a"),
    ]
    assert ExactMatch()(responses).tolist() == [1, 0, 1, 0]
    assert ExactMatch(normalize="none", right=2, wrong=-1)(responses).tolist() == [-1, -1, 2, -1]
    several = [
        response(text, accepted=["Paris", "city of Paris"]) for text in ("The  City of Paris!", "Rome", "paris.")
    ]
    assert ExactMatch("accepted", "squad")(several).tolist() == [1, 0, 1]
    assert ExactMatch("accepted")(several).tolist() == [0, 0, 0]
    assert ExactMatch()(several[:0]).shape == (0,)


def test_words_before_the_first_mistake_count() -> None:
    reward = PrefixMatch()
    row = {"answer": "> ] )"}
    texts = ["> ] )", " >  ]\n)", "> ] }", "> ]", "> ] ) )", "] ] )", ""]
    found = reward([response(text, **row) for text in texts])
    torch.testing.assert_close(found, torch.tensor([1, 1, 2 / 3, 2 / 3, 3 / 4, 0, 0]))
    assert reward([response("b a", answer=["a", "b c"])]).tolist() == [0.5]
    assert reward([response("", answer="")]).tolist() == [1.0]


@settings(max_examples=50, deadline=None)
@given(text=st.text(max_size=40), how=st.sampled_from(["none", "whitespace", "squad"]))
def test_normalization_of_what_is_normalized_changes_nothing(text: str, how: Any) -> None:
    once = normalized(text, how)
    assert normalized(once, how) == once
    assert how == "none" or once == once.strip()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, "a row has no 'answer', only prompt"),
        ({"answer": None}, "a row's 'answer' is null"),
        ({"answer": []}, "compares with text"),
        ({"answer": True}, "compares with text"),
        ({"answer": ["a", {}]}, "compares with text"),
    ],
)
def test_rows_without_an_answer_are_refused(row: dict[str, Any], message: str) -> None:
    for ask in (lambda: ExactMatch().check({"prompt": "?"} | row), lambda: ExactMatch()([response("a", **row)])):
        with pytest.raises(InputError, match=message):
            ask()


def test_patterns() -> None:
    responses = [response("<think>a\nb</think> 4"), response("4"), response("")]
    assert Pattern(r"(?s)<think>.*</think>")(responses).tolist() == [1, 0, 0]
    assert Pattern(r"\d", whole=True)(responses).tolist() == [0, 1, 0]
    for wrong in ({"pattern": "("}, {"pattern": "a", "seconds": 0}, {"pattern": "a", "right": 0}):
        with pytest.raises(InputError):
            Pattern(**wrong)


@settings(max_examples=60, deadline=None)
@given(
    pattern=st.sampled_from([r"^\d+$", r"a.?b", r"(?i)yes\b", r"[^\s]{3,}", r"(x|y)+z?$"]),
    text=st.text(alphabet="abxyzYES 019\n"),
)
def test_patterns_are_those_of_re(pattern: str, text: str) -> None:
    for whole, find in ((False, re.search), (True, re.fullmatch)):
        assert Pattern(pattern, whole)([response(text)]).item() == (find(pattern, text) is not None)


def test_backtracking_without_end_finds_nothing_soon() -> None:
    reward = Pattern(r"(a+)+$", seconds=0.05)
    start = time.process_time()
    assert reward([response("a" * 5000 + "!"), response("aaa")]).tolist() == [0, 1]
    assert reward.timed_out == 1
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("So 3 + 4 = 7.", 7), ("5-3", 3), ("(5)-3", 3), ("is -3", -3), ("is \u22123", -3), ("=+2", 2), ("12 km", 12),
        ("$1,234.50!", "1234.5"), ("3/4 of it", "3/4"), ("1/0", None), ("2.50/0.5", 5), ("6.02e23", "602e21"),
        ("1e-3x", "1/1000"), ("1e999", None), ("x2 v1.2.3 a_4", None), ("1,2,3", 3), ("1,234,567", 1234567),
        ("long #### 42 and 7", 42), ("#### no", None), ("1 #### 2 #### 3", 3), ("9" * 65, None), ("\u0664", None),
        ("", None), ("none", None),
    ],
)  # fmt: skip
def test_final_numbers(text: str, value: Any) -> None:
    assert final_number(text) == (None if value is None else Fraction(value))


@settings(max_examples=200, deadline=None)
@given(
    value=st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**12), max_value=10**12, places=3),
    before=st.text(alphabet="ab 1.,=()"),
    grouped=st.booleans(),
)
def test_a_number_is_read_whatever_stands_before_it(value: Decimal, before: str, grouped: bool) -> None:
    spelled = f"{value:,.3f}" if grouped else f"{value:.3f}"
    assert final_number(f"{before} is {spelled}.") == Fraction(value)
    assert final_number(f"{before} #### {spelled} {before}") == Fraction(value)


@settings(max_examples=200, deadline=None)
@given(text=st.text(alphabet="0123456789.,-+/eE# x"))
def test_no_text_is_an_error_and_no_number_is_too_long(text: str) -> None:
    found = final_number(text)
    assert found is None or abs(found) < 10 ** (MAX_NUMBER_LENGTH + 100)
    # Read again from its own exact spelling it is the same.
    assert found is None or len(str(found)) > MAX_NUMBER_LENGTH or final_number(f"= {found}") == found


@pytest.mark.parametrize("text", ["1,111" * 8000, "1" * 50000, "1e" * 9000, "1/" * 9000, "1-" * 9000, "1.1" * 9000])
def test_numbers_without_end_are_read_in_no_time(text: str) -> None:
    start = time.process_time()
    final_number(text)
    assert time.process_time() - start < 1


def test_arithmetic() -> None:
    gold = "6 * 7 is 42, so she has\n#### 1,042"
    responses = [
        response("1042", answer=gold),
        response("#### 1042.0 dollars", answer=gold),
        response("1043", answer=gold),
    ]
    responses += [response("none", answer=1), response("0.3", answer=0.3), response("3", answer=3)]
    assert Arithmetic()(responses).tolist() == [1, 1, 0, 0, 1, 1]
    assert Arithmetic(tolerance=0.001)(responses).tolist() == [1, 1, 1, 0, 1, 1]
    assert Arithmetic(needs_mark=True)(responses).tolist() == [0, 1, 0, 0, 0, 0]
    for value in ("none", True, None, []):
        with pytest.raises(InputError, match="answer"):
            Arithmetic().check({"answer": value})
    with pytest.raises(InputError, match="tolerance=-1"):
        Arithmetic(tolerance=-1)


def test_a_sum_weighs_its_parts() -> None:
    responses = [response("4", tokens, answer=4) for tokens in (5, 9, 12, 20)]
    overlong = OverlongPenalty(max_tokens=12, cushion=4)
    assert overlong(responses).tolist() == [0, -0.25, -1, -1]
    both = WeightedSum([ExactMatch(), WeightedSum([overlong, Pattern("5")])], [2, 0.5])
    assert both(responses).tolist() == [2, 2 - 0.125, 1.5, 1.5]
    assert both(responses).dtype == torch.float32
    assert [type(member).__name__ for member in both.members()] == ["ExactMatch", "OverlongPenalty", "Pattern"]
    with pytest.raises(InputError, match="no 'answer'"):
        both.check({"prompt": "?"})
    for rewards, weights in (([], None), ([overlong], [1.0, 2.0]), ([overlong], [float("nan")])):
        with pytest.raises(InputError, match="weights="):
            WeightedSum(rewards, weights)
    for max_tokens, cushion in ((4, 0), (4, 5)):
        with pytest.raises(InputError, match="cushion"):
            OverlongPenalty(max_tokens, cushion)


def test_a_row_that_cannot_be_scored_is_named_by_its_number() -> None:
    rows = [{"prompt": "1 + 1?", "answer": 2}, {"prompt": "?", "answer": 3}, {"prompt": "What?", "answer": None}]
    check_rows([ExactMatch(), Arithmetic()], rows[:2])
    with pytest.raises(InputError, match=r"row 3: a row's 'answer' is null: .*'What\?'"):
        check_rows([ExactMatch(), Arithmetic()], rows)
    with pytest.raises(InputError, match="row 1: a row has no 'tests', only prompt, answer"):
        check_rows([ExactMatch("tests")], iter(rows))
