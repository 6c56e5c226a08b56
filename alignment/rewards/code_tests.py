"""Code rewards: share of a row's tests that a response's program passes, in a sandboxed process.

A program may use so much processor time, memory and output, and none of the system calls that start processes, reach a
network, signal others or change files (`sandbox`). A container for each run would also hide the files that there are,
but needs rights and a daemon, and takes a second instead of hundredths of one.

What this does NOT protect against:
- Programs may read every file that the trainer may read. They have no way to send it anywhere, but their output comes
  back to the trainer. Do not train on an account that holds what a program must not see.
- A flaw of the kernel in one of the calls that are left, and what processors leak through timing.
- Cheating. Statements that test a program run beside it, and a program may change what they call, or look for the mark
  by which a passed test is reported. Tests of input and output are compared outside and cannot be cheated so.
"""

import json
import math
import os
import re
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import torch
from torch import Tensor

from alignment.rewards.base import Response, Reward
from alignment.rewards.verifiable import value_of
from common.errors import InputError

SANDBOX = Path(__file__).with_name("sandbox.py")
FENCE = re.compile(r"^```[^\n`]*\n(.*?)^```", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Limits:
    """Resource limits of one run.

    Args:
        cpu_seconds: processor time, in whole seconds; the load of the machine does not count.
        wall_seconds: time until it is killed whatever it did, also sleep; generous, so that load does not decide.
        megabytes: address space, of which Python takes about 20.
        output_kilobytes: standard output and standard error, each; writing more fails.

    Raises:
        InputError: for a limit that nothing can run within.
    """

    cpu_seconds: int = 3
    wall_seconds: float = 10.0
    megabytes: int = 256
    output_kilobytes: int = 64

    def __post_init__(self) -> None:
        if self.cpu_seconds < 1 or not 0 < self.wall_seconds < math.inf:
            raise InputError(
                f"limits: cpu_seconds={self.cpu_seconds}, wall_seconds={self.wall_seconds}: need at least a second of "
                "processor time, and a time until a run is killed"
            )
        if self.megabytes < 64 or self.output_kilobytes < 1:
            raise InputError(
                f"limits: megabytes={self.megabytes}, output_kilobytes={self.output_kilobytes}: need at least 64 and 1"
            )


@dataclass(frozen=True)
class Outcome:
    """Outcome of a run.

    Attributes:
        status: exit status, minus the signal's number where one ended it, None where `wall_seconds` did.
        passed: numbers of the tests that raised nothing.
        output, errors: standard output and standard error, as much as there may be.
    """

    status: int | None
    passed: frozenset[int]
    output: str
    errors: str


def run_python(source: str, tests: Sequence[str] = (), input_text: str = "", limits: Limits = Limits()) -> Outcome:
    """Run a program, and statements after it, in a confined process.

    Only the standard library is there, and no environment. Hashes are those of PYTHONHASHSEED=0, so that a program
    that prints a set prints the same one again.

    Args:
        source: of the program; with tests its `__name__` is "solution", without "__main__".
        tests: statements that raise where the program is wrong, each run in what the program defined.
        input_text: its standard input.
        limits: of the whole run.
    """
    mark = secrets.token_hex(16)
    output_bytes = limits.output_kilobytes * 1024
    job = {
        "source": source,
        "tests": list(tests),
        "mark": mark,
        "limits": [limits.cpu_seconds, limits.megabytes, output_bytes],
    }
    # Files, not pipes: their size is what the kernel bounds, and no process waits for a reader.
    with (
        tempfile.TemporaryDirectory() as folder,
        _file(json.dumps(job)) as job_file,
        _file(input_text) as standard_input,
        _file() as report,
        _file() as output,
        _file() as errors,
    ):
        inherited = (job_file.fileno(), report.fileno())
        # The flags of -I, but for the environment, which is ours.
        command = [sys.executable, "-S", "-s", "-P", "-B", str(SANDBOX), *map(str, inherited)]
        process = subprocess.Popen(
            command,
            stdin=standard_input,
            stdout=output,
            stderr=errors,
            pass_fds=inherited,
            cwd=folder,
            env={"PYTHONHASHSEED": "0"},
            start_new_session=True,
        )
        status: int | None = None
        try:
            status = process.wait(limits.wall_seconds)
        except subprocess.TimeoutExpired:
            pass
        finally:
            # It cannot have started others.
            process.kill()
            process.wait()
        lines = {*_text(report, output_bytes).splitlines()}
        passed = frozenset(number for number in range(len(tests)) if f"{mark} {number}" in lines)
        return Outcome(status, passed, _text(output, output_bytes), _text(errors, output_bytes))


def _file(text: str = "") -> IO[bytes]:
    file = tempfile.TemporaryFile()  # noqa: SIM115 (the caller closes it)
    file.write(text.encode("utf-8", "surrogatepass"))
    file.seek(0)
    return file


def _text(file: IO[bytes], most: int) -> str:
    file.seek(0)
    return file.read(most).decode("utf-8", "replace")


class CodeTests(Reward):
    """Code tests: the share of a row's tests that the response's code passes.

    A row's tests are a list of statements (MBPP's `test_list`), one text of them (HumanEval's `test`, with the call of
    `check`), or a list of objects with `input` and `output`, what the program reads and what it is to print; there
    spaces at the ends of lines and blank lines at the end do not count (as in APPS, Hendrycks et al. 2021).

    Args:
        tests_key: where a row holds its tests.
        score: `all`, 1 where all are passed, else 0 (APPS' strict accuracy); `share`, the share that is (its test case
            average).
        continues_prompt: the program is the row's `prompt` and the response after it; else the last block between lines
            of ``` in the response, or all of the response where there is none.
        limits: of one run.
        workers: runs at once; null for one a processor.

    Raises:
        InputError: for too few workers; where this machine cannot confine programs.
    """

    def __init__(
        self,
        tests_key: str = "tests",
        score: Literal["all", "share"] = "all",
        continues_prompt: bool = False,
        limits: Limits = Limits(),
        workers: int | None = None,
    ) -> None:
        if workers is not None and workers < 1:
            raise InputError(f"workers={workers}: must be at least 1")
        self.tests_key, self.score, self.continues_prompt = tests_key, score, continues_prompt
        self.limits, self.workers = limits, workers or os.cpu_count() or 1
        self._is_confined = False

    def prepare(self, device: torch.device) -> None:
        """Refuse a machine on which programs would not be confined."""
        outcome = run_python("", ["import os\ntry: os.getpgid(0)\nexcept PermissionError: pass\nelse: raise"])
        if outcome.passed != {0}:
            reason = (outcome.errors.strip().splitlines() or [f"status {outcome.status}"])[-1]
            raise InputError(
                f"CodeTests: programs cannot be confined on this machine ({reason:.200}): run on Linux with x86-64 or "
                "64-bit ARM, with seccomp"
            )
        self._is_confined = True

    def check(self, row: Mapping[str, Any]) -> None:
        """Refuse a row without tests."""
        self._tests(row)
        if self.continues_prompt and not isinstance(value_of(row, "prompt"), str):
            raise InputError("continues_prompt=true: a row's prompt is a list of messages, only text can be continued")

    def __call__(self, responses: Sequence[Response]) -> Tensor:
        if not self._is_confined:
            self.prepare(torch.device("cpu"))
        with ThreadPoolExecutor(self.workers) as pool:
            shares = torch.tensor(list(pool.map(self.share_passed, responses)), dtype=torch.float32)
        return (shares == 1).float() if self.score == "all" else shares

    def share_passed(self, response: Response) -> float:
        """The share of a row's tests that a response passes."""
        source = (
            str(value_of(response.row, "prompt")) + response.text if self.continues_prompt else code_of(response.text)
        )
        statements, examples = self._tests(response.row)
        if statements:
            passed = run_python(source, statements, limits=self.limits).passed
            return len(passed) / len(statements)
        right = 0
        for given, expected in examples:
            outcome = run_python(source, input_text=given, limits=self.limits)
            right += outcome.status == 0 and printed(outcome.output) == printed(expected)
        return right / len(examples)

    def _tests(self, row: Mapping[str, Any]) -> tuple[list[str], list[tuple[str, str]]]:
        """A row's statements, and its inputs with their outputs; one of the two is empty."""
        value = value_of(row, self.tests_key)
        tests = [value] if isinstance(value, str) else value
        if isinstance(tests, list) and tests:
            if all(isinstance(test, str) for test in tests):
                return tests, []
            try:
                pairs = [(test["input"], test["output"]) for test in tests]
            except (KeyError, TypeError):
                pairs = [(None, None)]
            if all(isinstance(text, str) for pair in pairs for text in pair):
                return [], pairs
        raise InputError(
            f"{self.tests_key}={value!r:.100}: tests are statements, or objects with `input` and `output`, all text"
        )


def code_of(text: str) -> str:
    """The last fenced block of a response; all of it where there is none."""
    blocks: list[str] = FENCE.findall(text)
    return blocks[-1] if blocks else text


def printed(text: str) -> list[str]:
    """Lines as they are compared, see `CodeTests`."""
    return "\n".join(line.rstrip() for line in text.splitlines()).rstrip().split("\n")
