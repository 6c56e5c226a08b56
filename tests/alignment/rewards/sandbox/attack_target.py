"""Target of attacks on the trainer: what is hidden and where, for the programs that look for it."""

import functools
import os
from pathlib import Path
from typing import NamedTuple

import pytest

from alignment.rewards.sandbox.runner import Sandbox, SandboxError

MARK = "hidden-"
"""What a hidden output begins with: the attacks know how tests of the data set look, as a policy would."""
MAY_TRACE = os.geteuid() == 0 and not Path("/proc/sys/kernel/yama").exists()


@functools.cache
def works(*layers: str) -> bool:
    """Whether this machine has layers of confinement: many containers lack namespaces, older kernels Landlock."""
    sandbox = Sandbox(layers)
    try:
        sandbox.run("")
    except SandboxError:
        return False
    sandbox.close()
    return True


def needs(*layers: str) -> None:
    """Skip the test where this machine has not got them."""
    for layer in layers:
        if not works(layer):
            pytest.skip(f"no {layer} on this machine")


class Target(NamedTuple):
    """What an attack can aim at: hidden text in memory, files, pipes, the environment."""

    hidden: str
    names: dict[str, object]
    folder: Path
    pipe: int
    signals: list[int]

    def aimed(self, program: str) -> str:
        """A program with what it aims at."""
        for name, value in (self.names | {"hidden": self.hidden}).items():
            program = program.replace(f"{{{name}!r}}", repr(value)).replace(f"{{{name}}}", str(value))
        return program
