"""Programs that put something of their own in the place of what their tests use, or of a module that ends them."""

from typing import Any

import pytest

from alignment import CodeTests, Limits
from alignment.rewards.base import Response
from alignment.rewards.code_tests import run_python
from common.errors import InputError

LIMITS = Limits(cpu_seconds=2, wall_seconds=20, megabytes=128)
STYLES = {
    "mbpp": ["assert add(1, 2) == 3"],
    "human_eval": ["def check(candidate):\n    assert candidate(1, 2) == 3\ncheck(add)"],
    "unit_test": [
        "import unittest\nclass Test(unittest.TestCase):\n    def test(self): self.assertEqual(add(1, 2), 3)\n"
        "unittest.main()"
    ],
}
CLOSE = "assert math.isclose(area(3), 15.588, rel_tol=0.001)"
AREA = "def area(r): return 15.588 * r / 3\n"
WRONG = "def area(r): return 0\n"
ANYTHING = "class {name}:\n    isclose = allclose = fabs = deepcopy = staticmethod(lambda *a, **k: True)\n"


def score(program: str, tests: Any, packages: tuple[str, ...] = (), **row: Any) -> float:
    reward = CodeTests(limits=LIMITS, workers=1, packages=packages)
    reward.check({"tests": tests, **row})
    return float(reward([Response([1], [2], program, "stop", {"tests": tests, **row})]))


@pytest.mark.parametrize("module", ["numpy.f2py.__main__", "unittest.__main__", "numpy.absent", "antigravity", "", 3])
@pytest.mark.parametrize("style", STYLES)
def test_a_module_of_a_program_ends_no_test(style: str, module: Any) -> None:
    program = f"import types\nadd = types.ModuleType('x')\nadd.__name__ = {module!r}"
    assert score(program, STYLES[style], ("numpy",)) == 0


def test_an_import_from_the_program_ends_no_test() -> None:
    program = "import types\nadd = types.ModuleType('numpy.f2py.__main__')"
    assert score(program, ["from solution import add\nassert add(1, 2) == 3"], ("numpy",)) == 0


@pytest.mark.parametrize(
    ("program", "tests"),
    [
        (ANYTHING.format(name="math"), [CLOSE]),
        (ANYTHING.format(name="np"), [CLOSE.replace("math.isclose", "np.allclose")]),
        (ANYTHING.format(name="numpy"), [CLOSE.replace("math.isclose", "numpy.allclose")]),
        ("from unittest.mock import MagicMock\nmath = MagicMock()\n", [CLOSE]),
        ("from unittest.mock import MagicMock as math\n", [CLOSE]),
        ("import unittest.mock as math\n", [CLOSE.replace("isclose", "MagicMock")]),
        ("import types\nmath = types.ModuleType('unittest.mock')\n", [CLOSE.replace("isclose", "MagicMock")]),
        (ANYTHING.format(name="math"), [f"import math\nfrom solution import *\n{CLOSE}"]),
        (ANYTHING.format(name="math"), ["import math", "from solution import *", CLOSE]),
        (ANYTHING.format(name="math"), [f"from solution import *\n{CLOSE}"]),
        (ANYTHING.format(name="np"), ["import numpy as np\nfrom solution import *\nassert np.allclose(area(3), 15)"]),
        (
            "def near(*a): return True\n",
            ["def near(a, b): return a == b\nfrom solution import *\nassert near(area(3), 15)"],
        ),
    ],
)  # fmt: skip
def test_what_tests_compare_with_is_not_the_programs(program: str, tests: list[str]) -> None:
    assert score(program + WRONG, tests, ("numpy",)) == 0
    assert score(program + AREA, ["assert area(3) == 15.588"], ("numpy",)) == 1


@pytest.mark.parametrize(
    ("program", "tests"),
    [
        ("import math\n", [CLOSE]),
        ("import math\n", [f"from solution import *\n{CLOSE}"]),
        ("import numpy as np\n", [CLOSE.replace("math.isclose", "np.allclose").replace("rel_tol", "rtol")]),
        ("from datetime import datetime\n", ["assert datetime(2020, 1, 2).year == 2020 and area(3) == 15.588"]),
        ("from copy import copy\n", ["assert copy([area(3)]) == [15.588]"]),
        ("import collections as c\n", ["assert c.Counter([area(3)]) == {15.588: 1}"]),
    ],
)
def test_modules_that_a_right_program_imports_are_there(program: str, tests: list[str]) -> None:
    assert score(program + AREA, tests, ("numpy",)) == 1


def test_a_function_may_be_called_like_a_module() -> None:
    """As one may be called like a function of Python: where no test asks for another name."""
    assert score("def select(x): return x + 1", ["assert select(1) == 2", "assert select(2) == 3"]) == 1


def test_imports_beside_the_tests_are_run_before_them() -> None:
    """As sanitized MBPP has them."""
    for imports in (["import math"], "import math", '["import math"]', [], None):
        tests = [CLOSE if imports else "assert area(3) == 15.588"]
        assert score(AREA, tests, test_imports=imports) == 1
        assert score(ANYTHING.format(name="math") + WRONG, tests, test_imports=imports) == 0
    assert CodeTests(score="share", limits=LIMITS)(
        [Response([1], [2], WRONG, "stop", {"tests": [CLOSE], "test_imports": ["import math"]})]
    ).tolist() == [0]
    with pytest.raises(InputError, match="test_imports"):
        CodeTests().check({"tests": [CLOSE], "test_imports": ["import math ("]})
    with pytest.raises(InputError, match="test_imports"):
        CodeTests().check({"tests": [CLOSE], "test_imports": [3]})


PYTEST_STYLE = "def test_add():\n    assert add(1, 2) == 3\n"


@pytest.mark.parametrize(
    "tests",
    [
        f"import random\nrng = random.Random(0)\n\n{PYTEST_STYLE}",
        f"import sys\nsys.path.append('.')\n{PYTEST_STYLE}",
        f"{PYTEST_STYLE}print('ready')",
        "import unittest\nclass Test(unittest.TestCase):\n    def test(self): self.fail(add(1))\n"
        "unittest.TestCase().assertTrue(True)",
        "import sys\nsys.exit(0)\nassert add(1) == 2",
        "try:\n    assert add(1) == 2\nexcept Exception:\n    pass",
        "assert True or add(1)",
        ["assert True", "print(1)"],
    ],
)
def test_tests_that_an_empty_program_passes_are_refused(tests: Any) -> None:
    with pytest.raises(InputError, match="every program passes"):
        CodeTests().check({"tests": tests})


def test_a_test_that_an_empty_program_passes_is_not_counted() -> None:
    tests = ["assert add(1, 2) == 3", "rng = print(0)", "assert True"]
    assert score("def add(a, b): return a + b", tests) == 1
    reward = CodeTests(score="share", limits=LIMITS)
    assert reward([Response([1], [2], "", "stop", {"tests": tests})]).tolist() == [0]


def test_examples_that_print_nothing_are_refused() -> None:
    with pytest.raises(InputError, match="every program that prints nothing"):
        CodeTests().check({"tests": [{"input": "1", "output": " \n"}]})
    CodeTests().check({"tests": [{"input": "1", "output": ""}, {"input": "2", "output": "2"}]})


def test_the_order_of_an_ordered_dictionary_counts() -> None:
    program = "from collections import OrderedDict\ndef f(): return OrderedDict(b=2, a=1)"
    test = "from collections import OrderedDict as O\nassert f() == O({})"
    assert run_python(program, [test.format("b=2, a=1"), test.format("a=1, b=2")]).passed == {0}
