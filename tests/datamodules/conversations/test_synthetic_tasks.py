"""Generated rows: what is right is right, what is wrong is wrong, and nothing of the validation split is trained on."""

import json
from itertools import islice
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputError
from datamodules import ArgumentRows, ArithmeticRows, BracketRows
from datamodules.conversations.row_formats import instruction, preference, question

CLOSES = dict(BracketRows.BRACKETS)


def closing(text: str) -> str:
    """What closes a text, with a stack."""
    stack: list[str] = []
    for letter in text:
        if letter in CLOSES:
            stack.append(CLOSES[letter])
        elif letter in CLOSES.values():
            assert stack.pop() == letter
    return " ".join(reversed(stack))


@settings(max_examples=30, deadline=None)
@given(
    depth=st.tuples(st.integers(1, 5), st.integers(0, 5)), kinds=st.integers(1, 4), closed=st.floats(0, 0.7),
    noise=st.floats(0.3, 0.7), seed=st.integers(0, 2**40),
)  # fmt: skip
def test_brackets(depth: tuple[int, int], kinds: int, closed: float, noise: float, seed: int) -> None:
    between = (depth[0], sum(depth))
    for row in islice(BracketRows(99, between, kinds, closed, noise, seed).draw_all(), 8):
        before = row.prompt.removesuffix(" =>")
        assert before + " =>" == row.prompt
        assert row.answer == closing(before)
        assert between[0] <= len(row.answer.split()) <= between[1]
        assert row.wrong not in ("", row.answer)
        assert abs(len(row.wrong.split()) - len(row.answer.split())) <= 1
        assert {*before.split()} & {*"()[]{}<>"} <= {*"".join(BracketRows.BRACKETS[:kinds])}


@settings(max_examples=40, deadline=None)
@given(largest=st.integers(5, 10**6), operators=st.sampled_from(["+", "-", "+-*"]), seed=st.integers(0, 2**40))
def test_arithmetic(largest: int, operators: str, seed: int) -> None:
    for row in islice(ArithmeticRows(99, largest, operators, seed).draw_all(), 8):
        a, operator, b, _ = row.prompt.split()
        result = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}[operator](int(a), int(b))
        assert int(row.answer) == result != int(row.wrong)
        assert max(int(a), int(b)) <= largest
        assert operator in operators


@settings(max_examples=40, deadline=None)
@given(arguments=st.tuples(st.integers(1, 8), st.integers(0, 8)), seed=st.integers(0, 2**40))
def test_arguments(arguments: tuple[int, int], seed: int) -> None:
    for row in islice(ArgumentRows(99, (arguments[0], sum(arguments)), seed).draw_all(), 8):
        signature, _, comment = row.prompt.partition("\n")
        names = signature[signature.index("(") + 1 : -2].split(", ")
        assert names[int(comment.removeprefix("    # argument ").removesuffix(":")) - 1] == row.answer != row.wrong
        assert arguments[0] <= len(names) <= sum(arguments)
        assert row.wrong in names or len(names) == 1
        compile(f"{signature}\n    pass", "<signature>", "exec")


ROWS = [BracketRows(300), ArithmeticRows(300), ArgumentRows(300)]


@pytest.mark.parametrize("rows", ROWS, ids=lambda rows: type(rows).__name__)
def test_rows_serve_every_stage_and_come_again(rows: Any) -> None:
    made: list[Any] = list(rows.rows())
    assert made == list(rows.rows())
    assert len({row["prompt"] for row in made}) == len(made) == 300
    arguments = {"count": 200, "seed": 0}
    assert list(type(rows)(**arguments).rows()) == made[:200]
    assert list(type(rows)(count=200, seed=1).rows()) != made[:200]
    identities = [type(rows)(**arguments | change).identity() for change in ({}, {"seed": 1}, {"count": 300})]
    assert len({json.dumps(identity) for identity in [*identities, rows.identity()]}) == 3
    for row in made:
        assert row["answer"] == row["response"].strip() == row["chosen"].strip() != row["rejected"].strip()
        pair = preference(row)
        assert instruction(row)[:-1] == question(row) == pair.prompt
        assert pair.chosen == row["response"]


def test_two_orders_of_a_sum_are_one_group_and_those_of_a_difference_are_not() -> None:
    made: Any = list(ArithmeticRows(100, largest=9, operators="+").rows())
    assert len(made) == 100
    assert len({row["group"] for row in made}) == 55
    differences: Any = list(ArithmeticRows(100, largest=9, operators="-").rows())
    assert len({row["group"] for row in differences}) == 100


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (BracketRows, {"count": 0}, "count=0"),
        (BracketRows, {"depth": (3, 2)}, "depth="),
        (BracketRows, {"kinds": 5}, "kinds=5"),
        (BracketRows, {"noise": 1.0}, "noise=1.0"),
        (ArithmeticRows, {"operators": "/"}, "operators=/"),
        (ArithmeticRows, {"largest": 0}, "largest=0"),
        (ArgumentRows, {"arguments": (0, 3)}, "arguments="),
        (ArgumentRows, {"arguments": (1, 99)}, "arguments="),
    ],
)
def test_settings_that_cannot_work(kind: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        kind(**arguments)


def test_more_rows_than_there_are_end_with_a_message() -> None:
    with pytest.raises(InputError, match=r"count=200: these settings give hardly more than \d+ different prompts"):
        list(ArithmeticRows(200, largest=9, operators="+").rows())
