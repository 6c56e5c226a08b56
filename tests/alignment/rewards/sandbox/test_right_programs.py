"""Right programs whose tests ask more of the process beside them."""

import pytest

from alignment import CodeTests, Limits
from alignment.rewards.base import Response
from alignment.rewards.code_tests import run_python

LIMITS = Limits(cpu_seconds=1, wall_seconds=20, megabytes=64)
VECTOR = """
class V:
    def __init__(self, x): self.x = x
    def __neg__(self): return V(-self.x)
    def __invert__(self): return V(~self.x)
    def __mul__(self, by): return V(self.x * by)
    __rmul__ = __mul__
    def __truediv__(self, by): return V(self.x / by)
    def __pow__(self, other): return V(self.x ** other.x)
"""


@pytest.mark.parametrize(
    ("program", "test"),
    [
        (VECTOR, "assert (-V(1)).x == -1 and (~V(0)).x == -1"),
        (VECTOR, "assert (V(2) * 3).x == 6 and (3 * V(2)).x == 6 and (V(3) / 2).x == 1.5"),
        (VECTOR, "assert (V(2) ** V(3)).x == 8 and (2 * -V(1)).x == -2"),
        ("def f(): return {'a': 1, 'b': 2}.keys()", "assert f() == {'a', 'b'} and list(f()) == ['a', 'b']"),
        ("def f(): return {'a': 1}.items()", "assert f() == {('a', 1)} and list(f()) == [('a', 1)]"),
        ("def f(): return {'a': 1}.values()", "assert list(f()) == [1] and sum(f()) == 1"),
        ("def f(x): return sum(x)", "assert f(iter([1])) == 1 and f(n for n in range(3)) == 3 and f(map(int, '1')) == 1"),  # noqa: E501
        ("def f(x): return list(x)", "assert f(zip('ab', [1, 2])) == [('a', 1), ('b', 2)] and f({1: 2}.keys()) == [1]"),
        (
            "from collections import Counter\ndef f(x): return Counter(x)",
            "from collections import Counter\nassert f('aab').most_common(1) == [('a', 2)] and f('aab')['z'] == 0 "
            "and isinstance(f('a'), Counter)",
        ),
        (
            "from collections import defaultdict\ndef f(): return defaultdict(list, a=[1])",
            "assert f()['z'] == [] and f() == {'a': [1]}",
        ),
        ("from fractions import Fraction\nclass Fr(Fraction): pass", "assert Fr(1) == 1 and Fr(1, 2) < 1"),
    ],
)  # fmt: skip
def test_right_programs_pass(program: str, test: str) -> None:
    assert run_python(program, [test], limits=LIMITS).passed == {0}


NEAR = ["assert abs(add(1, 2) - 3) < 1e-6", "assert not add(1, 2) - 3", "assert not add(1, 2) * 0 - 3",
        "assert add(1, 2) * 1 == 3", "assert add(1, 2) / 1 == 3", "assert 1 * add(1, 2) == 3",
        "assert -add(1, 2) == -3", "assert abs(add(1, 2)) == 3", "assert float(add(1, 2)) == 3",
        "assert 3 in add(1, 2)"]  # fmt: skip
SAME = """
class Yes:
    def same(self, *arguments): return self
    def nothing(self, *arguments): return 0
    def always(self, *arguments): return True
    __eq__ = __lt__ = __le__ = __gt__ = __ge__ = __contains__ = always
    __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __sub__ = __rsub__ = {arithmetic}
    __neg__ = __abs__ = {unary}
    def __bool__(self): return False
    def __float__(self): return 0.0
    def __iter__(self): return iter([])
    def __hash__(self): return 0
def add(*a): return Yes()
"""


@pytest.mark.parametrize("test", NEAR)
@pytest.mark.parametrize("arithmetic", ["same", "nothing"])
@pytest.mark.parametrize("unary", ["same", "nothing"])
def test_an_object_does_not_answer_for_the_number_that_is_asked_for(test: str, arithmetic: str, unary: str) -> None:
    program = SAME.format(arithmetic=arithmetic, unary=unary)
    assert run_python(program, [test], limits=LIMITS).passed == frozenset()
    assert run_python("def add(a, b): return [a + b] if 'in' == '' else a + b", [test], limits=LIMITS).passed == (
        {0} if test not in (NEAR[2], NEAR[9]) else frozenset()
    )


def test_an_endless_argument_is_refused() -> None:
    test = "import itertools\nassert f(itertools.count()) == 1"
    assert not run_python("def f(x): return next(x) + 1", [test], limits=LIMITS).passed


@pytest.mark.parametrize(
    "test",
    [
        "import io, contextlib\nwith contextlib.redirect_stdout(io.StringIO()) as o: f()\nassert o.getvalue()",
        "from unittest.mock import patch\nwith patch('builtins.input', return_value='x'): assert f() == 'x'",
        "import asyncio\nassert asyncio.run(f()) == 1",
        "def test(capsys):\n    f()\n    assert capsys.readouterr().out == 'x'\ntest(f)",
    ],
)
def test_tests_that_no_program_can_pass_here_are_warned_of(test: str) -> None:
    with pytest.warns(UserWarning, match="run in another process"):
        CodeTests().check({"tests": [test]})
    assert CodeTests(limits=LIMITS)([Response([1], [2], "def f(): return 1", "stop", {"tests": [test]})]).tolist() == [
        0
    ]
