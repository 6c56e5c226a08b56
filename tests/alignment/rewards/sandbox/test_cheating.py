"""Programs that cheat their tests: each against tests in every style, and right ones for comparison."""

import pytest

from alignment import CodeTests, Limits
from alignment.rewards.base import Response

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
    "the process of its tests": """
import ctypes, os
libc = ctypes.CDLL(None)
def add(*a):
    for process in range(max(1, os.getpid() - 3), os.getpid() + 4):
        for name in ("mem", "maps", "environ", "fd/3", "fd/6"):
            try: return int(open(f"/proc/{process}/{name}").read())
            except (OSError, ValueError): pass
        for signal in (0, 9, 19):
            try: os.kill(process, signal)
            except OSError: pass
        libc.ptrace(16, process, 0, 0)
    return 0
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
