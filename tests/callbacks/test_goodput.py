"""Goodput callback: its purposes add up to the wall clock of real runs, killed and resumed, in each layout."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from callbacks.goodput import Goodput
from callbacks.reports.run_report import write_report
from common.goodput_ledger import (
    BUBBLE,
    COMMUNICATION,
    COMPUTE,
    LOST,
    OTHER,
    PURPOSES,
    START,
    read_ledger,
)
from common.run_folder import GOODPUT, read_metrics
from main import main
from models.language_model import LanguageModel
from tests.helpers.corpus import Configure
from tests.helpers.distributed import Command, forked, run_ranks


def with_ledger(path: Path, **trainer: Any) -> Path:
    configuration = yaml.safe_load(path.read_text())
    configuration["trainer"] |= trainer
    configuration["trainer"]["callbacks"].append({"class_path": "callbacks.Goodput"})
    path.write_text(yaml.safe_dump(configuration))
    return path


@pytest.mark.end_to_end
def test_a_run_with_validation_and_accumulation_adds_up(configure: Configure, tmp_path: Path) -> None:
    config = with_ledger(configure(trainer__max_steps=40))
    began = time.monotonic()
    main(["fit", "--config", str(config)])
    wall = time.monotonic() - began
    totals = read_ledger(tmp_path / "run")
    assert totals.total == pytest.approx(wall, rel=0.01)
    seconds = totals.seconds
    for purpose in (COMPUTE, "input", "checkpoint", "evaluation", OTHER, START):
        assert seconds[purpose] > 0, purpose
    assert seconds[COMMUNICATION] == seconds[BUBBLE] == seconds[LOST] == 0
    logged = {name: float(value) for step, _, name, value in read_metrics(tmp_path / "run") if step == 40}
    assert sum(logged[f"goodput/{purpose}"] for purpose in PURPOSES) == pytest.approx(1)
    assert 0 < logged["goodput/mfu_end_to_end"] < logged["goodput/mfu_steady"] < 1
    page = write_report(tmp_path / "run").read_text()
    for text in ("Where the time went", "wall clock", "callbacks and logging", "over the wall clock"):
        assert text in page
    before = (tmp_path / "run" / GOODPUT).read_bytes()
    main(["fit", "--config", str(config)])  # complete already
    assert (tmp_path / "run" / GOODPUT).read_bytes() == before


class Device:
    """A stream that works behind the host's back: every micro-batch gives it so many seconds to do."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.free_at, self.given, self.synchronized = seconds, 0.0, 0.0, 0

    def work(self) -> None:
        self.free_at = max(self.free_at, time.monotonic()) + self.seconds
        self.given += self.seconds

    def synchronize(self, *_: Any) -> None:
        self.synchronized += 1
        time.sleep(max(self.free_at - time.monotonic(), 0.0))

    def event(self, enable_timing: bool = False) -> "Event":
        return Event(self)


class Event:
    """Happens when the device has done what it was given before."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.record()

    def record(self) -> None:
        self.at = max(self.device.free_at, time.monotonic())

    def query(self) -> bool:
        return time.monotonic() >= self.at

    def synchronize(self) -> None:
        time.sleep(max(self.at - time.monotonic(), 0.0))

    def elapsed_time(self, end: "Event") -> float:
        return 1000 * (end.at - self.at)


@pytest.mark.end_to_end
def test_waiting_for_a_device_is_computing_and_only_logged_steps_wait(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No GPU is needed to be slower than the host; the spike guard waits for each step but the last."""
    device, setup, step = Device(0.06), Goodput.setup, LanguageModel.training_step

    def on_the_device(self: Goodput, trainer: Any, pl_module: Any, stage: str) -> None:
        setup(self, trainer, pl_module, stage)
        self._device = torch.device("cuda")

    def training_step(self: LanguageModel, batch: dict[str, Any], batch_index: int) -> Any:
        device.work()
        return step(self, batch, batch_index)

    monkeypatch.setattr(Goodput, "setup", on_the_device)
    monkeypatch.setattr(LanguageModel, "training_step", training_step)
    monkeypatch.setattr(torch.cuda, "synchronize", device.synchronize)
    monkeypatch.setattr(torch.cuda, "Event", device.event)
    monkeypatch.setattr("callbacks.async_scalars.copy_to_host", lambda values: (values, device.event()))
    saver = {"class_path": "callbacks.Checkpoints", "init_args": {"every_steps": 100}}
    guard = {"class_path": "callbacks.SpikeGuard"}
    rare = {"val_check_interval": 1000, "log_every_n_steps": 8, "max_steps": 20}
    config = with_ledger(configure(trainer__callbacks=[guard, saver], **{f"trainer__{k}": v for k, v in rare.items()}))
    main(["fit", "--config", str(config)])
    seconds = read_ledger(tmp_path / "run").seconds
    assert device.given == pytest.approx(40 * 0.06)
    assert 0.98 * device.given <= seconds[COMPUTE] < 1.2 * device.given
    assert seconds[OTHER] < 0.2 * device.given
    # After steps 8 and 16, and before those of steps 1 and 20 are saved; not after each of their micro-batches.
    assert device.synchronized == 2 + 2


@pytest.mark.distributed
def test_a_killed_run_accounts_for_what_it_lost(configure: Configure, tmp_path: Path) -> None:
    config = with_ledger(configure(trainer__max_steps=160, trainer__val_check_interval=1000))
    run = tmp_path / "run"
    forked(tmp_path, time.sleep, 0).communicate()  # the server's own start is no part of the run
    began = time.time()
    killed = Command(tmp_path, "fit", "--config", config)
    path = run / GOODPUT
    while not (path.exists() and len(path.read_bytes().splitlines()) > 60):
        assert killed.poll() is None, killed.communicate()
        time.sleep(0.01)
    killed.kill()
    killed.communicate()
    before = read_ledger(run)
    with path.open("ab") as file:
        file.write(b'{"time": 17')
    time.sleep(0.5)
    resumed = Command(tmp_path, "fit", "--config", config)
    _, errors = resumed.communicate()
    wall = time.time() - began
    assert resumed.returncode == 0, errors
    totals = read_ledger(run)
    assert totals.total == pytest.approx(wall, rel=0.01)
    assert totals.restarts == 1
    start = json.loads(next(line for line in path.read_text().splitlines()[61:] if line.startswith('{"start"')))
    redone = sum(sum(entry[1].values()) for entry in before.kept if entry[0] > start["step"])
    assert before.last is not None
    assert totals.seconds[LOST] == pytest.approx(redone + start["start"] - before.last, abs=1e-6)
    assert totals.seconds[LOST] > 0.5
    steps = [entry[0] for entry in totals.kept]
    assert steps == sorted(steps)


def keep_ledger(folder: str, strategy: str, layout: dict[str, Any]) -> dict[str, Any]:
    """Train as one of two ranks; what the ledger says, the wall clock, and a trace of the schedule beside it."""
    import strategies
    from datamodules import RandomTokens
    from tests.helpers.layouts import Record, language_model, trainer

    began = time.monotonic()
    goodput = Goodput()
    chosen = getattr(strategies, strategy)(**layout)
    traced = {"schedule": 0.0, "action": 0.0}
    if strategy.startswith("Pipeline"):
        make = chosen._schedule

        def timed(function: Any, part: str) -> Any:
            def run(*arguments: Any, **keywords: Any) -> Any:
                start = time.monotonic()
                try:
                    return function(*arguments, **keywords)
                finally:
                    traced[part] += time.monotonic() - start

            return run

        def schedule(*arguments: Any) -> Any:
            known = len(chosen._schedules)
            made = make(*arguments)
            if len(chosen._schedules) > known:
                made.step = timed(made.step, "schedule")
                for name in ("forward_one_chunk", "backward_one_chunk"):
                    setattr(made._stage, name, timed(getattr(made._stage, name), "action"))
            return made

        chosen._schedule = schedule
    options = {"max_steps": 24, "accumulate_grad_batches": 2, "val_check_interval": 24}
    run = trainer(Path(folder), chosen, Record(), devices=2, callbacks=[goodput], **options)
    wait = torch.distributed.Work.wait
    run.fit(language_model(width=64), datamodule=RandomTokens(64, 128, 8))
    wall = time.monotonic() - began
    assert torch.distributed.Work.wait is wait
    totals = goodput._totals
    return {"wall": wall, "seconds": totals.seconds, "total": totals.total, "traced": traced}


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("strategy", "layout"),
    [("TensorParallelStrategy", {}), ("PipelineParallelStrategy", {"pipeline_parallel_size": 2})],
    ids=["fsdp2", "pp2"],
)
def test_waiting_for_others_is_seen(strategy: str, layout: dict[str, Any], tmp_path: Path) -> None:
    ranks = run_ranks(2, keep_ledger, str(tmp_path), strategy, layout)
    for rank in ranks:
        assert rank["total"] == pytest.approx(rank["wall"], rel=0.01)
        seconds = rank["seconds"]
        assert seconds[COMPUTE] > 0
        assert seconds[COMMUNICATION] > 0
        if strategy.startswith("Pipeline"):
            idle = rank["traced"]["schedule"] - rank["traced"]["action"]
            # What is idle and no waiting is the schedule's own Python, the more the busier the machine.
            assert 0.3 * idle < seconds[BUBBLE] < 1.02 * idle
        else:
            assert seconds[BUBBLE] == 0
    assert read_ledger(tmp_path).total == pytest.approx(ranks[0]["total"])
