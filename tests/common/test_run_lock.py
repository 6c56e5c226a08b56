"""One process trains in a run's folder at a time."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from commands.training.run_folder_callback import wandb_run_id
from common.errors import InputError
from common.run_lock import run_lock
from tests.helpers.corpus import ROOT

HOLD = """
import os, sys
from pathlib import Path
from common.run_lock import run_lock
with run_lock(Path(sys.argv[1])):
    if os.fork() == 0:  # as a process that reads data
        os.close(0); os.close(1)
        import time; time.sleep(30)
        os._exit(0)
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_told_which_one_trains_there(tmp_path: Path) -> None:
    run = tmp_path / "runs/a"
    command = [sys.executable, "-c", HOLD, str(run)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=rf"runs/a is trained in by process {first.pid} on .*: wait for it"):
            with run_lock(run):
                pass
        first.kill()
        first.wait()
        # Its child is still there, as workers are for a moment after a kill.
        with run_lock(run):
            assert f"process {os.getpid()} " in (run / ".lock").read_text()
    with run_lock(run):
        pass


def test_processes_that_begin_at_once_get_one_identity(tmp_path: Path) -> None:
    """As torchrun starts them: each asks for the id at Weights & Biases."""
    for attempt in range(20):
        with ThreadPoolExecutor(16) as pool:
            found = list(pool.map(wandb_run_id, [tmp_path / str(attempt)] * 16))
        assert len(set(found)) == 1
        assert os.listdir(tmp_path / str(attempt)) == ["wandb-id.txt"]
