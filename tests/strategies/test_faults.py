"""What happens to a run of several processes when one is killed or asked to stop: real commands, real signals."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from common.run_folder import checkpoint_step, latest_checkpoint
from main import main
from tests.helpers.command_line import Rows, learned
from tests.helpers.corpus import Configure
from tests.helpers.distributed import Command, run_ranks

STEPS = 20
PIPELINE = {
    "class_path": "strategies.PipelineParallelStrategy",
    "init_args": {"pipeline_parallel_size": 2, "microbatches": 2},
}


@pytest.fixture
def two_processes(configure: Configure) -> Path:
    return configure(
        trainer__strategy=PIPELINE,
        trainer__devices=2,
        trainer__max_steps=STEPS,
        trainer__val_check_interval=12,
        trainer__callbacks=[{"class_path": "callbacks.Checkpoints", "init_args": {"every_steps": 2}}],
    )


def child_of(process: Command) -> int:
    """Process id of rank 1."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    matching = [int(child) for child in children if b"main.py" in Path(f"/proc/{child}/cmdline").read_bytes()]
    return matching[0]


def start_and_wait(run: Path, *command: Any, fresh_ranks: bool = False) -> Command:
    """Start a run and return when it has written a further checkpoint, two intervals on."""
    before = latest_checkpoint(run)
    wanted = 4 + (checkpoint_step(before) if before else 0)
    process = Command(run.parent, "fit", *command, fresh_ranks=fresh_ranks)
    deadline = time.monotonic() + 100
    while process.poll() is None and time.monotonic() < deadline:
        newest = latest_checkpoint(run)
        if newest and checkpoint_step(newest) >= wanted:
            return process
        time.sleep(0.005)
    raise AssertionError(process.communicate()[1])


def learn(*arguments: Any) -> None:
    """`fit` as one of processes that something else started."""
    main(["fit", *map(str, arguments)])


def finish(*arguments: Any) -> Rows:
    """Run to the end and return what was learned."""
    run_ranks(2, learn, *arguments)
    return learned(Path(arguments[-1]))


@pytest.mark.distributed
def test_signals_to_one_rank(two_processes: Path, tmp_path: Path) -> None:
    expected = finish("--config", two_processes, "--trainer.default_root_dir", tmp_path / "whole")

    run = tmp_path / "signaled"
    command = ("--config", two_processes, "--trainer.default_root_dir", run)
    killed = start_and_wait(run, *command)
    child = child_of(killed)
    os.kill(child, signal.SIGKILL)
    since = time.monotonic()
    _, errors = killed.communicate(timeout=30)
    assert time.monotonic() - since < 10
    assert killed.returncode == 1
    assert f"rank 1 (process {child}) was killed by SIGKILL" in errors

    asked = start_and_wait(run, *command)
    os.kill(child_of(asked), signal.SIGTERM)
    output, errors = asked.communicate(timeout=30)
    assert asked.returncode == 0, errors
    assert output.count("stopped by SIGTERM after step") == 1

    orphaned = start_and_wait(run, *command, fresh_ranks=True)
    child = child_of(orphaned)
    orphaned.kill()
    orphaned.communicate(timeout=30)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{child}").exists()

    assert finish(*command) == expected
