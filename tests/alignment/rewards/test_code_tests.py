"""Programs that are right, wrong, endless, greedy or hostile."""

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from alignment import CodeTests, Limits
from alignment.rewards.base import Response
from alignment.rewards.code_tests import run_python
from common.errors import InputError

ONE_SECOND = Limits(cpu_seconds=1, wall_seconds=20)
ADDS = ["assert add(1, 2) == 3", "assert add(-1, 1) == 0", "assert add(2, 2) == 4"]


def response(text: str, **row: Any) -> Response:
    return Response([1], [2], text, "stop", row)


def test_right_and_wrong_programs() -> None:
    texts = [
        "def add(a, b): return a + b",
        "Here:\n```python\ndef add(a, b): return a * b\n```\nBetter:\n```python\ndef add(a, b): return a + b\n```",
        "def add(a, b): return a * b",
        "def add(a, b): raise ValueError",
        "def add(a, b): return c",
        "I do not know.",
        "import os; os._exit(0)",
        "import sys; sys.exit(0)",
    ]
    responses = [response(text, tests=ADDS) for text in texts]
    assert CodeTests(score="share")(responses).tolist() == pytest.approx([1, 1, 1 / 3, 0, 0, 0, 0, 0])
    strict = CodeTests()(responses)
    assert strict.tolist() == [1, 1, 0, 0, 0, 0, 0, 0]
    assert (strict.dtype, strict.device) == (torch.float32, torch.device("cpu"))
    function = {"prompt": "def add(a, b):\n", "tests": "\n".join(ADDS)}
    completions = [response(text, **function) for text in ("    return a + b", "    return a * b", "return a + b")]
    assert CodeTests(continues_prompt=True)(completions).tolist() == [1, 0, 0]


def test_programs_that_read_and_print() -> None:
    tests = [{"input": "1 2\n", "output": "3"}, {"input": "5 5", "output": "10\n\n"}]
    texts = [
        "print(sum(map(int, input().split())))  ",
        "print(3)",
        "print('3 ')\nraise SystemExit(1)",
        "print(input())",
    ]
    assert CodeTests(score="share")([response(text, tests=tests) for text in texts]).tolist() == [1, 0.5, 0, 0]
    assert run_python("print(__name__, open(0).read())", input_text="été").output == "__main__ été\n"


HOSTILE = {
    "fork": "import os\nwhile True: os.fork()",
    "thread": "import threading\nwhile True: threading.Thread(target=print).start()",
    "process": "import subprocess\nsubprocess.run(['true'])",
    "replace": "import os\nos.execv('/bin/true', ['true'])",
    "network": "import socket\nsocket.create_connection(('127.0.0.1', 9), 1)",
    "signal": "import os\nos.kill(os.getppid(), 9)",
    "write": "open('file', 'w').write('x')",
    "append": "open({path!r}, 'a').write('x')",
    "delete": "import os\nos.remove({path!r})",
    "rename": "import os\nos.rename({path!r}, {path!r} + '2')",
    "truncate": "import os\nos.truncate({path!r}, 0)",
    "permissions": "import os\nos.chmod({path!r}, 0)",
    "directory": "import os\nos.mkdir('folder')",
    "memory": "x = bytearray(2**30)",
    "descriptors": "import os\nfiles = [os.dup(1) for _ in range(100)]",
    "raw": "import ctypes\nif ctypes.CDLL(None).fork() == -1: raise OSError",
    "limits": "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (999, 999))",
    "output": "print('a' * 10**6)",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_programs_can_do_nothing_but_compute(name: str, tmp_path: Path) -> None:
    """Each is refused with an exception, at once, and what was there is as it was."""
    path = tmp_path / "precious"
    path.write_text("kept")
    mode = path.stat().st_mode
    outcome = run_python(HOSTILE[name].replace("{path!r}", repr(str(path))) + "\nprint('done')", limits=ONE_SECOND)
    assert outcome.status not in (0, None)
    assert "done" not in outcome.output
    assert len(outcome.output) <= 64 * 1024
    assert len(outcome.errors) <= 64 * 1024
    assert "Error" in outcome.errors or name == "output"
    assert (path.read_text(), path.stat().st_mode, os.listdir(tmp_path)) == ("kept", mode, ["precious"])


def test_endless_programs_end() -> None:
    start = time.monotonic()
    assert run_python("while True: pass", limits=ONE_SECOND).status in (-signal.SIGXCPU, -signal.SIGKILL)
    # Neither asleep nor deaf.
    deaf = "import signal, time\nfor s in (15, 24): signal.signal(s, signal.SIG_IGN)\ntime.sleep(99)"
    assert run_python(deaf, limits=Limits(wall_seconds=0.5)).status is None
    assert time.monotonic() - start < 60
    # What was passed before counts.
    slow = ["pass", "while True: pass", "pass"]
    assert run_python("", slow, limits=Limits(wall_seconds=1)).passed == {0}


def test_what_computing_takes_is_there() -> None:
    source = (
        "import bisect, collections, dataclasses, datetime, decimal, fractions, functools, hashlib, heapq, itertools\n"
        "import json, math, random, re, statistics, string, sys, time, typing\n"
        "time.sleep(0.01)\nsys.setrecursionlimit(5000)\n"
        "def depth(n): return 0 if n == 0 else 1 + depth(n - 1)\n"
        "print(depth(4000), sorted(set('abc')), len(open(json.__file__, 'rb').read(4)))"
    )
    assert run_python(source).output == "4000 ['a', 'b', 'c'] 4\n"
    sets = [run_python("print(set('abcdefghij'), __import__('os').environ.get('HOME'))").output for _ in range(2)]
    assert sets[0] == sets[1]
    assert sets[0].endswith("None\n")


def test_runs_share_processors_and_keep_their_order() -> None:
    """More at once than one, from a thread that is not the main one."""
    responses = [response(f"def add(a, b): return a + b + {number % 2}", tests=ADDS) for number in range(8)]
    found: list[float] = []
    thread = threading.Thread(target=lambda: found.extend(CodeTests(workers=2)(responses).tolist()))
    thread.start()
    thread.join(60)
    assert found == [1, 0] * 4


def test_mistakes() -> None:
    for wrong in ({"cpu_seconds": 0}, {"wall_seconds": 0}, {"megabytes": 1}, {"output_kilobytes": 0}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            Limits(**wrong)
    with pytest.raises(InputError, match="workers=0"):
        CodeTests(workers=0)
    with pytest.raises(InputError, match="list of messages"):
        CodeTests(continues_prompt=True).check({"tests": ADDS, "prompt": []})
