"""Signals to a run: whichever asks it to stop, it saves once and says which."""

import os
import signal
import time
from pathlib import Path

import pytest

from common.run_folder import latest_checkpoint
from main import main
from tests.helpers.command_line import learned
from tests.helpers.corpus import Configure
from tests.helpers.distributed import Command


def wait_for_checkpoint(process: Command, run: Path) -> None:
    """Return when the run has saved for the first time."""
    deadline = time.monotonic() + 100
    while latest_checkpoint(run) is None and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)


@pytest.mark.end_to_end
@pytest.mark.parametrize(
    ("signum", "status"),
    [(signal.SIGINT, 130), (signal.SIGHUP, 129), (signal.SIGUSR1, 0), (signal.SIGUSR2, 0), (signal.SIGTERM, 0)],
    ids=lambda value: value.name if isinstance(value, signal.Signals) else "",
)
def test_a_signal_saves_once(configure: Configure, tmp_path: Path, signum: signal.Signals, status: int) -> None:
    config = configure(trainer__max_steps=5000, trainer__val_check_interval=100_000)
    process = Command(tmp_path, "fit", "--config", config)
    wait_for_checkpoint(process, tmp_path / "run")
    os.kill(process.pid, signum)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == status, errors
    stopped = [line for line in output.splitlines() if line.startswith(f"stopped by {signum.name} after step ")]
    newest = latest_checkpoint(tmp_path / "run")
    assert newest is not None
    assert [f"step={line.split()[5].rstrip(',')}.ckpt" for line in stopped] == [newest.name]


@pytest.mark.end_to_end
def test_a_signal_to_the_whole_group_loses_nothing_with_workers_that_read(configure: Configure, tmp_path: Path) -> None:
    """As SLURM, systemd and a terminal send it: those that read get it first, and must not take the run down."""
    config = configure(data__init_args__workers=1)
    main(["fit", "--config", str(config), f"--trainer.default_root_dir={tmp_path / 'whole'}"])
    long = ["--trainer.max_steps", "5000", "--trainer.val_check_interval", "100000"]
    process = Command(tmp_path, "fit", "--config", config, *long)
    wait_for_checkpoint(process, tmp_path / "run")
    for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        os.kill(int(child), signal.SIGTERM)
    time.sleep(0.5)
    assert process.poll() is None, process.communicate()
    os.kill(process.pid, signal.SIGTERM)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "stopped by SIGTERM after step" in output
    newest = latest_checkpoint(tmp_path / "run")
    assert newest is not None
    first = [row for row in learned(tmp_path / "whole") if row[1] == "train/loss"]
    again = [row for row in learned(tmp_path / "run") if row[1] == "train/loss"]
    assert first[:4] == again[:4]
