"""Wait clock: attributes wall-clock time to one purpose at a time, with hooks on collective waits.

Because it only switches, its parts add up to the time that passed, whatever is measured wrongly. Waiting is
seen where Python waits: on CPUs a wait blocks and its length is time on the clock; on a GPU the host only queues it, so
events around the wait measure how long the stream stood still, and that much is moved out of computing afterward.
"""

import functools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed
import torch.distributed._functional_collectives as functional

from common.goodput_ledger import BUBBLE, COMMUNICATION, COMPUTE, PURPOSES, START

Waits = list[tuple[Any, Any, str]]


class Clock:
    """Seconds by purpose.

    Args:
        began: start of the first purpose, starting up, on the clock of `time.monotonic`.
    """

    def __init__(self, began: float) -> None:
        self.seconds = dict.fromkeys(PURPOSES, 0.0)
        self._ever = dict.fromkeys(PURPOSES, 0.0)
        self.base = START
        self.waiting_for = COMMUNICATION
        self._named: list[tuple[str, str]] = []
        self._since = began

    @property
    def purpose(self) -> str:
        """The purpose that the clock runs for now."""
        return self._named[-1][1] if self._named else self.base

    def stop(self) -> None:
        """Book what has passed."""
        now = time.monotonic()
        self.seconds[self.purpose] += now - self._since
        self._ever[self.purpose] += now - self._since
        self._since = now

    def enter(self, name: str, purpose: str) -> None:
        """Run for another purpose until that name is left."""
        self.stop()
        self._named.append((name, purpose))

    def leave(self, name: str) -> None:
        """Return to the purpose before; a name that was not entered is ignored."""
        if self._named and self._named[-1][0] == name:
            self.stop()
            self._named.pop()

    def ever(self) -> dict[str, float]:
        """Seconds by purpose since the start, before any `move` and `take`."""
        self.stop()
        return dict(self._ever)

    def turn(self, base: str) -> None:
        """Set the purpose of time outside of any name."""
        self.stop()
        self.base = base

    def move(self, source: str, target: str, seconds: float) -> None:
        """Book seconds that were found out later under another purpose, as far as they were booked at all."""
        seconds = min(max(seconds, 0.0), self.seconds[source])
        self.seconds[source] -= seconds
        self.seconds[target] += seconds

    @contextmanager
    def device(self) -> Iterator[None]:
        """Context in which the host only waits for steps that the device was given."""
        self.enter("device", COMPUTE)
        try:
            yield
        finally:
            self.leave("device")

    @contextmanager
    def watch(self, part: str) -> Iterator[None]:
        """Context of a pipeline's `schedule`, where waiting is bubble, or of an `action` within it, where it is not."""
        before, self.waiting_for = self.waiting_for, BUBBLE if part == "schedule" else COMMUNICATION
        try:
            yield
        finally:
            self.waiting_for = before

    def take(self) -> dict[str, float]:
        """Seconds booked since the last call, by purpose; resets them."""
        self.stop()
        taken, self.seconds = self.seconds, dict.fromkeys(PURPOSES, 0.0)
        return {purpose: seconds for purpose, seconds in taken.items() if seconds}


class Waiting:
    """Hooks that report every wait for other processes to a clock, from `install` to `remove`.

    Args:
        clock: clock that runs for communication, or for the bubble, meanwhile.
        device: waits are timed on the host for a CPU, by events on its current stream for a GPU.
    """

    def __init__(self, clock: Clock, device: torch.device) -> None:
        self.clock, self.cuda = clock, device.type == "cuda"
        self._queued: Waits = []
        self._undo: list[Callable[[], None]] = []

    def install(self) -> None:
        """Wrap the functions that wait."""
        if not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1:
            return
        self._wrap(torch.distributed.Work, "wait")
        self._wrap(functional, "wait_tensor")
        if self.cuda:
            from torch.distributed.fsdp._fully_shard._fsdp_param_group import FSDPParamGroup

            # There FSDP2 makes streams wait for events instead.
            self._wrap(FSDPParamGroup, "wait_for_unshard")
            self._wrap(FSDPParamGroup, "finalize_backward")

    def remove(self) -> None:
        """Restore the functions that wait."""
        while self._undo:
            self._undo.pop()()

    def settle(self) -> None:
        """Book the waits of a GPU that are over, without waiting for the others."""
        while self._queued and self._queued[0][1].query():
            begin, end, purpose = self._queued.pop(0)
            self.clock.move(COMPUTE, purpose, begin.elapsed_time(end) / 1000)

    def _wrap(self, owner: Any, name: str) -> None:
        original = getattr(owner, name)

        @functools.wraps(original)
        def wait(*arguments: Any, **keywords: Any) -> Any:
            clock = self.clock
            if clock.purpose != COMPUTE or not _of_the_step():
                return original(*arguments, **keywords)
            purpose = clock.waiting_for
            if self.cuda:
                begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                begin.record()
                result = original(*arguments, **keywords)
                end.record()
                self._queued.append((begin, end, purpose))
                return result
            clock.enter("wait", purpose)
            try:
                return original(*arguments, **keywords)
            finally:
                clock.leave("wait")

        setattr(owner, name, wait)
        self._undo.append(lambda: setattr(owner, name, original))


def _of_the_step() -> bool:
    """Whether this is the thread of the step or one of autograd's, and none that writes a checkpoint beside it."""
    thread = threading.current_thread()
    return thread is threading.main_thread() or isinstance(thread, threading._DummyThread)
