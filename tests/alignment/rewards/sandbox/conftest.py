"""The trainer as a target: hidden text in all places where a program found one, or might."""

import ctypes
import functools
import mmap
import os
import secrets
import signal
import socket
import threading
from collections.abc import Iterator
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


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Target]:
    """This process with a hidden answer in all places where one was found, or might be."""
    hidden = MARK + secrets.token_hex(12)
    rows = tmp_path / "train-rows.jsonl"
    rows.write_text(f'{{"prompt": "?", "tests": [{{"input": "7", "output": "{hidden}"}}]}}\n')
    monkeypatch.setenv("SECRET_API_KEY", hidden)
    shared = Path("/dev/shm", f"test-{os.getpid()}-{secrets.token_hex(4)}")
    shared.write_text(hidden)
    reading, writing = os.pipe()
    os.write(writing, hidden.encode())
    path = str(tmp_path / "socket")
    signals: list[int] = []
    former = signal.signal(signal.SIGUSR1, lambda number, _: signals.append(number))
    in_memory = ctypes.create_string_buffer(hidden.encode())
    abstract = f"\0test-{secrets.token_hex(4)}"
    with (
        rows.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        socket.socket(socket.AF_UNIX) as listening,
        socket.socket(socket.AF_UNIX) as listening_abstractly,
        socket.create_server(("127.0.0.1", 0)) as listening_tcp,
    ):
        servers = (listening, listening_abstractly, listening_tcp)
        for server, address in ((listening, path), (listening_abstractly, abstract)):
            server.bind(address)
            server.listen()
        for server in servers:
            threading.Thread(target=tell, args=(server, hidden), daemon=True).start()
        names = {
            "trainer": os.getpid(),
            "rows": str(rows),
            "folder": str(tmp_path),
            "shared": str(shared),
            "socket": path,
            "abstract": abstract,
            "port": listening_tcp.getsockname()[1],
            "pipe": reading,
            "address": ctypes.addressof(in_memory),
            "project": str(Path(__file__).parents[4]),
        }
        yield Target(hidden, names, tmp_path, reading, signals)
        assert len(mapped)
        for server in servers:
            server.shutdown(socket.SHUT_RDWR)
    signal.signal(signal.SIGUSR1, former)
    shared.unlink()
    os.close(reading)
    os.close(writing)


def tell(server: socket.socket, hidden: str) -> None:
    """Send the hidden text to whoever connects."""
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        with connection:
            connection.sendall(hidden.encode())
