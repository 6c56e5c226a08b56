"""Preemption by a signal: one on any rank stops all ranks after the same optimizer step, with a checkpoint.

Lightning broadcasts rank 0's flag and waits for the result at every micro-batch, and another rank's signal goes unseen.
Here each step starts one small reduction among the CPUs and reads the one started a step earlier: no rank waits, and
all ranks know one step later.
"""

import signal
from types import FrameType
from typing import Any

import torch
import torch.distributed

from common.constants import STOP_SIGNALS


class StopRequest:
    """Signal that any rank has received; a second Ctrl-C interrupts at once."""

    def __init__(self) -> None:
        self.received = 0
        self._group: Any = None
        self._flag = torch.zeros((), dtype=torch.int32)
        self._work: Any = None
        self._previous: dict[int, Any] = {}

    def install(self, trainer: Any) -> None:
        """Take the signals over from Lightning, but not what the user ignores, as with nohup; on all ranks together."""
        for number in STOP_SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:
                self._previous[number] = signal.signal(number, self._receive)
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None
        self._work = None
        if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
            self._group = torch.distributed.new_group(backend="gloo")

    def remove(self) -> None:
        """Restore the handlers that there were."""
        for number, previous in self._previous.items():
            signal.signal(number, previous)
        self._previous = {}

    def agreed(self) -> int:
        """Number of a signal that any rank has received, 0 for none.

        Call once an optimizer step on every rank: all get the same result, at the latest a step after the signal.
        """
        if self._group is None:
            return self.received
        result = 0
        if self._work is not None:
            self._work.wait()
            result = int(self._flag)
        self._flag = torch.tensor(self.received, dtype=torch.int32)
        maximum = torch.distributed.ReduceOp.MAX
        self._work = torch.distributed.all_reduce(self._flag, maximum, group=self._group, async_op=True)
        return result

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        if signum == self.received == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signum


def exit_status(signum: int) -> int:
    """Status of a run that a signal ended after its checkpoint.

    0 where a scheduler asked and starts the run again; where a person did, 128 and the signal's number, as shells have
    it, so that what was to follow does not.
    """
    return 128 + signum if signum in (signal.SIGINT, signal.SIGHUP) else 0
