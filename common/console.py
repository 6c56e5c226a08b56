"""Console messages: one line on standard error, from one process of a run.

A logger would bring levels and handlers that are not needed here. Results of a command go to standard output, messages
about its progress to standard error, from rank 0 only.
"""

import io
import os
import sys

RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK")
"""Environment variables in which launchers write a process's rank."""


LOCAL_RANKS = ("LOCAL_RANK", "SLURM_LOCALID", "OMPI_COMM_WORLD_LOCAL_RANK")
"""The same, of a process's rank on its node."""


def is_local_rank_zero() -> bool:
    """True if this process is the first one of its run on this machine, or the only one."""
    found = next((os.environ[name] for name in LOCAL_RANKS if name in os.environ), "0")
    return found == "0"


def is_rank_zero() -> bool:
    """True if this process is the first one of its run, or the only one."""
    found = next((os.environ[name] for name in RANKS if name in os.environ), "0")
    return found == "0"


def escape_unprintable() -> None:
    """Have characters that the terminal's encoding lacks, as under LC_ALL=C, written as escapes: not a failed run."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="backslashreplace")


def announce(message: str) -> None:
    """Print a message on standard error, on rank 0 only."""
    if is_rank_zero():
        print(message, file=sys.stderr, flush=True)
