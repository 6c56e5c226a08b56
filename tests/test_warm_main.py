"""The stand-in that tests start commands with: output, status and signals are those of a process of its own."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from commands.recipe import command as recipe
from commands.training import parity
from tests.helpers.distributed import warm_program

WAITING = """
import os, signal, sys, time
def end(*_):
    print("asked", os.getcwd(), os.environ["COLOR"], os.getppid())
    sys.exit(3)
signal.signal(signal.SIGTERM, end)
os.write(1, f"{os.getpid()}\\n".encode())  # a signal within print's flush could not print
time.sleep(100)
"""


def start(folder: Path) -> tuple[subprocess.Popen[str], int]:
    """The stand-in, and the process id of what runs for it."""
    (folder / "waiting.py").write_text(WAITING)
    environment = os.environ | {"PYTHONPATH": str(folder), "COLOR": "green"}
    command = [*warm_program(), "-m", "waiting"]
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, int(process.stdout.readline())


@pytest.mark.distributed
def test_output_and_status_are_those_of_the_command() -> None:
    """Beside the real program, by which `recipe` and `parity` start stages and ranks."""
    assert recipe.PROGRAM == parity.PROGRAM
    for arguments in (["--version"], ["fit", "--config", "nowhere.yaml"]):
        real, warm = (
            subprocess.run([*program, *arguments], capture_output=True, text=True)
            for program in (recipe.PROGRAM, warm_program())
        )
        assert (warm.returncode, warm.stdout, warm.stderr) == (real.returncode, real.stdout, real.stderr)
    assert real.returncode == 2


@pytest.mark.distributed
def test_a_signal_is_passed_on(tmp_path: Path) -> None:
    process, worker = start(tmp_path)
    assert worker != process.pid
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=100)
    assert output == f"asked {tmp_path} green {os.getpid()}\n"
    assert process.returncode == 3


@pytest.mark.distributed
def test_a_kill_ends_what_runs_for_it(tmp_path: Path) -> None:
    process, worker = start(tmp_path)
    process.kill()
    process.communicate(timeout=100)
    deadline = time.monotonic() + 100
    while Path(f"/proc/{worker}").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not Path(f"/proc/{worker}").exists()


@pytest.mark.distributed
def test_what_a_signal_ends_is_seen_as_such(tmp_path: Path) -> None:
    process, worker = start(tmp_path)
    os.kill(worker, signal.SIGKILL)
    process.communicate(timeout=100)
    assert process.returncode == -signal.SIGKILL
