"""Run lock: one process trains in a run's folder at a time.

A POSIX record lock and not `flock`: it is not inherited by the worker processes that read data, so that a run which was
killed can be continued while its workers still end, and it holds over network file systems.
"""

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from common.errors import InputError

LOCK = ".lock"
"""File in a run's folder with the process and the host that train there."""


@contextlib.contextmanager
def run_lock(run: Path) -> Iterator[None]:
    """Hold a run's folder while training.

    Args:
        run: folder of the run, made if it is missing.

    Raises:
        InputError: when another process trains there.
    """
    run.mkdir(parents=True, exist_ok=True)
    with (run / LOCK).open("a+", encoding="utf-8") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise InputError(
                f"{run} is trained in by {holder}: wait for it, or give this run a trainer.default_root_dir of its own"
            ) from error
        except OSError:  # a file system without locks
            yield
            return
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
