"""Process launcher: starts the ranks of a machine and ends them together.

Lightning's launcher looks at its children every five seconds and reports a process id; here the first to die is named
by rank and cause within a second, and a child whose parent is gone does not wait in a collective for ever.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import torch
from lightning.fabric.plugins import ClusterEnvironment
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher

from common.compute.cpu_threads import threads_each, watch_spin

POLL_SECONDS = 0.5
"""How often processes look whether the others live."""


class Launcher(_SubprocessScriptLauncher):
    """Runs the same command once for every further rank of this machine, after a last look at the configuration.

    Args:
        cluster_environment: gives addresses and ranks.
        num_processes: processes on this machine.
        num_nodes: machines.
        preflight: raises when the layout cannot work; called before any process is started.
    """

    def __init__(
        self,
        cluster_environment: ClusterEnvironment,
        num_processes: int,
        num_nodes: int,
        preflight: Callable[[Any], None],
    ) -> None:
        super().__init__(cluster_environment, num_processes, num_nodes)
        self.preflight = preflight
        self._finished = False
        self._misfortune: Callable[[], str | None] = lambda: None

    def launch(self, function: Callable[..., Any], *args: Any, trainer: Any = None, **kwargs: Any) -> Any:
        """Start the children and call `function` in this process too."""
        if not self.cluster_environment.creates_processes_externally:
            self.preflight(trainer)
            self.cluster_environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
            if self.num_processes == 1:
                return function(*args, **kwargs)
            first_rank = self.cluster_environment.node_rank() * self.num_processes
            self._misfortune = lambda: self._dead_child(first_rank)
            os.environ["LAUNCHER_PID"] = str(os.getpid())
            self._call_children_scripts()
            # Lightning leaves its variables behind, and a second run in this process takes itself for a child.
            del os.environ["LAUNCHER_PID"]
            self._watch()
        elif "LAUNCHER_PID" in os.environ:
            parent = int(os.environ["LAUNCHER_PID"])
            self._misfortune = lambda: "rank 0 of this machine is gone" if os.getppid() != parent else None
            self._watch()
        threads = threads_each(self.num_processes)
        if threads is not None:
            torch.set_num_threads(threads)
        watch_spin(torch.get_num_threads())
        try:
            return function(*args, **kwargs)
        except RuntimeError as error:
            # A collective fails at once where a rank has died, and says only which address is gone.
            time.sleep(2 * POLL_SECONDS)
            message = self._misfortune()
            if message is None:
                raise
            raise RuntimeError(f"{message}: ending all ranks, run the same command again to continue") from error
        finally:
            self._finished = True

    def _dead_child(self, first_rank: int) -> str | None:
        for local_rank, process in enumerate(self.procs, start=1):
            status = process.poll()
            if status:
                cause = f"killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
                for other in self.procs:
                    other.kill()
                return f"rank {first_rank + local_rank} (process {process.pid}) was {cause}"
        return None

    def _watch(self) -> None:
        """End this process with status 1 when another has died: a collective may wait for it for ever."""

        def look() -> None:
            while not self._finished:
                time.sleep(POLL_SECONDS)
                message = self._misfortune()
                if message is not None and not self._finished:
                    # This process may be on the way to its end with the same message or a better one of its own.
                    time.sleep(4 * POLL_SECONDS)
                    if not self._finished:
                        print(
                            f"error: {message}: ending all ranks, run the same command again to continue",
                            file=sys.stderr,
                        )
                        sys.stderr.flush()
                        os._exit(1)

        threading.Thread(target=look, daemon=True, name="watch").start()
