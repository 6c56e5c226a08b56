"""Code rewards: share of a row's tests that a response's program passes, in a sandbox.

A program can compute and read Python's own modules, and nothing else (`sandbox/`): `prepare` proves it for each class
of attack, or refuses. What a program is to print is compared here; statements that test it run in a process beside its
own, which gets plain values from it (`sandbox/statements.py`). A container for each run would do without the proof, but
needs rights and a daemon, and takes a second instead of thousandths of one.

What this does NOT protect against:
- A flaw of the kernel in one of the calls that are left, and what processors leak through timing.
- Weak tests. A test that compares two objects of the program's own classes, or two results of it, or reads what it gave
  the program to change, asks the program.
- With `confinement: none`: nothing is hidden from programs.
"""

import builtins
import functools
import os
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import torch
from torch import Tensor

from alignment.rewards.base import Response, Reward
from alignment.rewards.code_blocks import code_of
from alignment.rewards.code_cases import IMPORTS, SHAPES, Cases, cases_of, is_printed, needs_a_program, out_of_reach
from alignment.rewards.sandbox.kernel_calls import hide_from_other_processes
from alignment.rewards.sandbox.probes import Confinement, proven_sandbox
from alignment.rewards.sandbox.runner import Limits, Outcome, Sandbox
from alignment.rewards.sandbox.statements import asked_names
from alignment.rewards.verifiable import value_of
from common.errors import InputError

NOT_CONFINED = (
    "CodeTests: confinement=none: programs that a model writes can read every file, environment and memory that this "
    "account can, hidden tests and keys among it; rewards can be had without solving anything. Only for a machine with "
    "nothing on it."
)


def run_python(source: str, tests: Sequence[str] = (), input_text: str = "", limits: Limits = Limits()) -> Outcome:
    """Run a program, and statements after it, in confined processes; see `Sandbox.run`.

    Raises:
        InputError: where this machine cannot confine programs.
    """
    return proven_sandbox().run(source, tests, input_text, limits)


class CodeTests(Reward):
    """Code tests: the share of a row's tests that the response's code passes.

    A row's tests are a list of statements (MBPP's `test_list`), one text of them (HumanEval's `test`, with the call of
    `check`), a list of objects with `input` and `output`, what the program reads and what it is to print, or one object
    with lists `inputs` and `outputs` (APPS, TACO); or any of these as JSON. Numbers with a decimal point are right
    within a tolerance (`code_cases.is_printed`). Statements that only prepare others, such as imports, are run and not
    counted, and neither are those that an empty program passes. A row's `test_imports` (sanitized MBPP) are run first.

    Args:
        tests_key: where a row holds its tests.
        score: `all`, 1 where all are passed, else 0 (APPS' strict accuracy); `share`, the share that is (its test case
            average).
        continues_prompt: the program is the row's `prompt` and the response after it; else the last block of Python in
            the response, or the last of no language, or all of the response where there is neither.
        limits: of one run.
        workers: runs at once; null for one a processor.
        confinement: how files and other processes are hidden from programs. `auto` takes namespaces and Landlock, or
            the one that is proven to work here; `none` hides nothing and is for machines with nothing on them.
        packages: installed packages that programs may import, such as `numpy`.
        dumpable: leave the trainer open to debuggers of the same account, such as py-spy, and to ranks that read each
            other's memory. By default it is closed to them, a second line of defense.

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
        confinement: Confinement = "auto",
        packages: Sequence[str] = (),
        dumpable: bool = False,
    ) -> None:
        if workers is not None and workers < 1:
            raise InputError(f"workers={workers}: must be at least 1")
        self.tests_key, self.score, self.continues_prompt = tests_key, score, continues_prompt
        self.limits, self.workers = limits, workers or os.cpu_count() or 1
        self.confinement, self.packages, self.dumpable = confinement, tuple(packages), dumpable

    def prepare(self, device: torch.device) -> None:
        """Refuse a machine on which programs would not be confined."""
        self._sandbox()
        if self.confinement == "none":
            warnings.warn(NOT_CONFINED, stacklevel=2)
        if not self.dumpable:
            hide_from_other_processes()

    def check(self, row: Mapping[str, Any]) -> None:
        """Refuse a row without tests, or with tests that every program passes."""
        cases = self._cases(row)
        if cases.statements:
            self._counted(cases, self._sandbox())
            if found := sorted({name for test in cases.statements for name in out_of_reach(test)}):
                warnings.warn(
                    f"CodeTests: tests use {', '.join(found)}: they run in another process than the program, which "
                    "these do not reach, so that right programs may fail them: leave such rows out",
                    stacklevel=2,
                )
        if self.continues_prompt and not isinstance(value_of(row, "prompt"), str):
            raise InputError("continues_prompt=true: a row's prompt is a list of messages, only text can be continued")

    def __call__(self, responses: Sequence[Response]) -> Tensor:
        sandbox = self._sandbox()
        with ThreadPoolExecutor(self.workers) as pool:
            found = list(pool.map(lambda response: self.share_passed(response, sandbox), responses))
        shares = torch.tensor(found, dtype=torch.float32)
        return (shares == 1).float() if self.score == "all" else shares

    def share_passed(self, response: Response, sandbox: Sandbox) -> float:
        """The share of a row's tests that a response passes."""
        source = (
            str(value_of(response.row, "prompt")) + response.text if self.continues_prompt else code_of(response.text)
        )
        cases = self._cases(response.row)
        if cases.statements:
            counted = self._counted(cases, sandbox)
            passed = sandbox.run(source, cases.statements, limits=self.limits).passed
            return len(passed & counted) / len(counted)
        right = 0
        for given, expected in cases.examples:
            outcome = sandbox.run(source, input_text=given, limits=self.limits)
            right += outcome.status == 0 and is_printed(outcome.output, expected)
        return right / len(cases.examples)

    def _sandbox(self) -> Sandbox:
        try:
            return proven_sandbox(self.confinement, self.packages)
        except InputError as error:
            raise InputError(f"CodeTests: {error}") from None

    def _cases(self, row: Mapping[str, Any]) -> Cases:
        return cases_of(value_of(row, self.tests_key), self.tests_key, row.get(IMPORTS))

    def _counted(self, cases: Cases, sandbox: Sandbox) -> frozenset[int]:
        """Numbers of the tests that an empty program fails.

        Raises:
            InputError: where there are none.
        """
        counted = frozenset(cases.counted) - _passed_by_all(cases.statements, self.packages, sandbox, self.limits)
        if not counted:
            raise InputError(
                f"{self.tests_key}={cases.statements[cases.counted[0]]!r:.100}: every program passes it, an empty one "
                f"too; tests are {SHAPES}. A function that tests, such as `test_add`, has to be called"
            )
        return counted


@functools.lru_cache(maxsize=65536)
def _passed_by_all(
    statements: tuple[str, ...], packages: tuple[str, ...], sandbox: Sandbox, limits: Limits
) -> frozenset[int]:
    """Numbers of the statements that an empty program passes; it is run where one of them is not sure to need one."""
    asked = ({name for name in names if not hasattr(builtins, name)} for names in asked_names(statements, packages))
    if all(map(needs_a_program, statements, asked)):
        return frozenset()
    return sandbox.run("", statements, limits=limits).passed
