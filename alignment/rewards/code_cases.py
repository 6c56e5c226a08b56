"""Code tests of a row: the tests for its program, in the shapes that public data sets use.

A text is read as JSON first, because a list or an object of JSON is also a statement of Python, one that raises
nothing: taken for a test it would be passed by every program. For the same reason a statement has to test something,
and what only prepares others is run but not counted.
"""

import ast
import functools
import json
import math
import re
import warnings
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from common.errors import InputError

RELATIVE_TOLERANCE, ABSOLUTE_TOLERANCE = 1e-5, 1e-8
"""Of numbers with a decimal point: those of `numpy.allclose`, as in APPS' script (Hendrycks et al. 2021)."""
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_INTEGER = re.compile(r"[-+]?\d+")
SHAPES = (
    "statements of Python, objects with `input` and `output`, or an object with `inputs` and `outputs`, all text; or "
    "JSON of these"
)

IMPORTS = "test_imports"
"""Key of a row under which sanitized MBPP keeps what its tests import."""

OUT_OF_REACH = frozenset({"asyncio", "capfd", "capsys", "monkeypatch", "patch", "redirect_stderr", "redirect_stdout"})
"""What works only in the process of the program."""

CALL = """
import json
try:
    function_ = Solution().{name}
except NameError:
    function_ = {name}
result_ = json.loads(json.dumps(function_(*json.loads({arguments}))))
assert json.loads({expected}) in (result_, [result_])
"""
"""A test of one call: as JSON has it, where a tuple is a list; APPS puts some outputs into a list of one."""


@dataclass(frozen=True)
class Cases:
    """Cases of a row; either statements or examples.

    Attributes:
        statements: texts of statements that raise where the program is wrong.
        counted: numbers of those that test something.
        examples: what a program reads, and what it is to print.
    """

    statements: tuple[str, ...] = ()
    counted: tuple[int, ...] = ()
    examples: tuple[tuple[str, str], ...] = ()


def cases_of(value: Any, key: str, imports: Any = None) -> Cases:
    """The cases that a row's value means.

    Args:
        value: of the row.
        key: where it was, for the message.
        imports: statements that are run before those of the value and not counted; one or a list, or JSON of these.

    Raises:
        InputError: for a value that means none, or that every program would pass.
    """
    tests = _parsed(value)
    if isinstance(tests, str):
        tests = [tests]
    if isinstance(tests, list) and tests and all(isinstance(test, str) for test in tests):
        return _statements(setup_of(imports), tests, key)
    if isinstance(tests, Mapping) and tests.get("fn_name") is not None and (calls := _calls(tests)):
        return Cases(calls, tuple(range(len(calls))))
    pairs = _pairs(tests)
    if not pairs:
        raise InputError(f"{key}={value!r:.100}: tests are {SHAPES}")
    if not any(expected.strip() for _, expected in pairs):
        raise InputError(f"{key}={value!r:.100}: every program that prints nothing passes it: leave such rows out")
    return Cases(examples=tuple(pairs))


def _parsed(value: Any) -> Any:
    """Decode JSON text, including doubly encoded text."""
    while isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            break
    return value


def _pairs(tests: Any) -> list[tuple[str, str]]:
    """Inputs with their outputs; none where that is not what it is."""
    try:
        if isinstance(tests, Mapping):
            given = list(zip(tests["inputs"], tests["outputs"], strict=True))
        else:
            given = [(test["input"], test["output"]) for test in tests]
        return [(_lines(text), _lines(expected)) for text, expected in given]
    except (KeyError, TypeError, ValueError):
        return []


def _calls(tests: Mapping[str, Any]) -> tuple[str, ...]:
    """Statements that call a function, or a method of `Solution`, with each input (APPS, LeetCode); none where that is
    not what it is."""
    name, inputs, outputs = (tests.get(key) for key in ("fn_name", "inputs", "outputs"))
    if not isinstance(name, str) or not name.isidentifier() or not isinstance(inputs, list):
        return ()
    if not isinstance(outputs, list) or len(inputs) != len(outputs):
        return ()
    return tuple(
        CALL.format(name=name, arguments=json.dumps(json.dumps(given)), expected=json.dumps(json.dumps(expected)))
        for given, expected in zip(inputs, outputs, strict=True)
    )


def _lines(value: Any) -> str:
    """A text, also one that is given as its lines (APPS).

    Raises:
        TypeError: for anything else.
    """
    if isinstance(value, list):
        return "\n".join(value)
    if not isinstance(value, str):
        raise TypeError
    return value


def setup_of(value: Any) -> list[str]:
    """Statements of a row's `test_imports`.

    Raises:
        InputError: for what is no Python.
    """
    setup = [] if (parsed := _parsed(value)) is None else [parsed] if isinstance(parsed, str) else parsed
    try:
        for each in setup:
            is_test(each)
    except (SyntaxError, ValueError, RecursionError, TypeError) as error:
        raise InputError(f"{IMPORTS}={value!r:.100}: must be statements of Python, one or a list ({error})") from None
    return list(setup)


def _statements(setup: list[str], tests: list[str], key: str) -> Cases:
    counted = []
    for number, test in enumerate(tests):
        try:
            if is_test(test):
                counted.append(len(setup) + number)
        except (SyntaxError, ValueError, RecursionError) as error:
            raise InputError(f"{key}: test {number} is no Python ({error}): {test!r:.100}") from None
    if not counted:
        raise InputError(
            f"{key}={tests[0]!r:.100}: every program passes it, because it asserts, calls and raises nothing; tests "
            f"are {SHAPES}. A function that tests, such as HumanEval's `check`, has to be called too"
        )
    return Cases(statements=(*setup, *tests), counted=tuple(counted))


@functools.lru_cache(maxsize=4096)
def is_test(test: str) -> bool:
    """Whether running a text asserts, calls or raises anything; what a function that it defines does is not run yet.

    Raises:
        SyntaxError, ValueError: for a text that is no Python.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such as escapes that are none
        nodes: list[ast.AST] = [ast.parse(test)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Assert | ast.Call | ast.Raise):
            return True
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            nodes += ast.iter_child_nodes(node)
    return False


def needs_a_program(test: str, asked: Collection[str]) -> bool:
    """Whether a text surely fails without a program: what it begins with evaluates one of the names that it asks for.

    Args:
        test: Python.
        asked: names that it takes from the program and Python does not have.
    """
    for line in ast.parse(test).body:
        if isinstance(line, ast.Assert | ast.Expr | ast.Assign):
            if any(isinstance(node, ast.Name) and node.id in asked for node in _evaluated(line)):
                return True
            if any(isinstance(node, ast.Call) for node in ast.walk(line)):
                return False
        elif not isinstance(line, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef):
            return False
    return False


@functools.lru_cache(maxsize=4096)
def out_of_reach(test: str) -> frozenset[str]:
    """Names in a text that would have to change the program's process, or get an object of Python's from it."""
    nodes = ast.walk(ast.parse(test))
    names = (getattr(node, "id", None) or getattr(node, "attr", None) or getattr(node, "arg", None) for node in nodes)
    return frozenset(name for name in names if name in OUT_OF_REACH)


def _evaluated(line: ast.stmt) -> Iterator[ast.AST]:
    """Nodes of a statement that are evaluated whatever the others are."""
    nodes: list[ast.AST] = [line.test if isinstance(line, ast.Assert) else line]
    while nodes:
        node = nodes.pop()
        if not isinstance(node, ast.BoolOp | ast.IfExp | ast.Lambda | ast.comprehension | ast.GeneratorExp):
            yield node
            nodes += ast.iter_child_nodes(node)


def is_printed(output: str, expected: str) -> bool:
    """Whether a program printed what it was to print.

    Spaces at the ends of lines and blank lines at the end do not count. A number with a decimal point is right within
    the tolerances above, an integer only where it is the same; that is stricter than APPS' script, for which 1000000
    and 1000001 are equal.
    """
    printed, wanted = _printed_lines(output), _printed_lines(expected)
    return len(printed) == len(wanted) and all(map(_same_line, printed, wanted))


def _printed_lines(text: str) -> list[str]:
    return "\n".join(line.rstrip() for line in text.splitlines()).rstrip().split("\n")


def _same_line(printed: str, wanted: str) -> bool:
    if printed == wanted:
        return True
    words, wanted_words = printed.split(" "), wanted.split(" ")
    return len(words) == len(wanted_words) and all(map(_same_word, words, wanted_words))


def _same_word(printed: str, wanted: str) -> bool:
    if printed == wanted:
        return True
    if not _NUMBER.fullmatch(printed) or not _NUMBER.fullmatch(wanted) or len(printed) > 400:
        return False
    if _INTEGER.fullmatch(wanted):
        # The same number, also with a decimal point: 3.0, but no rounding of large ones.
        whole, _, decimals = printed.partition(".")
        return bool(_INTEGER.fullmatch(whole)) and not decimals.strip("0") and whole.lstrip("+") == wanted.lstrip("+")
    given, right = float(printed), float(wanted)
    return (
        math.isfinite(given)
        and math.isfinite(right)
        and abs(given - right) <= ABSOLUTE_TOLERANCE + RELATIVE_TOLERANCE * abs(right)
    )
