"""Programs that look for hidden tests: each through the reward, each with something that it could find."""

import os
import re
import subprocess
import sys

import pytest

from alignment import CodeTests, Limits
from alignment.rewards.base import Response
from alignment.rewards.sandbox.probes import proven_sandbox
from tests.alignment.rewards.sandbox.attack_target import MARK, MAY_TRACE, Target, works

LIMITS = Limits(cpu_seconds=1, wall_seconds=20)
FIND = """
import ctypes, os, re, socket, sys
def find(text):
    text = text if isinstance(text, bytes) else text.encode()
    for found in re.findall(rb"hidden-[0-9a-f]{24}", text):
        print(found.decode())
        raise SystemExit
def read(path):
    with open(path, "rb") as file:
        find(file.read())
"""
READS = {
    "memory of the trainer": """
for line in open("/proc/{trainer}/maps"):
    first, last = (int(x, 16) for x in line.split()[0].split("-"))
    if "rw" in line.split()[1] and last - first < 2**28:
        with open("/proc/{trainer}/mem", "rb", 0) as file:
            file.seek(first)
            try: find(file.read(last - first))
            except OSError: pass
""",
    "one address of the trainer": """
with open("/proc/{trainer}/mem", "rb", 0) as file:
    file.seek({address})
    find(file.read(64))
""",
    "memory by its parent's number": """
parent = os.getppid()
for line in open(f"/proc/{parent}/maps"):
    if line.rstrip().endswith(".jsonl"):
        read(line.split()[-1])
""",
    "files that the trainer has mapped": """
for line in open("/proc/{trainer}/maps"):
    if line.rstrip().endswith("-rows.jsonl"):
        read(line.split()[-1])
""",
    "mapped files by /proc": """
for name in os.listdir("/proc/{trainer}/map_files"):
    if "-rows" in os.readlink("/proc/{trainer}/map_files/" + name): read("/proc/{trainer}/map_files/" + name)
""",
    "environment of the trainer": "if open('/proc/{trainer}/environ').read(): find({hidden!r})",
    "environment of all processes": """
for number in os.listdir("/proc"):
    try: open(f"/proc/{number}/environ").read() and find({hidden!r})
    except OSError: pass
""",
    "its own environment": "find(repr(dict(os.environ)))",
    "a pipe of the trainer": "find(os.read(os.open('/proc/{trainer}/fd/{pipe}', os.O_NONBLOCK), 100))",
    "all descriptors of the trainer": """
for number in os.listdir("/proc/{trainer}/fd"):
    try: find(os.read(os.open("/proc/{trainer}/fd/" + number, os.O_NONBLOCK), 10**6))
    except OSError: pass
""",
    "by the trainer's root": "read('/proc/{trainer}/root{rows}')",
    "by the trainer's folder": "read('/proc/{trainer}/cwd/../../../../../../..{rows}')",
    "inherited descriptors": """
for number in range(3, 256):
    try:
        os.lseek(number, 0, 0)
        find(os.read(number, 10**6))
    except OSError: pass
""",
    "its own descriptors": """
for number in os.listdir("/proc/self/fd"):
    try: read("/proc/self/fd/" + number)
    except OSError: pass
""",
    "the data": "read({rows!r})",
    "all files of a folder": """
for folder, _, names in os.walk({folder!r}):
    for name in sorted(names):
        if name.endswith(".jsonl"): read(os.path.join(folder, name))
""",
    "a way out of Python's folder": "read(os.path.dirname(os.__file__) + '/../../../../../../../..' + {rows!r})",
    "a link": "os.symlink({rows!r}, 'link')\nread('link')",
    "a link in shared memory": """
os.symlink({rows!r}, {shared!r} + "-link")
try: read({shared!r} + "-link")
finally: os.remove({shared!r} + "-link")
""",
    "a hard link": "os.link({rows!r}, {folder!r} + '/hard')\nread({folder!r} + '/hard')",
    "shared memory": "read({shared!r})",
    "a path descriptor": "read('/proc/self/fd/%d' % os.open({rows!r}, os.O_PATH))",
    "openat2": """
libc = ctypes.CDLL(None)
how = (ctypes.c_uint64 * 3)(0, 0, 0)
number = libc.syscall(437, -100, {rows!r}.encode(), how, 24)
find(os.read(number, 1000))
""",
    "process_vm_readv": """
libc = ctypes.CDLL(None, use_errno=True)
class Piece(ctypes.Structure): _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]
mine = ctypes.create_string_buffer(64)
here, there = Piece(ctypes.addressof(mine), 64), Piece({address}, 64)
if libc.process_vm_readv({trainer}, ctypes.byref(here), 1, ctypes.byref(there), 1, 0) < 0: raise OSError
find(mine.raw)
""",
    "ptrace": """
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.restype = ctypes.c_long
if libc.ptrace(16, {trainer}, 0, 0) < 0: raise OSError
os.waitpid({trainer}, 0x40000000)
find(b"".join(libc.ptrace(2, {trainer}, ctypes.c_void_p({address} + i), 0).to_bytes(8, "little", signed=True)
              for i in range(0, 64, 8)))
""",
    "pidfd_getfd": """
libc = ctypes.CDLL(None, use_errno=True)
number = libc.syscall(438, libc.syscall(434, {trainer}, 0), {pipe}, 0)
if number < 0: raise OSError
find(os.read(number, 100))
""",
    "a UNIX socket": """
s = socket.socket(socket.AF_UNIX); s.connect({socket!r}); find(s.recv(100))
""",
    "an abstract socket": "s = socket.socket(socket.AF_UNIX); s.connect({abstract!r}); find(s.recv(100))",
    "a TCP socket": "find(socket.create_connection(('127.0.0.1', {port})).recv(100))",
    "the project": """
sys.path.insert(0, {project!r})
import importlib
if importlib.import_module("common.errors"): find({hidden!r})
""",
    "modules of the project that are loaded": """
for name, module in list(sys.modules.items()):
    if name.split(".")[0] in ("alignment", "common", "torch"): find({hidden!r})
""",
    "frames below its own": """
frame = sys._getframe()
while frame:
    find(repr(frame.f_locals) + repr(frame.f_globals))
    frame = frame.f_back
""",
    "all objects of its process": """
import gc
for value in gc.get_objects(): find(repr(value)[:10**5] if not callable(value) else "")
""",
    "its own memory": """
libc = ctypes.CDLL(None)
number = id(find) // 2**20 * 2**20
find(ctypes.string_at(number, 2**20))
""",
    "a process of its own": "os.waitpid(os.fork() or read({rows!r}), 0)",
    "a command": "import subprocess; find(subprocess.run(['cat', {rows!r}], capture_output=True).stdout)",
    "new namespaces": "if ctypes.CDLL(None).unshare(0x10000000): raise OSError\nread({rows!r})",
    "mounting": """
# A type that there is not: a process that may mount learns just that, and nothing is mounted.
libc = ctypes.CDLL(None, use_errno=True)
libc.mount(b"none", {folder!r}.encode(), b"no such type", 0, None)
if ctypes.get_errno() == 19: find({hidden!r})
""",
    "another root": "os.chroot({folder!r})\nread('/train-rows.jsonl')",
}
"""Attack to a program that prints the hidden text where it succeeds."""
NEEDS_A_LEAK = {
    "inherited descriptors",
    "its own descriptors",
    "modules of the project that are loaded",
    "frames below its own",
    "all objects of its process",
    "its own memory",
}
"""Attacks that find only what the sandbox itself leaves lying about."""


@pytest.mark.parametrize("name", sorted(READS.keys() - NEEDS_A_LEAK))
def test_the_attacks_work_where_nothing_is_confined(name: str, target: Target) -> None:
    """Or the tests below would show nothing."""
    if not MAY_TRACE and re.search(r"/proc/\{|/proc\"|ppid|ptrace|process_vm|unshare|mount|chroot|438", READS[name]):
        pytest.skip("needs the right to trace this process, or a root's")
    command = [sys.executable, "-c", FIND + target.aimed(READS[name])]
    # Not in a session of its own, in a folder of its own, with our environment.
    result = subprocess.run(command, cwd=target.folder, capture_output=True, text=True, timeout=60)
    assert result.stdout.startswith(MARK), result.stderr


@pytest.mark.parametrize("name", READS)
def test_a_program_finds_no_hidden_output(name: str, target: Target) -> None:
    """The reward is for a text that is in this process's memory, files, environment, pipes, and sockets. Each layer of
    confinement is enough."""
    program = target.aimed(READS[name])
    response = Response([1], [2], FIND + program, "stop", {"tests": [{"input": "7", "output": target.hidden}]})
    for layer in filter(works, ("landlock", "namespaces")):
        outcome = proven_sandbox(layer).run(FIND + program, input_text="7", limits=LIMITS)  # type: ignore[arg-type]
        assert MARK not in outcome.output
    assert CodeTests(limits=LIMITS, workers=1)([response]).tolist() == [0]
    # What was in the pipe is still there.
    os.set_blocking(target.pipe, False)
    assert os.read(target.pipe, 1000).decode() == target.hidden
