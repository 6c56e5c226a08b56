"""Goodput callback: a ledger that books every second of a run, restarts included, under exactly one purpose.

A job costs wall-clock time and buys optimizer steps that survive to its end; between the two lie the purposes of this
ledger (the "goodput" of Google's ML productivity and of MegaScale, Jiang et al. 2024). It is kept by
the first process, which waits for the others where they are slower. A journal in the run's folder is only ever appended
to, so a kill loses nothing but its own last moments, and those are lost work anyway.

On CPUs all purposes are measured. On a GPU communication and bubble are measured by events on the compute stream,
computing is what is left of the step, and input and callbacks count as far as the stream stood still. The host is
brought level with the device only where an optimizer step is logged, which reads numbers back anyway, and before a
checkpoint or a validation; a callback that waits for the device by itself does so within its `waiting`, which counts
as computing. A pipeline's bubble includes what its messages take to travel.
"""

import atexit
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import torch

from callbacks.throughput import Throughput
from callbacks.wait_clock import Clock, Waiting
from common.contracts import TimedStrategy, WaitingCallback
from common.goodput_ledger import CHECKPOINT, COMPUTE, EVALUATION, INPUT, OTHER, LedgerTotals, read_ledger
from common.run_folder import GOODPUT

_STEP, _FETCH, _SAVE = "run_training_batch", "[_TrainingEpochLoop].train_dataloader_next", "save_checkpoint"
_began: float | None = None
_at_exit: list[Callable[[], None]] = []


def begin_run(whole_process: bool) -> None:
    """Record that a command begins now, or began with this process.

    Args:
        whole_process: whether everything from the start of the process to its exit belongs to the run.
    """
    global _began
    _began = time.monotonic() - (_process_age() if whole_process else 0.0)
    _at_exit.clear()
    if whole_process:
        # Registered first, called last: what others do at exit is part of the run.
        atexit.register(lambda: [function() for function in _at_exit])


class Goodput(lightning.Callback):
    """Keeps `goodput.jsonl`; logs the share of each purpose and the model FLOP/s utilization at the logging interval.

    `goodput/mfu_steady` is over the time of training steps that are kept, `goodput/mfu_end_to_end` over the whole wall
    clock; both against the peak that `Throughput` measured or was given.
    """

    def __init__(self) -> None:
        self._began = _began if _began is not None else time.monotonic()
        self._ended: tuple[Any, dict[str, float]] | None = None
        self._clock: Clock | None = None
        self._started = self._training = False

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if stage != "fit":
            return
        self._clock = Clock(self._began)
        self._path = Path(trainer.default_root_dir) / GOODPUT
        self._first, self._flops = trainer.is_global_zero, 0.0
        self._started = self._training = False
        self._step, self._totals = 0, LedgerTotals()
        self._device = trainer.strategy.root_device
        self._throughput = next((c for c in trainer.callbacks if isinstance(c, Throughput)), None)
        self._gaps: list[tuple[Any, Any, dict[str, float]]] = []
        self._waiting = Waiting(self._clock, self._device)
        self._waiting.install()
        if isinstance(trainer.strategy, TimedStrategy):
            trainer.strategy.watch = self._clock.watch
        for callback in trainer.callbacks:
            if isinstance(callback, WaitingCallback):
                callback.waiting = self._clock.device
        self._watch_profiler(trainer)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        assert self._clock is not None
        if self._first:
            self._totals = read_ledger(self._path.parent)
        began = time.time() - (time.monotonic() - self._began)
        peak = self._throughput.peak if self._throughput is not None else None
        self._append(
            {
                "start": began,
                "step": trainer.global_step,
                "peak": peak and peak * trainer.world_size,
            }
        )
        self._started = True

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        assert self._clock is not None
        if not self._training:
            self._clock.turn(OTHER)
            self._training = True
            self._book(trainer)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches or trainer.global_step % trainer.log_every_n_steps:
            return
        self._book(trainer)
        pl_module.log_dict({f"goodput/{name}": value for name, value in self._totals.numbers().items()})

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        if self._training and self._clock is not None:
            self._drain()
            self._clock.turn(EVALUATION)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        if self._training and self._clock is not None:
            self._clock.turn(OTHER)

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        # Within a run this is a step back; at its beginning the line of the start says the same.
        if self._clock is not None and self._training:
            self._book(trainer, self._step)
            self._append({"rewind": checkpoint["global_step"]})

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        if self._clock is None:
            return
        self._release()
        if not self._started:  # a run that was complete already
            return
        self._book(trainer, complete=True)
        step = trainer.global_step
        _at_exit.append(lambda: self._write(step, complete=True))

    def on_exception(self, trainer: lightning.Trainer, pl_module: Any, exception: BaseException) -> None:
        if self._clock is not None and self._training:
            self._release()
            self._book(trainer)

    def teardown(self, trainer: lightning.Trainer, pl_module: Any, stage: str) -> None:
        if self._clock is not None and stage == "fit":
            self._release()
            if self._started:
                self._write(trainer.global_step, complete=True)

    # Lightning calls its profiler at the start and end of each of its actions

    def _watch_profiler(self, trainer: Any) -> None:
        profiler, clock = trainer.profiler, self._clock
        assert clock is not None
        start, stop = profiler.start, profiler.stop

        def started(name: str) -> None:
            if self._training:
                if name == _SAVE:
                    self._drain()
                purpose = _purpose(name)
                if purpose is not None:
                    clock.enter(name, purpose)
                if name == _STEP:
                    self._begin_step(trainer)
            start(name)

        def stopped(name: str) -> None:
            stop(name)
            if not self._training:
                return
            if name == _STEP:
                self._end_step(trainer)
            clock.leave(name)
            if name == _SAVE:
                self._book(trainer)

        profiler.start, profiler.stop = started, stopped
        self._undo = lambda: profiler.__dict__.update(start=start, stop=stop)

    def _begin_step(self, trainer: Any) -> None:
        self._step = trainer.global_step
        if self._ended is not None and self._clock is not None:
            begin, before = self._ended
            end = torch.cuda.Event(enable_timing=True)
            end.record()
            host = {purpose: seconds - before[purpose] for purpose, seconds in self._clock.ever().items()}
            self._gaps.append((begin, end, host))
            self._ended = None

    def _end_step(self, trainer: Any) -> None:
        stepped, self._step = trainer.global_step > self._step, trainer.global_step
        if self._device.type != "cuda" or self._clock is None:
            return
        if stepped and trainer.global_step % trainer.log_every_n_steps == 0:
            torch.cuda.synchronize(self._device)
        begin = torch.cuda.Event(enable_timing=True)
        begin.record()
        self._ended = begin, self._clock.ever()

    def _drain(self) -> None:
        """Let a GPU finish the steps it was given, on their own account."""
        if self._device.type == "cuda" and self._clock is not None:
            with self._clock.device():
                torch.cuda.synchronize(self._device)

    def _release(self) -> None:
        self._waiting.remove()
        self._undo()

    # The journal

    def _book(self, trainer: Any, step: int | None = None, complete: bool = False) -> None:
        """Book the time since the last line, with the optimizer steps completed by now."""
        assert self._clock is not None
        self._waiting.settle()
        while self._gaps and self._gaps[0][1].query():
            begin, end, host = self._gaps.pop(0)
            # Time in which the device was busy with the step before while the host did other work.
            busy = sum(host.values()) - host[COMPUTE] - begin.elapsed_time(end) / 1000
            for purpose in (OTHER, INPUT):
                overlapped = min(max(busy, 0.0), host[purpose])
                self._clock.move(purpose, COMPUTE, overlapped)
                busy -= overlapped
        if self._throughput is not None and self._training:
            with self._clock.device():
                done = self._throughput.model_flops(trainer, trainer.lightning_module)
        else:
            done = self._flops
        flops, self._flops = done - self._flops, done
        self._write(trainer.global_step if step is None else step, flops, complete)

    def _write(self, step: int, flops: float = 0.0, complete: bool = False) -> None:
        assert self._clock is not None
        line: dict[str, Any] = {"time": time.time(), "step": step, "flops": flops, "seconds": self._clock.take()}
        self._append(line | ({"complete": True} if complete else {}))

    def _append(self, line: dict[str, Any]) -> None:
        self._totals.add(line)
        if not self._first:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # torn by a kill
                    file.write(b"\n")
            file.write(json.dumps(line).encode() + b"\n")


def _purpose(name: str) -> str | None:
    """Purpose of the time under a profiler name; None where the enclosing name decides."""
    if name == _STEP:
        return COMPUTE
    if name == _FETCH:
        return INPUT
    if name == _SAVE or name.startswith("[Callback]Checkpoints"):
        return CHECKPOINT
    return OTHER if name.startswith("[Callback]") else None


def _process_age() -> float:
    """Seconds since this process was started; 0 where the system does not say."""
    stat, uptime = Path("/proc/self/stat"), Path("/proc/uptime")
    if not stat.exists():
        return 0.0
    started = int(stat.read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    return max(float(uptime.read_text().split()[0]) - started, 0.0)
