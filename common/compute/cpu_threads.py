"""OpenMP threads on shared cores: how many there are, and how long one spins before it sleeps.

A thread that spins for the next parallel region is quick where cores are idle, and in the way where another process
wants them; one that sleeps is the reverse. GNU OpenMP reads its policy once, but cuts the spin to 100 rounds while it
manages more threads than there are cores. So `SpinWatch` looks at how long this process's threads have waited for a
core, and holds a sleeping team of extra threads while that is much. The training threads, and so all sums, stay as they
are. Imports no PyTorch: `thread_settings` comes before it. A policy in the environment switches the watch off.
"""

import ctypes
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path

SPINS = "10000"
"""Rounds before a thread sleeps, about a quarter of a millisecond: longer than most pauses between two regions of a
training step. Without it 300,000, which block another process on the core for ten milliseconds."""

CONTENDED, FREE = 0.05, 0.02
"""Seconds that threads wait for a core, in a second: above the first sleep at once, below the second spin again."""

PERIOD, CALM_PERIODS = 0.25, 4
"""Seconds between two looks, and how many calm ones in a row end the sleep."""

OURS = "DEFAULT_OMP_NUM_THREADS"
"""Variable that tells a spawned process that its OMP_NUM_THREADS is no user's."""


def quota_cores(root: Path = Path("/sys/fs/cgroup"), groups: Path = Path("/proc/self/cgroup")) -> float | None:
    """Cores that the control groups of this process (version 1 or 2) may use on average; None where none limits it.

    Args:
        root: where control groups are mounted.
        groups: the process's own, a line each.
    """
    try:
        lines = groups.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        for mounted in [root / "cpu", root / "cpu,cpuacct"] if controllers else [root, root / "unified"]:
            folder = mounted / path.lstrip("/")
            # A parent's limit holds too. In a container the path may be the host's: what is mounted is then its own.
            for place in [folder, *folder.parents]:
                if not place.is_relative_to(mounted):
                    break
                cores = _quota(place)
                if cores is not None:
                    found.append(cores)
    return min(found, default=None)


def _quota(folder: Path) -> float | None:
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
        else:
            quota, period = (
                (folder / f"cpu.cfs_{name}_us").read_text(encoding="utf-8").strip() for name in ("quota", "period")
            )
        return None if quota in ("max", "-1") else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def available_cores() -> int:
    """Cores that this process may use: of those it may run on, not more than its control groups' quota, rounded down
    because a thread above the quota stops all others; at least 1.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = quota_cores()
    return cores if quota is None else max(1, min(cores, int(quota)))


def thread_settings(environment: Mapping[str, str], processes: int = 1) -> dict[str, str]:
    """Variables to set before PyTorch is loaded, without those that the user has set.

    Args:
        environment: as it is.
        processes: that share the cores.
    """
    settings = {}
    if "OMP_WAIT_POLICY" not in environment and "GOMP_SPINCOUNT" not in environment:
        settings["GOMP_SPINCOUNT"] = SPINS
    if "OMP_NUM_THREADS" not in environment:
        threads = str(max(1, available_cores() // processes))
        settings |= {"OMP_NUM_THREADS": threads, OURS: threads}
    return settings


def threads_each(processes: int) -> int | None:
    """Threads for each of several processes on this machine; None where the user has chosen their number."""
    chosen = os.environ.get("OMP_NUM_THREADS")
    if chosen is not None and chosen != os.environ.get(OURS):
        return None
    return max(1, available_cores() // processes)


def seconds_waited() -> float | None:
    """How long this process's threads have been ready to run without a core, together; None where the system does not
    tell.
    """
    total, threads = 0, 0
    try:
        names = os.listdir("/proc/self/task")
    except OSError:
        return None
    for name in names:
        try:
            with open(f"/proc/self/task/{name}/schedstat", "rb") as file:
                total += int(file.read().split()[1])
            threads += 1
        except (OSError, IndexError, ValueError):
            continue  # a thread that has just ended
    return total / 1e9 if threads else None


def gnu_openmp() -> ctypes.CDLL | None:
    """The GNU OpenMP that PyTorch has loaded; None where it has another."""
    try:
        with open("/proc/self/maps", encoding="utf-8") as file:
            paths = {line.split(maxsplit=5)[-1].strip() for line in file if "libgomp" in line}
    except OSError:
        return None
    # SentencePiece and others bring one of their own, which has no part in PyTorch's threads.
    mine = [path for path in paths if f"{os.sep}torch{os.sep}" in path]
    return ctypes.CDLL(mine[0]) if len(mine) == 1 else None


class SleepingTeam:
    """Threads that GNU OpenMP manages and that do nothing: while they exist, all others sleep soon.

    Args:
        openmp: see `gnu_openmp`.
        threads: how many, the one that makes the team among them.
    """

    def __init__(self, openmp: ctypes.CDLL, threads: int) -> None:
        self._end, made = threading.Event(), threading.Event()

        def hold() -> None:
            # free(NULL) does nothing: a region without work, and without Python in it.
            openmp.GOMP_parallel(ctypes.CDLL(None).free, None, threads, 0)
            made.set()
            self._end.wait()

        self._thread = threading.Thread(target=hold, daemon=True, name="sleeping-team")
        self._thread.start()
        made.wait()

    def end(self) -> None:
        """The team goes with the thread that made it."""
        self._end.set()
        self._thread.join()


class SpinWatch:
    """Lets OpenMP's threads spin where cores are free and sleep where they are wanted.

    Args:
        openmp: see `gnu_openmp`.
        threads: of a team that computes.
    """

    def __init__(self, openmp: ctypes.CDLL, threads: int) -> None:
        self.openmp, self.threads = openmp, threads
        self.team: SleepingTeam | None = None
        self._calm = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="spin-watch")
        self._thread.start()

    def _watch(self) -> None:
        waited, then = seconds_waited(), time.monotonic()
        while not self._end.wait(PERIOD):
            now_waited, now = seconds_waited(), time.monotonic()
            if waited is None or now_waited is None:
                return
            # A thread that ended takes its time with it.
            self.look(max(0.0, now_waited - waited) / (now - then))
            waited, then = now_waited, now

    def look(self, share: float) -> None:
        """Decide by the seconds waited in a second."""
        self._calm = self._calm + 1 if share < FREE else 0
        if self.team is None and share > CONTENDED:
            # GNU OpenMP counts the cores that the process may run on, whatever the quota.
            cores = len(os.sched_getaffinity(0))
            self.team = SleepingTeam(self.openmp, max(2, cores - self.threads + 2))
        elif self.team is not None and self._calm >= CALM_PERIODS:
            self.team.end()
            self.team = None

    def end(self) -> None:
        """Look no more, and spin as at first."""
        self._end.set()
        self._thread.join()
        if self.team is not None:
            self.team.end()
            self.team = None


_watch: tuple[int, SpinWatch] | None = None


def watch_spin(threads: int) -> SpinWatch | None:
    """Begin to watch, once per process, or end it where one thread computes: it waits for none.

    Args:
        threads: of a team that computes.
    """
    global _watch
    if _watch is not None and _watch[0] == os.getpid():
        if _watch[1].threads == threads:
            return _watch[1]
        _watch[1].end()
    # A forked process has the variable and not the thread.
    _watch = None
    chosen = "OMP_WAIT_POLICY" in os.environ or os.environ.get("GOMP_SPINCOUNT", SPINS) != SPINS
    openmp = None if chosen or threads == 1 or seconds_waited() is None else gnu_openmp()
    if openmp is not None:
        _watch = os.getpid(), SpinWatch(openmp, threads)
    return None if _watch is None else _watch[1]
