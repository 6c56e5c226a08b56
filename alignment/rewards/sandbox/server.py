"""Fork server of the sandbox: a confined process that starts one process for each program, and one for its tests.

A new interpreter for each program takes ten times as long as a copy of one that has begun, and confining files again
for each takes as long again; so both are done once, by a process that never sees a program or a test. It gets
descriptors of files and hands them to the copies, which read them when they have given up the rest: nothing of a run is
in the memory that the next one is copied from.
"""

import contextlib
import fcntl
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from alignment.rewards.sandbox import kernel_calls, landlock, namespaces, seccomp
from alignment.rewards.sandbox.program import exit_status, run_as_main, serve
from alignment.rewards.sandbox.statements import run_tests

PRELOADED = [
    "array", "bisect", "bz2", "calendar", "cmath", "collections", "contextlib", "copy", "ctypes", "dataclasses",
    "datetime", "decimal", "difflib", "enum", "fractions", "functools", "hashlib", "heapq", "hmac", "inspect", "io",
    "itertools", "json", "linecache", "lzma", "math", "numbers", "operator", "pprint", "queue", "random", "re",
    "secrets", "sqlite3", "statistics", "string", "struct", "tempfile", "textwrap", "threading", "time", "traceback",
    "types", "typing", "unicodedata", "unittest", "uuid", "xml.etree.ElementTree", "zlib", "zoneinfo",
]  # fmt: skip
"""Modules that programs often import, and those that need a shared library from outside Python's own folders: what is
loaded here is there for every program, and needs no file to be readable."""
NOT_STANDARD = ("site-packages", "dist-packages")
DEVICES_AND_TIME_ZONES = ("/dev/null", "/dev/urandom", "/usr/share/zoneinfo")
ABOVE_ALL = 64
"""Descriptors of a copy are below, those that it brings with it can be put above."""


def standard_library() -> list[str]:
    """Folders of Python's own modules; `-S` keeps those of installed packages off the path."""
    return [path for path in sys.path if os.path.isdir(path)]


def load(packages: Collection[str]) -> list[str]:
    """Import what programs may use, and give the folders of the installed packages among it.

    Raises:
        ImportError: for a package that is not there.
    """
    for name in PRELOADED:
        try:
            importlib.import_module(name)
        except ImportError:  # a Python that was built without it
            continue
    folders = []
    for name in packages:
        module = importlib.import_module(name)
        for folder in getattr(module, "__path__", []):
            # Wheels keep the shared libraries of a package beside it.
            folders += [path for path in (folder, f"{folder}.libs") if os.path.isdir(path)]
    return folders


def confine_files(layers: Collection[str], packages: Collection[str]) -> None:
    """Leave this process, and all that it will start, Python's own files.

    Args:
        layers: of "namespaces" and "landlock", those to use.
        packages: folders of packages that may be read too.

    Raises:
        OSError: where the kernel does not do it.
    """
    library = standard_library()
    rest = [path for path in DEVICES_AND_TIME_ZONES if os.path.exists(path)] + list(packages)
    if "namespaces" in layers:
        hidden = [os.path.join(folder, name) for folder in library for name in NOT_STANDARD]
        outer = [folder for folder in library if not any(folder.startswith(f"{other}/") for other in library)]
        # Packages come after what hides their folder.
        namespaces.enter(outer + rest, hidden)
    kernel_calls.drop_privileges()
    if "landlock" in layers:
        modules = [
            os.path.join(folder, name) for folder in library for name in os.listdir(folder) if name not in NOT_STANDARD
        ]
        landlock.restrict_to_reading([path for path in modules if os.path.exists(path)] + rest, library)


class Child(NamedTuple):
    """A copy of this process that runs a program or tests: its number, and a descriptor that says when it ends."""

    process: int
    ended: int

    def status(self) -> int:
        """End it unless it has ended; its exit status, or minus the number of the signal that ended it."""
        signal.pidfd_send_signal(self.ended, signal.SIGKILL)
        os.close(self.ended)
        return os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])


class Server:
    """The loop that starts copies.

    Args:
        control: socket on which requests come, each with its descriptors.
        layers: how files are confined.
        needs_filter: whether a copy that cannot give up system calls ends instead.
        packages: names of packages that programs may import.
        base_bytes: address space of this process, which comes on top of what a program may use.
    """

    def __init__(
        self,
        control: socket.socket,
        layers: Collection[str],
        needs_filter: bool,
        packages: Collection[str],
        base_bytes: int,
    ) -> None:
        self.control, self.layers, self.needs_filter = control, layers, needs_filter
        self.packages, self.base_bytes = packages, base_bytes

    def loop(self) -> None:
        """Answer requests until the socket is closed."""
        while True:
            request, descriptors, _, _ = socket.recv_fds(self.control, 4096, 8)
            if not request:
                return
            status = self.run(json.loads(request), descriptors)
            for descriptor in descriptors:
                os.close(descriptor)
            self.control.send(json.dumps(status).encode())

    def run(self, limits: Mapping[str, float], descriptors: Sequence[int]) -> int | None:
        """Run a program, and its tests where there are any.

        Args:
            limits: `cpu_seconds`, `wall_seconds`, `bytes`, `output_bytes`.
            descriptors: files of the program, its input, output and errors, and of the tests and their report.

        Returns:
            Exit status of the program; None where time was up.
        """
        program, given, output, errors, *of_tests = descriptors
        deadline = time.monotonic() + limits["wall_seconds"]
        if not of_tests:
            children = [self.start([given, output, errors, program], limits, lambda: run_as_main(_text(3)))]
        else:
            # Each end is in one copy alone, so that it is closed when that ends.
            requests, replies = os.pipe(), os.pipe()
            children = [
                self.start(
                    [given, output, errors, program, requests[0], replies[1]], limits, lambda: serve(_text(3), 4, 5)
                ),
                self.start(
                    [0, 1, 1, of_tests[0], replies[0], requests[1], of_tests[1]],
                    limits,
                    lambda: run_tests(json.loads(_text(3)), self.packages, 4, 5, 6),
                ),
            ]
            for descriptor in (*requests, *replies):
                os.close(descriptor)
        in_time = self.wait(children[-1], deadline)
        if in_time and of_tests:
            # Without its tests the program ends by itself, with all that it has printed.
            self.wait(children[0], min(deadline, time.monotonic() + 0.1))
        statuses = [child.status() for child in children]
        return statuses[0] if in_time else None

    def wait(self, child: Child, deadline: float) -> bool:
        """Wait until a copy ends; whether it did in time."""
        events = select.poll()
        events.register(child.ended, select.POLLIN)
        events.register(self.control, select.POLLIN)
        ready = {descriptor for descriptor, _ in events.poll(max(0.0, deadline - time.monotonic()) * 1000)}
        if self.control.fileno() in ready:  # no one sends a request before the last is answered: the trainer is gone
            raise SystemExit
        return child.ended in ready

    def start(self, descriptors: Sequence[int], limits: Mapping[str, float], body: Callable[[], object]) -> Child:
        """Start a copy that has these descriptors, from 0, gives up the rest and runs a function."""
        process = os.fork()
        if process:
            return Child(process, os.pidfd_open(process))
        status = 1
        try:
            take_descriptors(descriptors)
            sys.argv[:] = ["program"]
            self.confine(limits)
            body()
            status = 0
        except SystemExit as error:
            status = exit_status(error.code)
        except BaseException as error:
            sys.excepthook(type(error), error, error.__traceback__)
        finally:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(Exception):
                    stream.flush()
            os._exit(status)

    def confine(self, limits: Mapping[str, float]) -> None:
        """Give up what a program does not need to compute; there is no way back."""
        kernel_calls.end_with_parent()
        kernel_calls.hide_from_other_processes()
        kernel_calls.limit_resources(
            int(limits["cpu_seconds"]), self.base_bytes + int(limits["bytes"]), int(limits["output_bytes"])
        )
        if "landlock" in self.layers:
            landlock.restrict_to_itself()
        if self.needs_filter:
            seccomp.install_filter()
            return
        with contextlib.suppress(OSError, KeyError):
            seccomp.install_filter()


def take_descriptors(descriptors: Sequence[int]) -> None:
    """Make descriptors 0, 1, 2 and so on, close every other one, and open Python's streams again, as it begins."""
    above = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, ABOVE_ALL) for descriptor in descriptors]
    for number, descriptor in enumerate(above):
        os.dup2(descriptor, number)
    os.closerange(len(above), 4 * ABOVE_ALL)
    shared: dict[str, Any] = {"encoding": "utf-8", "newline": "\n", "closefd": False}
    streams = {
        "stdin": open(0, errors="surrogateescape", **shared),  # noqa: SIM115
        "stdout": open(1, "w", errors="surrogateescape", **shared),  # noqa: SIM115
        "stderr": open(2, "w", buffering=1, errors="backslashreplace", **shared),  # noqa: SIM115
    }
    for name, stream in streams.items():
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _text(descriptor: int) -> str:
    with open(descriptor, encoding="utf-8", errors="surrogatepass", newline="") as file:
        return file.read()


def main() -> None:
    """Confine this process as the arguments say, tell the trainer, and serve it."""
    control = socket.socket(fileno=int(sys.argv[1]))
    settings = json.loads(sys.argv[2])
    library = sys.path[1:]  # without the project, which is first
    for name in [name for name in sys.modules if name.split(".")[0] in ("alignment", "common")]:
        del sys.modules[name]
    try:
        sys.path[:] = library + settings["paths"]
        folders = load(settings["packages"])
        sys.path[:] = library
        with open("/proc/self/statm") as file:
            base_bytes = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")  # where memory runs out, it is a program that ends, not the trainer
        if settings["needs_filter"] and (machine := os.uname().machine) not in seccomp.NUMBERS:
            raise OSError(f"no list of system calls for {machine}")
        confine_files(settings["layers"], folders)
    except Exception as error:
        control.send(json.dumps(f"{error}" or type(error).__name__).encode())
        return
    os.chdir("/")
    os.environ.clear()
    control.send(b"null")
    gc.collect()
    gc.freeze()
    Server(control, settings["layers"], settings["needs_filter"], settings["packages"], base_bytes).loop()
