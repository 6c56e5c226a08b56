"""Probes: small hostile programs that prove of a sandbox, on this machine, that each class of attack is closed.

A list of what the kernel offers would be quicker to read; but kernels, containers and distributions turn things off in
too many ways, so each attack is tried, through the same confinement that every program gets. A probe that ends in any
other way than by being refused counts as open.
"""

import errno
import os
import secrets
import tempfile
import threading
from collections.abc import Collection
from pathlib import Path
from typing import Literal

from alignment.rewards.sandbox.runner import ROOT, Limits, Sandbox, SandboxError
from common.errors import InputError

Confinement = Literal["auto", "landlock", "namespaces", "none"]
LAYERS: dict[str, list[list[str]]] = {
    "auto": [["namespaces", "landlock"], ["landlock"], ["namespaces"]],
    "landlock": [["landlock"]],
    "namespaces": [["namespaces"]],
    "none": [[]],
}
"""By confinement: what is tried, until one is proven."""
ADVICE = (
    "run on Linux (x86-64 or 64-bit ARM) with seccomp and with Landlock (kernel 5.13, lsm=landlock) or user "
    "namespaces, or set confinement: none, under which a program can read whatever this account can"
)

PROBES = {
    "the trainer's memory": "open('/proc/{trainer}/mem', 'rb')",
    "the trainer's memory map": "open('/proc/{trainer}/maps').read()",
    "the trainer's environment": "open('/proc/{trainer}/environ').read()",
    "the trainer's descriptors": "os.listdir('/proc/{trainer}/fd')",
    "the trainer's command": "open('/proc/{trainer}/cmdline').read()",
    "its parent's memory": "open(f'/proc/{{os.getppid()}}/mem', 'rb')",
    "its own entry in /proc": "open('/proc/self/maps').read()",
    "the list of processes": "os.listdir('/proc')",
    "files of the user": "open({canary!r}).read()",
    "folders of the user": "os.listdir({folder!r})",
    "files of the project": "open({project!r}).read()",
    "modules of the project": "import alignment.rewards.base",
    "files of the system": "open('/etc/passwd').read()",
    "writing files": "open({canary!r}, 'a')",
    "creating files": "open({new!r}, 'x')",
    "shared memory": "open('/dev/shm/probe', 'w')",
    "deleting files": "os.remove({canary!r})",
    "links": "os.symlink({canary!r}, 'link')",
    "starting processes": "os.fork()",
    "running commands": "os.execv('/bin/sh', ['sh', '-c', 'echo open'])",
    "starting threads": "import _thread; _thread.start_new_thread(print, ())",
    "signals": "os.kill({trainer}, 0)",
    "signals to its parent": "os.kill(os.getppid(), 0)",
    "tracing": "call(libc.ptrace(16, {trainer}, 0, 0))",
    "reading other processes": "call(libc.process_vm_readv({trainer}, buffer, 1, buffer, 1, 0))",
    "taking descriptors": "call(libc.syscall(438, libc.syscall(434, {trainer}, 0), 0, 0))",
    "network": "socket.socket()",
    "UNIX sockets": "socket.socket(socket.AF_UNIX)",
    "new namespaces": "call(libc.unshare(0x10000000))",
    "mounting": "call(libc.mount(b'none', {folder!r}.encode(), b'no such type', 0, None), {unknown_type})",
    "inherited descriptors": "[os.fstat(number) for number in range(3, 64) if readable(number)][0]",
    "its environment": "list(os.environ)[0]",
    "more memory": "bytearray({memory})",
    "more output": "sys.stderr.write('x' * {output}); sys.stderr.flush()",
    "more open files": "[os.dup(1) for _ in range(100)]",
    "raising its limits": "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (99, 99))",
}
"""Class of attack to a statement that raises where it is closed."""
PROGRAM = """
import ctypes, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
buffer = ctypes.create_string_buffer(64)
def call(result, allowed=None):
    if result == -1 and ctypes.get_errno() != allowed:
        raise OSError
def readable(number):
    try:
        os.fstat(number)
    except OSError:
        return False
    return True
try:
    exec({statement!r})
except (OSError, MemoryError, ImportError, RuntimeError, IndexError, ValueError) as error:
    print("closed")
else:
    print("open")
"""


def probe_programs(folder: str, trainer: int, limits: Limits) -> dict[str, str]:
    """Class of attack to a program that prints "closed" where it is.

    Args:
        folder: that there may be files in, one of which it could read.
        trainer: number of the process to aim at.
        limits: that hold for it.
    """
    canary = Path(folder, "canary")
    canary.write_text(secrets.token_hex())
    names = {
        "trainer": trainer,
        "folder": folder,
        "canary": str(canary),
        "new": str(Path(folder, "new")),
        "project": str(ROOT / "README.md"),
        "unknown_type": errno.ENODEV,  # what a process that may mount gets, and nothing is mounted
        "memory": 2 * limits.megabytes * 2**20,
        "output": 2 * limits.output_kilobytes * 1024,
    }
    return {attack: PROGRAM.format(statement=probe.format(**names)) for attack, probe in PROBES.items()}


def open_attacks(sandbox: Sandbox) -> list[str]:
    """Classes of attack that are not closed.

    Raises:
        SandboxError: where programs cannot be run at all.
    """
    limits = Limits(megabytes=64)
    right = sandbox.run("print(input())", input_text="right", limits=limits)
    if right.output != "right\n":
        raise SandboxError((right.errors.strip().splitlines() or [f"a program ended with status {right.status}"])[-1])
    if sandbox.run("def f(x): return [x]", ["assert f(1) == [1]", "assert f(1) == 1"], limits=limits).passed != {0}:
        raise SandboxError("tests of a right program did not pass")
    with tempfile.TemporaryDirectory(prefix="probe-") as folder:
        programs = probe_programs(folder, os.getpid(), limits)
        return [attack for attack, text in programs.items() if sandbox.run(text, limits=limits).output != "closed\n"]


_proven: dict[tuple[str, tuple[str, ...], int], Sandbox] = {}
_lock = threading.Lock()


def proven_sandbox(confinement: Confinement = "auto", packages: Collection[str] = ()) -> Sandbox:
    """A sandbox of this process that is proven to be confined; the same one for the same arguments.

    Args:
        confinement: `auto` takes namespaces and Landlock together, or the one that works; `none` proves nothing.
        packages: installed packages that programs may import.

    Raises:
        InputError: where none can be proven.
    """
    key = (confinement, tuple(packages), os.getpid())
    with _lock:
        if key not in _proven:
            _proven[key] = _prove(confinement, packages)
        return _proven[key]


def _prove(confinement: Confinement, packages: Collection[str]) -> Sandbox:
    reasons = []
    for layers in LAYERS[confinement]:
        sandbox = Sandbox(layers, packages)
        try:
            if not layers:
                sandbox.run("")
                return sandbox
            if not (found := open_attacks(sandbox)):
                return sandbox
            reasons.append(f"{' and '.join(layers)}: open are {', '.join(found)}")
        except (OSError, SandboxError) as error:
            reasons.append(f"{' and '.join(layers)}: {error}")
        sandbox.close()
    raise InputError(f"programs cannot be confined on this machine ({'; '.join(reasons):.400}): {ADVICE}")
