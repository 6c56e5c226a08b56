"""Statement tests: what right programs need of the process beside them."""

from collections.abc import Sequence

import pytest

from alignment import Limits
from alignment.rewards.code_tests import run_python
from alignment.rewards.sandbox.statements import asked_names

LIMITS = Limits(cpu_seconds=1, wall_seconds=20, megabytes=64)


def passes(program: str, *tests: str) -> None:
    outcome = run_python(program, tests, limits=LIMITS)
    assert outcome.passed == {*range(len(tests))}, outcome


def test_values_of_every_kind_come_back() -> None:
    values = [
        "None", "True", "0", "-7", "2**64", "10**5000", "1.5", "float('inf')", "1e-320", "2j",
        "'é\\ud800\\0'", "b'\\xff'",
        "bytearray(b'a')", "[]", "[1, [2, 'x']]", "()", "(1, (2,))", "{}", "{1: 'a', (1, 2): [3]}", "{1, 2}",
        "frozenset({(1,)})", "range(3, 9, 2)", "deque([1, 2])", "Counter('aab')", "OrderedDict(a=1)",
        "defaultdict(int, a=1)", "Decimal('1.10')", "Fraction(3, 10**30)", "datetime(2020, 1, 2, 3, 4, 5, 6)",
        "date(2020, 1, 2)", "time(1, 2)", "timedelta(1, 2, 3)",
    ]  # fmt: skip
    names = (
        "from collections import *\nfrom datetime import *\nfrom decimal import *\nfrom fractions import *\n"
        "import sys\nsys.set_int_max_str_digits(0)\n"
    )
    program = f"{names}values = [{', '.join(values)}]\ndef same(x): return x\ndef get(n): return values[n]"
    tests = [
        f"{names}assert get({number}) == {value}; assert type(get({number})) is type({value})\n"
        f"assert same({value}) == {value}"
        for number, value in enumerate(values)
    ]
    passes(program, *tests)
    passes("def nan(): return float('nan')", "assert nan() != nan()")


def test_what_a_program_changes_is_changed() -> None:
    program = """
def sort(items): items.sort()
def nest(items): items.append(items); return items
def twice(a, b): a.append(1); return a is b
def fill(table, seen, data): table["x"] = seen; seen.add(2); data.extend(b"b")
def give(items): return items
"""
    passes(
        program,
        "x = [3, 1, 2]\nassert sort(x) is None\nassert x == [1, 2, 3]",
        "x = [1]\ny = nest(x)\nassert y is x and x[1] is x",
        "x = []\nassert twice(x, x) and x == [1]",
        "t, s, d = {}, {1}, bytearray(b'a')\nfill(t, s, data=d)\nassert t['x'] is s and s == {1, 2} and d == b'ab'",
        "x = [[1], [2]]\nassert give(x) is x and give(x)[0] is x[0]",
    )


def test_objects_of_the_program() -> None:
    program = """
from dataclasses import dataclass
import enum
@dataclass(order=True)
class Point:
    x: int
    y: int = 0
    def moved(self, by): return Point(self.x + by, self.y)
    def __add__(self, other): return Point(self.x + other.x, self.y + other.y)
class Stack:
    def __init__(self): self.items = []
    def push(self, item): self.items.append(item)
    def pop(self):
        if not self.items: raise EmptyError("nothing", 3)
        return self.items.pop()
    def __len__(self): return len(self.items)
    def __iter__(self): return iter(self.items)
    def __getitem__(self, n): return self.items[n]
    def __setitem__(self, n, value): self.items[n] = value
    def __str__(self): return "stack"
    def __enter__(self): return self
    def __exit__(self, *error): self.items.clear()
class EmptyError(LookupError): pass
class VeryEmptyError(EmptyError): pass
class Color(enum.Enum): RED = 1
class Number(enum.IntEnum): ONE = 1
def favorite(): return Color.RED
def one(): return Number.ONE
def count(n):
    for i in range(n): yield i
def adder(n): return lambda x: x + n
def very_empty(): raise VeryEmptyError
def chain(pairs): return max(pairs).x
state = 0
def step():
    global state
    state += 1
"""
    passes(
        program,
        "p = Point(1, 2)\nassert p.x == 1 and p.moved(2) == Point(3, 2) and p != Point(0) and p < Point(9)",
        "p.y = 7\nassert p.y == 7 and isinstance(p, Point) and not isinstance(3, Point) and (p + p).y == 14",
        "assert chain([Point(3), Point(5)]) == 5",
        "s = Stack()\nassert not s and len(s) == 0\ns.push(4)\ns.push([5])",
        "assert s and list(s) == [4, [5]] and 4 in s",
        "s[0] = 6\nassert s[0] == 6 and str(s) == 'stack' and s.pop() == [5] and s.pop() == 6",
        "try: s.pop()\nexcept EmptyError as error: assert error.args == ('nothing', 3)\nelse: assert False",
        "import unittest\nwith unittest.TestCase().assertRaises(LookupError): s.pop()",
        "try: very_empty()\nexcept EmptyError: pass\nelse: assert False",
        "with Stack() as t:\n    t.push(1)\nassert len(t) == 0",
        "assert favorite() == Color.RED and favorite() is Color.RED and one() == 1 and Color.RED.value == 1",
        "assert list(count(3)) == [0, 1, 2] and next(count(1)) == 0 and sum(count(4)) == 6 and adder(2)(3) == 5",
        "import copy\nt.push([1])\nu, v = copy.copy(t), copy.deepcopy(t)\nassert list(u) == list(v) == [[1]]\n"
        "assert u is not t",
        "assert state == 0\nstep()",
        "assert state == 1",
        "state = 5",
        "assert state == 5",
        "from solution import Stack as S\nimport solution\nassert len(S()) == 0 and solution.adder(1)(1) == 2",
        "assert not hasattr(solution, 'absent') and not hasattr(s, '__array_interface__')",
    )


def test_functions_of_the_tests() -> None:
    program = """
import functools
def apply(function, items): return [function(item) for item in items]
def compose(f, g): return lambda x: f(g(x))
def safe(function):
    try: return function()
    except ValueError as error: return str(error)
def back(function): return function
def double(x): return 2 * x
"""
    passes(
        program,
        "assert apply(lambda x: x + 1, [1, 2]) == [2, 3]",
        "assert apply(str, [1]) == ['1'] and apply(abs, [-1]) == [1]",
        "import math\nassert apply(math.sqrt, [4]) == [2]",
        "import collections\nassert apply(collections.Counter, ['a']) == [{'a': 1}]",
        "assert compose(lambda x: x + 1, lambda x: x * 2)(5) == 11",
        "def fail(): raise ValueError('no')\nassert safe(fail) == 'no'",
        "assert back(fail) is fail",
        "assert apply(lambda x: double(x) + 1, [3]) == [7]",
        "assert apply(double, [4]) == [8]",
    )


def test_what_tests_cannot_hand_over_fails() -> None:
    """The one thing that works with a program beside its tests and not here; it is documented."""
    assert not run_python("def f(x): return x.y", ["class A: y = 1\nassert f(A()) == 1"]).passed


def test_modules_that_only_the_program_imports() -> None:
    """As those of HumanEval's prompts."""
    program = "import math, os.path\nfrom typing import List\nimport collections as c\ndef half(x: List): return x / 2"
    passes(program, "assert math.isclose(half(3), 1.5) and c.Counter('a') == {'a': 1} and os.path.sep == '/'")


def test_prints_of_a_program_are_its_output() -> None:
    outcome = run_python("print('begin')\ndef f(): print('called')", ["f()", "import sys\nprint('test')"])
    assert (outcome.output, outcome.status, outcome.passed) == ("begin\ncalled\n", 0, {0, 1})
    assert "ZeroDivisionError" in run_python("1 / 0", ["pass"]).errors


def test_right_programs_that_need_their_module() -> None:
    """Once their module was in no `sys.modules`, or `__main__` was ours."""
    passes(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass P:\n    x: int = 3\n"
        "import pickle, typing\ndef f(): return pickle.loads(pickle.dumps(P(4))).x + P().x\n"
        "def hints(): return list(typing.get_type_hints(P))",
        "assert f() == 7 and hints() == ['x']",
    )
    named = "import sys\ndef f(): return sys.modules[f.__module__].f is f and __name__"
    passes(named, "assert f() == 'solution'")


@pytest.mark.parametrize(
    ("tests", "expected"),
    [
        (["assert add(1) == 2"], [{"add"}]),
        (["assert sum(1, 2) == 3", "assert sum(2, 2) == 4"], [{"sum"}, {"sum"}]),
        (["assert sum(1, 2) == 3", "assert abs(sum(2, 2)) == 4"], [{"sum"}, {"sum"}]),
        (["assert all(f(x) for x in range(3))"], [{"f"}]),
        (["x = 1", "assert x == f(x)", "def f2(y): return g(y)\nf2(x)"], [set(), {"f"}, {"g"}]),
        (["import math\nassert math.e > h()"], [{"h"}]),
        (["def check(c): assert c() and len(other)\ncheck(f)"], [{"f", "other"}]),
        (["from solution import f\nassert f()"], [set()]),
        (["assert ("], [set()]),
        ([], []),
    ],
)
def test_names_that_tests_take_from_the_program(tests: Sequence[str], expected: list[set[str]]) -> None:
    assert asked_names(tests) == expected


def test_a_function_may_be_called_like_one_of_python() -> None:
    """MBPP has some; a program cannot use this to change what other tests call."""
    program = "def sum(a, b): return a + b\ndef abs(x): return 0"
    passes(program, "assert sum(1, 2) == 3", "assert sum(2, 2) == 4")
    assert run_python(f"{program}\ndef f(): return 9", ["assert abs(f() - 1) < 1e-6"]).passed == frozenset()
