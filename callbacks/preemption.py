"""Preemption by SIGTERM: a signal on any rank stops all ranks after the same optimizer step.

Lightning broadcasts rank 0's flag and waits for the answer at every micro-batch, and another rank's signal goes unseen.
Here each step starts one small reduction among the CPUs and reads the one started a step earlier: no rank waits, and
all ranks know one step later.
"""

import signal
from types import FrameType
from typing import Any

import torch
import torch.distributed


class StopRequest:
    """Whether any rank has received SIGTERM."""

    def __init__(self) -> None:
        self.received = False
        self._group: Any = None
        self._flag = torch.zeros((), dtype=torch.int32)
        self._work: Any = None
        self._previous: Any = None

    def install(self, trainer: Any) -> None:
        """Take SIGTERM over from Lightning; on all ranks together."""
        self._previous = signal.signal(signal.SIGTERM, self._receive)
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None
        self._work = None
        if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
            self._group = torch.distributed.new_group(backend="gloo")

    def remove(self) -> None:
        """Restore Lightning's handler of SIGTERM."""
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)
            self._previous = None

    def agreed(self) -> bool:
        """Call once an optimizer step on every rank: all get the same answer, at the latest a step after the signal."""
        if self._group is None:
            return self.received
        answer = False
        if self._work is not None:
            self._work.wait()
            answer = bool(self._flag)
        self._flag = torch.tensor(int(self.received), dtype=torch.int32)
        maximum = torch.distributed.ReduceOp.MAX
        self._work = torch.distributed.all_reduce(self._flag, maximum, group=self._group, async_op=True)
        return answer

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        self.received = True
