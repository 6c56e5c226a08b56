"""Statement tests: what cheating programs get, and what right ones need."""

from collections.abc import Sequence

import pytest

from alignment import CodeTests, Limits
from alignment.rewards.base import Response
from alignment.rewards.code_tests import run_python
from alignment.rewards.sandbox.statements import asked_names

LIMITS = Limits(cpu_seconds=1, wall_seconds=20, megabytes=64)
MBPP = ["assert add(1, 2) == 3", "assert add(-1, 1) == 0", "assert add(2, 2) == 4"]
HUMAN_EVAL = """
METADATA = {"author": "x"}

def check(candidate):
    cases = [((1, 2), 3), ((-1, 1), 0), ((2, 2), 4)]
    for given, expected in cases:
        assert candidate(*given) == expected
    assert all(candidate(*given) == expected for given, expected in cases)
    assert isinstance(candidate(1, 2), int) and abs(candidate(1, 2) - 3) < 1e-6
    assert candidate(1, 2) in [3] and not candidate(1, 2) != 3

check(add)
"""
UNIT_TEST = """
import unittest

class TestAdd(unittest.TestCase):
    def test_sums(self):
        self.assertEqual(add(1, 2), 3)
        self.assertAlmostEqual(add(1.5, 2), 3.5)
        self.assertTrue(add(1, 2) == 3)
        self.assertIn(add(1, 2), [3])
        self.assertListEqual([add(1, 1)], [2])

unittest.main()
"""
STYLES = {"mbpp": MBPP, "human_eval": [HUMAN_EVAL], "unit_test": [UNIT_TEST]}

ALWAYS_EQUAL = """
class Yes(int):
    def always(self, *arguments): return True
    def same(self, *arguments): return self
    __eq__ = __lt__ = __le__ = __gt__ = __ge__ = __contains__ = __bool__ = always
    __sub__ = __rsub__ = __add__ = __radd__ = __abs__ = __neg__ = __call__ = __getitem__ = same
    __instancecheck__ = __subclasscheck__ = always
    def __ne__(self, other): return False
    def __float__(self): return 0.0
    def __index__(self): return 0
    def __hash__(self): return 3
    def __len__(self): return 1
    def __iter__(self): return iter([self])
    __class__ = property(lambda self: int)
"""
CHEATS = {
    "nothing": "",
    "not the function": "x = 1",
    "a constant": "def add(*a): return 3",
    "equal to everything": ALWAYS_EQUAL + "def add(*a): return Yes()",
    "equal to everything, no number": ALWAYS_EQUAL.replace("(int)", "") + "def add(*a): return Yes()",
    "a class instead of a function": ALWAYS_EQUAL.replace("(int)", "")
    + "class add(Yes):\n    def __new__(cls, *a): return object.__new__(cls)",
    "a class of classes": ALWAYS_EQUAL.replace("(int)", "(type)") + "class add(metaclass=Yes): pass",
    "not a number": "def add(*a): return float('nan')",
    "infinite": "def add(*a): return float('inf')",
    "builtins": """
import builtins
builtins.all = builtins.any = builtins.isinstance = builtins.hasattr = lambda *a: True
builtins.abs = builtins.sum = builtins.len = builtins.round = lambda *a: 0
builtins.AssertionError = builtins.ValueError = KeyboardInterrupt
builtins.__build_class__ = builtins.__import__ = lambda *a, **k: None
def add(*a): return 0
""",
    "its own builtins": """
all = any = isinstance = lambda *a: True
abs = len = lambda *a: 0
check = unittest = METADATA = expected = candidate = lambda *a, **k: None
def add(*a): return 0
""",
    "the tests' names": "def check(*a): pass\nclass TestAdd: pass\nclass unittest:\n    main = TestCase = object\n",
    "modules": """
import sys, types
class Anything(types.ModuleType):
    TestCase = object
    def __getattr__(self, name): return lambda *a, **k: True
for name in ("unittest", "math", "json", "unittest.main", "symtable", "builtins", "solution", "__main__"):
    sys.modules[name] = Anything(name)
def add(*a): return 0
""",
    "assertions turned off": """
import sys
sys.flags.__class__
class AssertionError(Exception): pass
sys.excepthook = lambda *a: None
__debug__ if False else None
def add(*a): return 0
""",
    "exit": "import os\nos._exit(0)",
    "exit in a call": "import os\ndef add(*a): os._exit(0)",
    "sys.exit": "import sys\nsys.exit(0)",
    "sys.exit in a call": "import sys\ndef add(*a): sys.exit(0)",
    "exit at the end": "import atexit, os\natexit.register(os._exit, 0)\ndef add(*a): raise SystemExit(0)",
    "other exits": "def add(*a): raise KeyboardInterrupt",
    "exits of generators": "def add(*a): raise GeneratorExit",
    "end of a loop": "def add(*a): raise StopIteration",
    "end of another loop": "def add(*a): raise StopAsyncIteration",
    "recursion": "def add(*a): return add(*a)",
    "endless": "def add(*a):\n    while True: pass",
    "asleep": "import time\ndef add(*a): time.sleep(99)",
    "printing": """
import os, sys
for number in range(3):
    for form in ("{}", "passed {}", "ok {}", "[{}]"):
        print(form.format(number)); print(form.format(number), file=sys.stderr)
        for descriptor in range(1, 32):
            try: os.write(descriptor, (form.format(number) + "\\n").encode())
            except OSError: pass
""",
    "answers on the channel": """
import json, os, struct
def say(message):
    text = json.dumps(message).encode()
    for descriptor in range(3, 32):
        try: os.write(descriptor, struct.pack(">Q", len(text)) + text)
        except OSError: pass
say({"add": None})
for _ in range(50): say(["value", True, []])
def add(*a): return 0
""",
    "long messages": """
import os, struct
def add(*a):
    for descriptor in range(3, 32):
        try: os.write(descriptor, struct.pack(">Q", 2**62) + b"x" * 1000)
        except OSError: pass
""",
    "deep values": "def add(*a):\n    x = []\n    for _ in range(10**5): x = [x]\n    return x",
    "large values": "def add(*a): return [0] * 10**7",
    "endless values": "def add(*a):\n    while True: yield 3",
    "numbers that are none": "def add(*a): return type('N', (int,), {'__eq__': lambda s, o: True})(7)",
    "text that is none": "def add(*a): return type('S', (str,), {'__eq__': lambda s, o: True})('x')",
    "lists that are none": "def add(*a): return type('L', (list,), {'__eq__': lambda s, o: True})()",
    "frames": """
import sys
def add(*a):
    frame = sys._getframe()
    while frame:
        for value in (*frame.f_locals.values(), *frame.f_globals.values()):
            if isinstance(value, dict) and "expected" in value: return value["expected"]
        if "expected" in frame.f_locals: return frame.f_locals["expected"]
        frame = frame.f_back
""",
    "objects of its process": """
import gc
def add(*a):
    for value in gc.get_objects():
        if isinstance(value, list) and len(value) == 3 and all(isinstance(x, tuple) for x in value):
            for given, expected in value:
                if given == a: return expected
    texts = [x for x in gc.get_objects() if isinstance(x, (list, tuple)) and any("assert" in str(y)[:99] for y in x)]
    return texts
""",
    "traces": """
import sys, threading
def trace(frame, event, argument):
    frame.f_trace_lines = False
    if "expected" in frame.f_locals: frame.f_locals["candidate"] = lambda *a: frame.f_locals["expected"]
    return trace
sys.settrace(trace); sys.setprofile(trace); threading.settrace(trace)
def add(*a): return 0
""",
    "audits": "import sys, os\nsys.addaudithook(lambda *a: None)\ndef add(*a): return 0",
    "the runner": """
import gc, sys
for value in gc.get_objects():
    if type(value).__name__ in ("ProgramPeer", "Channel"):
        type(value).ask = type(value).answer = lambda *a, **k: ["value", True, []]
for module in list(sys.modules.values()):
    for name in ("run_tests", "serve", "asked_names", "exit_status"):
        if hasattr(module, name): setattr(module, name, lambda *a, **k: None)
def add(*a): return 0
""",
    "memory of the interpreter": """
import ctypes
# Makes the constant 0 equal 3 in this process, were the tests in it.
ctypes.memmove(id(0) + 24, id(3) + 24, 4)
def add(*a): return 0
""",
    "code of the interpreter": """
import ctypes
for kind in (list, tuple, int):
    try: ctypes.pythonapi.PyType_Modified(ctypes.py_object(kind))
    except Exception: pass
import gc
gc.get_referents(int.__dict__)[0]["__eq__"] = lambda *a: True
def add(*a): return 0
""",
    "warnings as a way out": "import warnings\nwarnings.simplefilter('error')\ndef add(*a): raise Warning",
    "its memory": "x = [bytearray(2**20) for _ in range(10**6)]",
    "a module for a function": "import operator as add",
    "another module for one": "import sys, operator\nsys.modules['solution'] = operator\nimport unittest.mock as add",
}
"""How a program may try to pass tests without adding."""


SLOW = {"endless": LIMITS, "asleep": Limits(wall_seconds=1), "its memory": LIMITS, "large values": LIMITS}


@pytest.mark.parametrize("name", CHEATS)
def test_a_program_that_cheats_gets_nothing(name: str) -> None:
    styles = ["mbpp"] if name in SLOW else list(STYLES)
    responses = [Response([1], [2], CHEATS[name], "stop", {"tests": STYLES[style]}) for style in styles]
    assert CodeTests(limits=SLOW.get(name, LIMITS), workers=1)(responses).tolist() == [0] * len(styles)


@pytest.mark.parametrize(
    "program",
    [
        "def add(a, b): return a + b",
        "add = lambda *numbers: sum(numbers)",
        "from operator import add",
        "import math\nclass Adder:\n    def __call__(self, a, b): return math.fsum([a, b]).__int__() "
        "if isinstance(a, int) else a + b\nadd = Adder()",
        "from __future__ import annotations\nimport functools\n"
        "@functools.cache\ndef add(a: int, b: int) -> int: return b + a",
        "def add(a, b):\n    print('adding')\n    return a + b\nif __name__ == '__main__':\n    raise SystemExit(1)",
    ],
)
def test_right_programs_pass_in_every_style(program: str) -> None:
    responses = [Response([1], [2], program, "stop", {"tests": STYLES[style]}) for style in STYLES]
    assert CodeTests(limits=LIMITS, workers=1)(responses).tolist() == [1] * len(STYLES)


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
        f"{names}assert get({number}) == {value}; assert type(get({number})) in (type({value}), dict)\n"
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
