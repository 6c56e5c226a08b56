"""Stand-in for `python main.py` that starts at once, for tests that are about what a command does in its own process.

It has the shared fork server run the command line, with the arguments, environment, folder and output of this process.
Signals are passed on, the exit status comes back, and the forked process dies with this one. There it looks as if it
were this process: further ranks are started by this script too, and the parent is the parent of this process. With
`-m MODULE` first, a module is run in place of `main.py`; without a fork server, everything happens right here.
"""

import contextlib
import multiprocessing
import os
import runpy
import signal
import sys
import threading
from multiprocessing import connection, parent_process, reduction
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
ADDRESS = "TESTS_FORK_SERVER"
"""Variable with the address of the fork server that all workers of a test run share."""
PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Stream:
    """A file descriptor that a forked process gets a copy of."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __getstate__(self) -> dict[str, Any]:
        return {"number": self.number, "copy": reduction.DupFd(self.number)}

    def restore(self) -> None:
        """Put the copy where the original was."""
        os.dup2(vars(self)["copy"].detach(), self.number)


def run(arguments: list[str]) -> None:
    """The command line, or a module, in this process."""
    if arguments[:1] == ["-m"]:
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        return
    from main import main

    sys.argv = [__file__, *arguments]
    main()


def run_for(client: int, arguments: list[str], environment: dict[str, str], streams: list[Stream]) -> None:
    """The same in a forked process, for a client that waits for it."""
    threading.Thread(target=die_with_client, daemon=True, name="client").start()
    for stream in streams:
        stream.restore()
    # What lies below may be a pipe now, where the server has a file: the old objects would seek in it.
    sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))
    os.environ.clear()
    os.environ.update(environment)
    if environment.get("PYTHONUNBUFFERED"):
        sys.stdout.reconfigure(write_through=True)  # type: ignore[union-attr]
    # A fork server's children would have fork servers of their own, which no user's process has.
    multiprocessing.set_start_method("fork", force=True)
    os.getppid = lambda: parent_of(client)
    run(arguments)


def die_with_client() -> None:
    """End this process when the one that asked for it is gone."""
    client = parent_process()
    assert client is not None
    connection.wait([client.sentinel])
    os.kill(os.getpid(), signal.SIGKILL)


def parent_of(process: int) -> int:
    """Process id of a process's parent, 1 where the process itself is gone."""
    try:
        status = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 1
    return int(status.rpartition(")")[2].split()[1])


def have_it_run(arguments: list[str]) -> int:
    """Have the fork server run it and wait; exit status, minus the signal's number where one ended it."""
    from tests.helpers import distributed, warm_main

    streams = [warm_main.Stream(number) for number in (1, 2)]
    process = distributed.CONTEXT.Process(
        target=warm_main.run_for, args=(os.getpid(), arguments, dict(os.environ), streams)
    )
    early: list[int] = []  # signals that come before there is a process to pass them on to
    for number in PASSED_ON:
        signal.signal(number, lambda number, frame: early.append(number))
    process.start()
    assert process.pid is not None
    pid = process.pid
    for number in PASSED_ON:
        signal.signal(number, lambda number, frame: os.kill(pid, number))
    for number in early:
        os.kill(pid, number)
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def main() -> None:
    sys.path[0] = str(ROOT)
    if ADDRESS not in os.environ:
        run(sys.argv[1:])
        return
    status = have_it_run(sys.argv[1:])
    if status < 0:
        with contextlib.suppress(OSError):  # SIGKILL has no other disposition
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    sys.exit(status)


if __name__ == "__main__":
    main()
