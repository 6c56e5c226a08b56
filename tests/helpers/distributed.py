"""Runs functions and commands in warm processes: forked from a server that has everything imported.

A layout's test costs what its steps cost; a new interpreter would cost seven seconds each time on top.
"""

import multiprocessing
import multiprocessing.forkserver
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.helpers.warm_main import ADDRESS

ROOT = Path(__file__).parents[2]
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.helpers.preload"])
_SERVER: Any = multiprocessing.forkserver._forkserver  # type: ignore[attr-defined]
WARM_MAIN = ROOT / "tests/helpers/warm_main.py"


def share_fork_server() -> None:
    """Start the fork server in the process that starts the workers: what it imports, it imports once for all.

    What its children print would stand between the dots; what they raise comes back by their pipes.
    """
    streams = {stream: os.dup(stream) for stream in (1, 2)}
    with open(os.devnull, "wb") as nowhere:
        for stream in streams:
            os.dup2(nowhere.fileno(), stream)
        try:
            _SERVER.ensure_running()
        finally:
            for stream, kept in streams.items():
                os.dup2(kept, stream)
                os.close(kept)
    os.environ[ADDRESS] = _SERVER._forkserver_address


if ADDRESS in os.environ:
    _SERVER._forkserver_address = os.environ[ADDRESS]
    # Forked processes end with the one that holds the other end of this pipe: a worker, or the stand-in for a command.
    _SERVER._forkserver_alive_fd = os.pipe()[1]
    _SERVER.ensure_running = lambda: None


def warm_program() -> list[str]:
    """What starts a command in place of `[sys.executable, "main.py"]`, in a fraction of the time: see `warm_main`."""
    if ADDRESS not in os.environ:
        _SERVER.ensure_running()
        os.environ[ADDRESS] = _SERVER._forkserver_address
    return [sys.executable, str(WARM_MAIN)]


def _work(rank: int, world: int, port: int, sender: Connection, function: Callable[..., Any], arguments: Any) -> None:
    import torch

    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "LOCAL_RANK": str(rank),
        "RANK": str(rank),
        "WORLD_SIZE": str(world),
        "NODE_RANK": "0",
    }
    torch.set_num_threads(1)
    try:
        sender.send((True, function(*arguments)))
    except BaseException as error:
        sender.send((False, f"rank {rank}: {error!r}\n{traceback.format_exc()}"))
    finally:
        sender.close()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def run_ranks(world: int, function: Callable[..., Any], *arguments: Any, timeout: float = 120) -> list[Any]:
    """What `function(*arguments)` returns on each of `world` ranks.

    Raises:
        AssertionError: with the tracebacks of the ranks that failed, or when one takes longer than `timeout`.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    pairs = [CONTEXT.Pipe(duplex=False) for _ in range(world)]
    processes = [
        CONTEXT.Process(target=_work, args=(rank, world, port, pairs[rank][1], function, arguments))
        for rank in range(world)
    ]
    for process in processes:
        process.start()
    for _, sender in pairs:
        sender.close()
    results: list[Any] = []
    failures: list[str] = []
    try:
        for rank, (receiver, _) in enumerate(pairs):
            # Where one rank fails, what the others say of it comes soon or never.
            if not receiver.poll(5 if failures else timeout):
                failures.append(f"rank {rank} of {world} is silent")
                continue
            try:
                fine, result = receiver.recv()
            except EOFError:
                fine, result = False, f"rank {rank} died"
            (results if fine else failures).append(result)
        assert not failures, "\n".join(failures)
    finally:
        for process in processes:
            process.join(timeout=2 if len(results) < world else timeout)
            if process.is_alive():
                process.kill()
    return results


class Command:
    """`python main.py ARGUMENTS` in a process of its own, which signals reach as they would reach a user's.

    Args:
        folder: where its output is kept.
        arguments: of the command line.
        fresh_ranks: whether further ranks are new interpreters, as a user's are, or warm processes too.
    """

    def __init__(self, folder: Path, *arguments: str | Path, fresh_ranks: bool = False) -> None:
        program = ROOT / "main.py" if fresh_ranks else Path(warm_program()[1])
        self._begin(folder, _command, [str(program), *map(str, arguments)], os.environ.get(ADDRESS))

    def _begin(self, folder: Path, function: Callable[..., Any], *arguments: Any) -> None:
        self._files = [folder / f"output-{len(list(folder.glob('output-*')))}-{name}" for name in ("out", "err")]
        for file in self._files:
            file.touch()
        self._process = CONTEXT.Process(target=_redirected, args=(self._files, function, *arguments))
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    def poll(self) -> int | None:
        """Exit status, or None while it runs; minus the signal's number where one ended it."""
        return self._process.exitcode

    @property
    def returncode(self) -> int | None:
        """See `poll`."""
        return self._process.exitcode

    def communicate(self, timeout: float = 120) -> tuple[str, str]:
        """Standard output and standard error, once it has ended."""
        self._process.join(timeout)
        output, errors = (file.read_text(encoding="utf-8") for file in self._files)
        assert self._process.exitcode is not None, f"still running after {timeout} s: {errors}"
        return output, errors

    def output(self) -> str:
        """Standard output so far."""
        return self._files[0].read_text(encoding="utf-8")

    def kill(self) -> None:
        """Send SIGKILL."""
        os.kill(self.pid, signal.SIGKILL)


def forked(folder: Path, function: Callable[..., Any], *arguments: Any) -> Command:
    """`function(*arguments)` in a process like a command's."""
    process = Command.__new__(Command)
    process._begin(folder, function, *arguments)
    return process


def wait_for(path: Path) -> None:
    """Return when a file or folder is there."""
    deadline = time.monotonic() + 100
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} does not come"
        time.sleep(0.005)


def _redirected(files: list[Path], function: Callable[..., Any], *arguments: Any) -> None:
    for number, file in enumerate(files, start=1):
        os.dup2(os.open(file, os.O_WRONLY), number)
    os.chdir(ROOT)
    # A fork server's children would have fork servers of their own, which no user's process has.
    multiprocessing.set_start_method("fork", force=True)
    function(*arguments)


def _command(words: list[str], address: str | None) -> None:
    from main import main

    sys.argv = words
    if address is not None:
        os.environ[ADDRESS] = address
    main()
