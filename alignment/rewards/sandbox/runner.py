"""Sandbox of generated programs, seen from the trainer, which starts fork servers and hands them programs.

Files in memory carry what goes in and out, not pipes: the kernel bounds their size, no one waits for a reader, and a
program cannot take what is meant for another. A server does one program at a time; as many run at once as threads ask.
"""

import atexit
import json
import math
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from common.errors import InputError

ROOT = Path(__file__).parents[3]
START = "import sys; sys.path.insert(0, {root!r}); from alignment.rewards.sandbox.server import main; main()"
START_SECONDS, GRACE_SECONDS = 120.0, 60.0
"""How long a server may take to begin, and to answer after a program's time is up: more than on a busy machine."""
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""A library with threads of its own cannot be copied."""
KEPT = ("LD_LIBRARY_PATH",)
"""Variables without which some interpreters do not start; the server forgets them all."""


class SandboxError(RuntimeError):
    """A sandbox that does not begin, or ends while it runs a program."""


@dataclass(frozen=True)
class Limits:
    """Resource limits of one run.

    Args:
        cpu_seconds: processor time, in whole seconds; the load of the machine does not count. Tests have as much again.
        wall_seconds: time until it is killed whatever it did, also sleep; generous, so that load does not decide.
        megabytes: address space beyond what Python itself takes.
        output_kilobytes: standard output and standard error, each; writing more fails.

    Raises:
        InputError: for a limit that nothing can run within.
    """

    cpu_seconds: int = 3
    wall_seconds: float = 10.0
    megabytes: int = 256
    output_kilobytes: int = 64

    def __post_init__(self) -> None:
        if self.cpu_seconds < 1 or not 0 < self.wall_seconds < math.inf:
            raise InputError(
                f"limits: cpu_seconds={self.cpu_seconds}, wall_seconds={self.wall_seconds}: need at least a second of "
                "processor time, and a time until a run is killed"
            )
        if self.megabytes < 64 or self.output_kilobytes < 1:
            raise InputError(
                f"limits: megabytes={self.megabytes}, output_kilobytes={self.output_kilobytes}: need at least 64 and 1"
            )


@dataclass(frozen=True)
class Outcome:
    """Outcome of a run.

    Attributes:
        status: exit status, minus the signal's number where one ended it, None where `wall_seconds` did.
        passed: numbers of the tests that raised nothing.
        output, errors: standard output and standard error, as much as there may be.
    """

    status: int | None
    passed: frozenset[int]
    output: str
    errors: str


class _Server:
    """One fork server.

    Args:
        settings: what `server.main` reads.

    Raises:
        SandboxError: where it does not begin.
    """

    def __init__(self, settings: dict[str, object]) -> None:
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, _file() as errors:
            # The flags of -I, but for the environment, which is ours. Equal programs see equal hashes.
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-S", "-s", "-P", "-B", "-c", START.format(root=str(ROOT))),
                    *(str(theirs.fileno()), json.dumps(settings)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                pass_fds=[theirs.fileno()],
                cwd="/",
                env={"PYTHONHASHSEED": "0", **ONE_THREAD}
                | {name: os.environ[name] for name in KEPT if name in os.environ},
                start_new_session=True,
            )
            theirs.close()
            try:
                failure = self._receive(START_SECONDS)
            except (OSError, ValueError):
                failure = (_text(errors, 10_000).strip().splitlines() or ["it did not begin"])[-1]
        if failure is not None:
            self.close()
            raise SandboxError(failure)

    def run(self, limits: dict[str, float], files: Sequence[IO[bytes]]) -> int | None:
        """Run what is in the files.

        Raises:
            OSError, ValueError: where the server ended.
        """
        socket.send_fds(self.control, [json.dumps(limits).encode()], [file.fileno() for file in files])
        status: int | None = self._receive(limits["wall_seconds"] + GRACE_SECONDS)
        return status

    def _receive(self, seconds: float) -> Any:
        self.control.settimeout(seconds)
        return json.loads(self.control.recv(65536))

    def close(self) -> None:
        """End it and all that it started."""
        self.control.close()
        self.process.kill()
        self.process.wait()


class Sandbox:
    """Fork servers that are confined in one way, started when there is no idle one.

    Args:
        layers: how files are confined: of "namespaces" and "landlock"; none for not at all.
        packages: installed packages that programs may import.
    """

    def __init__(self, layers: Collection[str], packages: Collection[str] = ()) -> None:
        self.layers = tuple(layers)
        self.settings: dict[str, object] = {
            "layers": list(layers),
            "needs_filter": bool(layers),
            "packages": list(packages),
            "paths": [path for path in sys.path if path.endswith("-packages")] if packages else [],
        }
        self._lock = threading.Lock()
        self._idle: list[_Server] = []
        self._owner = os.getpid()
        atexit.register(self.close)

    def run(self, source: str, tests: Sequence[str] = (), input_text: str = "", limits: Limits = Limits()) -> Outcome:
        """Run a program, and statements after it, in confined processes.

        There is no environment. Hashes are those of PYTHONHASHSEED=0, so that a program that prints a set prints the
        same one again.

        Args:
            source: of the program; with tests its `__name__` is "solution", without "__main__".
            tests: statements that raise where the program is wrong. They run in a process beside the program's, in
                which what it defined can be called by its name.
            input_text: its standard input.
            limits: of the whole run.

        Raises:
            SandboxError: where no server begins, or two end while they run it.
        """
        try:
            return self._run(source, tests, input_text, limits)
        except (OSError, ValueError):  # a server ended, such as for want of memory
            pass
        try:
            return self._run(source, tests, input_text, limits)
        except (OSError, ValueError) as error:
            raise SandboxError(f"two sandboxes ended while they ran a program ({error})") from error

    def _run(self, source: str, tests: Sequence[str], input_text: str, limits: Limits) -> Outcome:
        output_bytes = limits.output_kilobytes * 1024
        bounds = {
            "cpu_seconds": limits.cpu_seconds,
            "wall_seconds": limits.wall_seconds,
            "bytes": limits.megabytes * 2**20,
            "output_bytes": output_bytes,
        }
        server = self._take()
        with ExitStack() as stack:
            texts = [source, input_text, "", "", *([json.dumps(list(tests)), ""] if tests else [])]
            files = [stack.enter_context(_file(text)) for text in texts]
            try:
                status = server.run(bounds, files)
            except BaseException:
                server.close()
                raise
            with self._lock:
                self._idle.append(server)
            output, errors = (_text(file, output_bytes) for file in files[2:4])
            lines = {*_text(files[5], output_bytes).splitlines()} if tests else set()
        return Outcome(status, frozenset(n for n in range(len(tests)) if str(n) in lines), output, errors)

    def _take(self) -> _Server:
        with self._lock:
            if self._owner != os.getpid():  # a copy of the trainer: these are its parent's
                for server in self._idle:
                    server.control.close()
                self._idle, self._owner = [], os.getpid()
            if self._idle:
                return self._idle.pop()
        return _Server(self.settings)

    def close(self) -> None:
        """End the idle servers."""
        with self._lock:
            if self._owner == os.getpid():
                for server in self._idle:
                    server.close()
            self._idle = []


def _file(text: str = "") -> IO[bytes]:
    file = os.fdopen(os.memfd_create("sandbox"), "w+b")
    if text:
        file.write(text.encode("utf-8", "surrogatepass"))
        file.seek(0)
    return file


def _text(file: IO[bytes], most: int) -> str:
    file.seek(0)
    return file.read(most).decode("utf-8", "replace")
