"""Target of attacks on the trainer: what is hidden and where, for the programs that look for it."""

import os
from pathlib import Path
from typing import NamedTuple

MARK = "hidden-"
"""What a hidden output begins with: the attacks know how tests of the data set look, as a policy would."""
MAY_TRACE = os.geteuid() == 0 and not Path("/proc/sys/kernel/yama").exists()


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
