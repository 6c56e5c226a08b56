"""Tests of a row in every shape, and what they are compared by."""

import json
from typing import Any

import pytest

from alignment import CodeTests
from alignment.rewards.base import Response
from alignment.rewards.code_cases import Cases, cases_of, is_printed, is_test
from common.errors import InputError

ASSERTS = ["assert add(1, 2) == 3", "assert add(2, 2) == 4"]
PAIRS = [{"input": "1 2\n", "output": "3\n"}, {"input": "2 2\n", "output": "4\n"}]
COLUMNS = {"inputs": ["1 2\n", "2 2\n"], "outputs": ["3\n", "4\n"]}
CALLS = {"fn_name": "add", "inputs": [[1, 2], [2, 2]], "outputs": [3, [4]]}
PROGRAMS = [
    "def add(a, b): return a + b",
    "print(sum(map(int, input().split())))",
    "class Solution:\n    def add(self, a, b): return a + b",
    "x = 1",
    "",
]
"""A right program for functions, one for input and output, one of methods; two that every JSON text was a test for."""


@pytest.mark.parametrize(
    ("tests", "right"),
    [(ASSERTS, [0]), ("\n".join(ASSERTS), [0]), (PAIRS, [1]), (COLUMNS, [1]), (CALLS, [0, 2])],
    ids=["statements", "text", "pairs", "columns", "calls"],
)
@pytest.mark.parametrize("written", ["as it is", "as JSON", "as JSON of JSON"])
def test_only_right_programs_are_paid_in_every_shape(tests: Any, right: list[int], written: str) -> None:
    """A list or an object of JSON is also a statement of Python, which no program fails."""
    for _ in range(["as it is", "as JSON", "as JSON of JSON"].index(written)):
        tests = json.dumps(tests)
    CodeTests().check({"tests": tests})
    responses = [Response([1], [2], program, "stop", {"tests": tests}) for program in PROGRAMS]
    assert CodeTests()(responses).tolist() == [float(number in right) for number in range(len(PROGRAMS))]


@pytest.mark.parametrize(
    "tests",
    [
        "",
        "x = 1",
        "1",
        "[]",
        "{}",
        "null",
        "true",
        "3.5",
        '"x"',
        "[1, 2]",
        '[["assert f()"]]',
        '{"input": "1", "output": "2"}',
        '{"inputs": ["1"], "outputs": []}',
        '{"inputs": [], "outputs": []}',
        '{"fn_name": "f(", "inputs": [[1]], "outputs": [1]}',
        '{"fn_name": "f", "inputs": [[1]], "outputs": []}',
        "# assert f(1) == 2",
        "'assert f(1) == 2'",
        "import math\nx = [1, 2]",
        "def check(candidate):\n    assert candidate(1) == 2",
        "METADATA = {}\nclass Test:\n    def test(self):\n        assert f(1) == 2",
        "check = lambda f: f(1)",
        "@cache()\ndef check(f): assert f(1)",
        "assert f(1) =",
        ["x = 1", "import math"],
        ["assert f(1) == 2", "assert ("],
        ["assert f(1) == 2", 3],
        [],
        {},
        3,
        [3],
        [{"input": "a"}],
        ["a", {"input": "a", "output": "b"}],
        [{"input": 1, "output": "b"}],
        [{"input": ["a", 1], "output": "b"}],
        "assert f('\0')",
    ],
)
def test_tests_that_test_nothing_are_refused(tests: Any) -> None:
    with pytest.raises(InputError, match="tests"):
        CodeTests().check({"tests": tests})


def test_tests_that_test_something() -> None:
    for text in ("assert f()", "f()", "if not f: raise E", "x = f()"):
        assert is_test(text)
    with_lines = cases_of({"inputs": [["1", "2"]], "outputs": [["3", ""]]}, "tests")
    assert with_lines == Cases(examples=(("1\n2", "3\n"),))


def test_statements_that_prepare_others_are_no_test() -> None:
    """They would be passed by every program, a share of the reward for nothing."""
    tests = ["import math", "x = 3", "assert math.floor(f(x)) == 3"]
    assert cases_of(tests, "tests").counted == (2,)
    responses = [Response([1], [2], text, "stop", {"tests": tests}) for text in ("", "def f(x): return x + 0.5")]
    assert CodeTests(score="share")(responses).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("output", "expected", "right"),
    [
        ("1 \n2\n\n", "1\n2", True),
        ("1\n2", "1 2", False),
        ("\n1", "1", False),
        ("", "\n", True),
        ("0.33333333", "0.333333333333", True),
        ("0.3334", "0.3333", False),
        ("1e-3", "0.001", True),
        ("Area: 3.1415926535", "Area: 3.14159265", True),
        ("Area 3.14159", "Area: 3.14159", False),
        ("1.0 2.0", "1.00 2.00", True),
        ("1.0", "1.0 2.0", False),
        ("1.0\n2.0", "1.0 2.0", False),
        ("3.0", "3", True),
        ("3", "3.0", True),
        ("+3", "3", True),
        ("3.1", "3", False),
        ("1000001", "1000000", False),
        ("1000000.5", "1000000", False),
        ("1e6", "1000000", False),
        ("nan", "1.5", False),
        ("inf", "1e400", False),
        ("1e400", "1.5", False),
        ("nan", "nan", True),
        ("1_0.0", "10.0", False),
        ("yes", "YES", False),
        ("a  b", "a b", False),
        ("0" * 500 + ".5", "0.5", False),
        ("5.0", "1" * 320 + ".5", False),
        ("1" * 320 + ".5", "1" * 320 + ".5", True),
        ("1e308", "1e309", False),
        ("-1e999", "1e999", False),
    ],
)
def test_what_is_printed_is_compared_by_lines_and_numbers(output: str, expected: str, right: bool) -> None:
    assert is_printed(output, expected) is right
