"""Layers of confinement: what each closes, what is refused, and that nothing of a sandbox stays behind."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from alignment import CodeTests, Limits
from alignment.rewards.base import Response
from alignment.rewards.sandbox import probes, runner
from alignment.rewards.sandbox.landlock import FILE_RIGHTS, known
from alignment.rewards.sandbox.probes import LAYERS, PROBES, open_attacks, probe_programs, proven_sandbox
from alignment.rewards.sandbox.runner import Sandbox, SandboxError
from common.errors import InputError
from tests.alignment.rewards.sandbox.attack_target import MAY_TRACE, needs, works

ROOT = Path(__file__).parents[4]
ADDS = ["assert add(1, 2) == 3"]
NO_LANDLOCK = "import alignment.rewards.sandbox.landlock as l; l.CREATE_RULESET = 9999; "
NO_NAMESPACES = "import alignment.rewards.sandbox.namespaces as n; n.unshare = lambda flags: open('/proc/1/mem', 'x'); "
NO_SECCOMP = "import alignment.rewards.sandbox.seccomp as s; s.PR_SET_SECCOMP = 9999; "
OTHER_MACHINE = "import alignment.rewards.sandbox.seccomp as s; s.NUMBERS.clear(); "
"""What to run in a server so that its kernel seems to lack a layer."""


@pytest.fixture
def lacking(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Patches of servers; nothing that was proven before or will be then counts."""
    monkeypatch.setattr(probes, "_proven", {})
    yield monkeypatch
    for sandbox in probes._proven.values():
        sandbox.close()


def lack(monkeypatch: pytest.MonkeyPatch, *layers: str) -> None:
    path, rest = runner.START.split("; from ")
    monkeypatch.setattr(runner, "START", f"{path}; {''.join(layers)}from {rest}")


@pytest.mark.parametrize("attack", PROBES)
def test_every_probe_is_open_where_nothing_is_confined(attack: str, tmp_path: Path) -> None:
    """Or a proof would prove nothing."""
    rights = ("the trainer's", "its parent's mem", "tracing", "other processes", "taking", "namespaces", "mounting")
    if not MAY_TRACE and any(word in attack for word in rights):
        pytest.skip("needs the right to trace other processes, or a root's")
    aim = subprocess.Popen(["sleep", "60"])
    inherited = os.open("/dev/null", os.O_RDONLY)
    try:
        program = probe_programs(str(tmp_path), aim.pid, Limits())[attack]
        result = subprocess.run(
            [sys.executable, "-c", program],
            cwd=tmp_path,
            env={"PYTHONPATH": str(ROOT)},
            pass_fds=[inherited],
            capture_output=True,
            text=True,
        )
        assert "open" in result.stdout, result.stderr
        assert "closed" not in result.stdout
    finally:
        os.close(inherited)
        aim.kill()
        aim.wait()


@pytest.mark.parametrize("confinement", ["auto", "landlock", "namespaces"])
def test_each_confinement_closes_every_class_of_attack(confinement: str) -> None:
    there = [layers for layers in LAYERS[confinement] if all(map(works, layers))]
    if not there:
        pytest.skip(f"no {confinement} on this machine")
    sandbox = proven_sandbox(confinement)  # type: ignore[arg-type]
    assert sandbox.layers == tuple(there[0])
    assert sandbox.run("print(input())", input_text="1").output == "1\n"


def test_the_proof_finds_what_is_open() -> None:
    """The filter of system calls alone, as it once was."""
    sandbox = Sandbox([])
    found = open_attacks(sandbox)
    sandbox.close()
    assert {"the list of processes", "files of the user", "files of the project", "files of the system"} <= {*found}
    assert not {"network", "starting processes", "signals", "writing files", "its environment"} & {*found}


def test_namespaces_hide_that_a_file_exists() -> None:
    needs("namespaces")
    program = "import os\nprint(os.path.exists('/etc/passwd'), os.listdir('/'), os.getppid())"
    output = proven_sandbox("namespaces").run(program).output
    assert output.startswith("False ")
    assert output.endswith(" 1\n")
    assert "etc" not in output


@pytest.mark.parametrize(
    ("missing", "confinement", "layers"),
    [
        ((NO_NAMESPACES,), "auto", ("landlock",)),
        ((NO_LANDLOCK,), "auto", ("namespaces",)),
        ((NO_LANDLOCK,), "namespaces", ("namespaces",)),
        ((NO_NAMESPACES, NO_LANDLOCK, OTHER_MACHINE), "none", ()),
        ((NO_SECCOMP,), "none", ()),
    ],
)
def test_the_first_that_works_is_taken(
    missing: tuple[str, ...], confinement: str, layers: tuple[str, ...], lacking: pytest.MonkeyPatch
) -> None:
    needs(*layers)
    lack(lacking, *missing)
    sandbox = proven_sandbox(confinement)  # type: ignore[arg-type]
    assert sandbox.layers == layers
    assert sandbox.run("def add(a, b): return a + b", ADDS).passed == {0}


@pytest.mark.parametrize(
    ("missing", "confinement", "reason"),
    [
        ((NO_NAMESPACES, NO_LANDLOCK), "auto", "landlock_create_ruleset: Function not implemented"),
        ((NO_LANDLOCK,), "landlock", "Function not implemented"),
        ((NO_NAMESPACES,), "namespaces", "namespaces: .*/proc/1/mem"),
        ((NO_SECCOMP,), "auto", "prctl\\(9999\\): Invalid argument"),
        ((OTHER_MACHINE,), "auto", "no list of system calls for"),
        (("raise SystemExit('broken'); ",), "auto", "broken"),
    ],
)
def test_a_machine_that_cannot_confine_is_refused_in_one_line(
    missing: tuple[str, ...], confinement: str, reason: str, lacking: pytest.MonkeyPatch
) -> None:
    lack(lacking, *missing)
    reward = CodeTests(confinement=confinement)  # type: ignore[arg-type]
    for use in (lambda: reward.prepare(torch.device("cpu")), lambda: reward([Response([1], [2], "", "stop", {})])):
        with pytest.raises(InputError, match=f"cannot be confined on this machine .*{reason}") as refused:
            use()
        assert "confinement: none" in str(refused.value)
        assert "\n" not in str(refused.value)


def test_an_open_attack_is_refused_by_its_name(lacking: pytest.MonkeyPatch) -> None:
    lacking.setitem(PROBES, "time", "__import__('time').time()")
    with pytest.raises(InputError, match="open are time"):
        CodeTests().prepare(torch.device("cpu"))


def test_no_confinement_is_said_loudly(lacking: pytest.MonkeyPatch) -> None:
    reward = CodeTests(confinement="none", dumpable=True)
    with pytest.warns(UserWarning, match="every file, environment and memory"):
        reward.prepare(torch.device("cpu"))
    assert reward([Response([1], [2], "def add(a, b): return a + b", "stop", {"tests": ADDS})]).tolist() == [1]


def test_packages_are_there_by_name_only() -> None:
    source = "import numpy\nfrom numpy.polynomial import Polynomial\ndef f(x): return numpy.array(x, 'f4') * 2"
    tests = ["import numpy as np\nassert np.array_equal(f([1]), [2]) and f([1.5]).dtype == np.float32 and f(1) == 2"]
    for confinement in filter(works, ("landlock", "namespaces")):
        sandbox = proven_sandbox(confinement, ["numpy"])  # type: ignore[arg-type]
        assert sandbox.run(source, tests).passed == {0}
        assert "No module named 'torch'" in sandbox.run("import torch").errors
        sandbox.close()
    assert "No module named 'numpy'" in proven_sandbox().run("import numpy").errors
    with pytest.raises(InputError, match="no_such_package"):
        proven_sandbox("auto", ["no_such_package"])


@pytest.mark.end_to_end
def test_the_trainer_is_closed_to_other_processes() -> None:
    """In a process of its own, because there is no way back."""
    program = """
import ctypes, sys, torch
from torch.utils.data import DataLoader
from alignment import CodeTests
CodeTests(dumpable=sys.argv[1] == "True").prepare(torch.device("cpu"))
# What the trainer does with processes still works.
assert len(list(DataLoader([torch.zeros(3)] * 8, num_workers=1))) == 8
print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
"""
    for dumpable in (False, True):
        result = subprocess.run(
            [sys.executable, "-c", program, str(dumpable)], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert result.stdout.split() == [str(int(dumpable))]


def ended(process: int) -> bool:
    """Whether a process is gone, soon."""
    for _ in range(200):
        try:
            state = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def descendants(process: int) -> list[int]:
    """Numbers of all processes that it started, and that these did."""
    children = [int(number) for number in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    return children + [number for child in children for number in descendants(child)]


@pytest.mark.end_to_end
@pytest.mark.parametrize("layers", [["namespaces", "landlock"], ["landlock"]], ids=" ".join)
@pytest.mark.parametrize("busy", [False, True])
def test_a_sandbox_ends_with_its_trainer(layers: list[str], busy: bool) -> None:
    needs(*layers)
    program = f"""
import os, threading, time
from alignment.rewards.sandbox.runner import Sandbox, Limits
sandbox = Sandbox({layers})
sandbox.run("")
if {busy}: threading.Thread(target=sandbox.run, args=("while True: pass",), daemon=True).start()
time.sleep(0.3)
print("ready", flush=True)
time.sleep(60)
"""
    trainer = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert trainer.stdout is not None
    assert trainer.stdout.readline() == "ready\n"
    started = descendants(trainer.pid)
    assert len(started) == len(layers) + busy
    trainer.kill()
    trainer.wait()
    trainer.stdout.close()
    assert all(map(ended, started))


def test_a_server_that_died_is_replaced() -> None:
    sandbox = Sandbox([])
    assert sandbox.run("print(1)").output == "1\n"
    os.kill(sandbox._idle[0].process.pid, signal.SIGKILL)
    assert sandbox.run("print(input())", input_text="2").output == "2\n"
    os.kill(sandbox._idle[0].process.pid, signal.SIGSTOP)
    sandbox.close()


def test_a_copy_of_the_trainer_has_servers_of_its_own() -> None:
    sandbox = Sandbox([])
    sandbox.run("")
    server = sandbox._idle[0].process.pid
    child = os.fork()
    if not child:
        right = sandbox.run("print(3)").output == "3\n" and sandbox._idle[0].process.pid != server
        sandbox.close()
        os._exit(0 if right else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert sandbox.run("print(4)").output == "4\n"
    assert sandbox._idle[0].process.pid == server
    sandbox.close()


def test_programs_leave_nothing_for_the_next() -> None:
    """Neither memory, nor modules, nor descriptors; not even the numbers that they draw."""
    sandbox = Sandbox([])
    sandbox.run(
        "import sys, builtins, random\nbuiltins.left = sys.left = random.left = 1\nsys.path.append('x')\nlen = 3"
    )
    program = "import builtins, random, sys\nprint(hasattr(builtins, 'left'), hasattr(random, 'left'), 'x' in sys.path)"
    assert sandbox.run(program).output == "False False False\n"
    hidden = "hidden-tests-of-one"
    sandbox.run("x = 1", [f"assert x == '{hidden}'"], input_text=hidden)
    look = f"""
import gc
word = {hidden[:6]!r} + {hidden[6:]!r}
print(any(word in repr(value) for value in gc.get_objects() if value is not globals() and type(value) in (list, dict)))
"""
    assert sandbox.run(look).output == "False\n"
    draw = "import random; print(random.random())"
    assert sandbox.run(draw).output != sandbox.run(draw).output
    sandbox.close()


def test_a_sandbox_that_does_not_begin_says_why(tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match="no_such_module"):
        Sandbox([], ["no_such_module"]).run("")
    with tempfile.TemporaryDirectory() as folder:
        assert os.listdir(folder) == []


@pytest.mark.parametrize(("version", "rights"), [(1, 13), (2, 14), (3, 15), (4, 15), (5, 16), (7, 16)])
def test_rights_over_files_by_version(version: int, rights: int) -> None:
    assert known(FILE_RIGHTS, version) == (1 << rights) - 1
