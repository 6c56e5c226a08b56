"""Processes that read data ahead: signals to a whole process group leave them at work.

Ctrl-C, SLURM and systemd signal every process of a run. One that only reads would die at once, and PyTorch then ends
the trainer, which was about to save. So these continue, for as long as saving may take.
"""

import os
import signal
from types import FrameType

from common.constants import STOP_SIGNALS

GRACE_SECONDS = 300
"""After a signal; a checkpoint takes less, and a trainer that is gone ends its workers itself."""


def continue_after_signals(worker: int) -> None:
    """`worker_init_fn` of a DataLoader: signals that stop the trainer end this process only some minutes later.

    Args:
        worker: its number.
    """

    def end(signum: int, frame: FrameType | None) -> None:
        os._exit(0)

    def wait(signum: int, frame: FrameType | None) -> None:
        signal.alarm(GRACE_SECONDS)

    signal.signal(signal.SIGALRM, end)
    for number in STOP_SIGNALS:
        signal.signal(number, wait)
