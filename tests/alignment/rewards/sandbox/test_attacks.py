"""Programs that attack the trainer: each through the reward, each with something that it could get."""

import ctypes
import mmap
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from alignment import CodeTests, Limits
from alignment.rewards.base import Response
from alignment.rewards.code_tests import run_python

LIMITS = Limits(cpu_seconds=1, wall_seconds=20)
MARK = "hidden-"
"""What a hidden output begins with: the attacks know how tests of the data set look, as a policy would."""


class Target(NamedTuple):
    """What an attack can aim at: hidden text in memory, files, pipes, the environment."""

    hidden: str
    names: dict[str, object]
    folder: Path
    pipe: int
    signals: list[int]


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
MAY_TRACE = os.geteuid() == 0 and not Path("/proc/sys/kernel/yama").exists()


def filled(program: str, target: Target) -> str:
    """A program with what it aims at."""
    for name, value in (target.names | {"hidden": target.hidden}).items():
        program = program.replace(f"{{{name}!r}}", repr(value)).replace(f"{{{name}}}", str(value))
    return program


@pytest.mark.parametrize("name", sorted(READS.keys() - NEEDS_A_LEAK))
def test_the_attacks_work_where_nothing_is_confined(name: str, target: Target) -> None:
    """Or the tests below would show nothing."""
    if not MAY_TRACE and re.search(r"/proc/\{|/proc\"|ppid|ptrace|process_vm|unshare|mount|chroot|438", READS[name]):
        pytest.skip("needs the right to trace this process, or a root's")
    command = [sys.executable, "-c", FIND + filled(READS[name], target)]
    # Not in a session of its own, in a folder of its own, with our environment.
    result = subprocess.run(command, cwd=target.folder, capture_output=True, text=True, timeout=60)
    assert result.stdout.startswith(MARK), result.stderr


@pytest.mark.parametrize("name", READS)
def test_a_program_finds_no_hidden_output(name: str, target: Target) -> None:
    """The reward is for a text that is in this process's memory, files, environment, pipes, and sockets."""
    program = filled(READS[name], target)
    response = Response([1], [2], FIND + program, "stop", {"tests": [{"input": "7", "output": target.hidden}]})
    assert MARK not in run_python(FIND + program, input_text="7", limits=LIMITS).output
    assert CodeTests(limits=LIMITS, workers=1)([response]).tolist() == [0]
    # What was in the pipe is still there.
    os.set_blocking(target.pipe, False)
    assert os.read(target.pipe, 1000).decode() == target.hidden


DAMAGES = {
    "signal": "import os, signal; os.kill({trainer}, signal.SIGUSR1)",
    "signal to the parent": "import os, signal; os.kill(os.getppid(), signal.SIGUSR1)",
    "signal to the group": "import os, signal; os.killpg(os.getpgid({trainer}), signal.SIGUSR1)",
    "signal by descriptor": "import os, signal; signal.pidfd_send_signal(os.pidfd_open({trainer}), signal.SIGUSR1)",
    "signal by a file": "import fcntl; fcntl.fcntl(0, fcntl.F_SETOWN, {trainer}); fcntl.fcntl(0, fcntl.F_SETSIG, 10)",
    "writing the data": "open({rows!r}, 'a').write('x')",
    "writing memory": "open('/proc/{trainer}/mem', 'r+b')",
    "writing a pipe": "open('/proc/{trainer}/fd/{pipe}', 'w')",
    "writing anywhere": """
import os, sys, tempfile
for folder in ("/", "/tmp", "/var/tmp", "/dev/shm", "/root", {folder!r}, ".", os.path.dirname(os.__file__)):
    try: open(os.path.join(folder, "new-file"), "x")
    except OSError: continue
    sys.exit(0)
raise OSError
""",
    "deleting": "import os; os.remove({rows!r})",
    "renaming": "import os; os.rename({rows!r}, {rows!r} + '2')",
    "truncating": "import os; os.truncate({rows!r}, 0)",
    "truncating while reading": "import os; os.open({rows!r}, os.O_RDONLY | os.O_TRUNC)",
    "permissions": "import os; os.chmod({rows!r}, 0)",
    "times": "import os; os.utime({rows!r}, (0, 0))",
    "owners": "import os; os.chown({rows!r}, 1, 1)",
    "attributes": "import os; os.setxattr({rows!r}, 'user.a', b'b')",
    "locks": "import fcntl; fcntl.flock(0, fcntl.LOCK_EX)",
    "priorities": "import os; os.setpriority(os.PRIO_PROCESS, {trainer}, 19)",
    "limits of the trainer": "import resource; resource.prlimit({trainer}, resource.RLIMIT_CPU, (1, 1))",
    "fork bomb": "import os\nwhile True: os.fork()",
    "thread bomb": "import threading\nwhile True: threading.Thread(target=print).start()",
    "memory": "x = [bytearray(2**24) for _ in range(10**6)]",
    "memory by files": "import os; os.memfd_create('a')",
    "memory by mapping": "import mmap; [mmap.mmap(-1, 2**28) for _ in range(100)]",
    "io_uring": "import ctypes\nif ctypes.CDLL(None).syscall(425, 8, bytes(120)) < 0: raise OSError",
    "output": "while True: print('a' * 10**6)",
    "sparse output": "import os; os.lseek(1, 2**40, 0); os.write(1, b'a')",
    "larger output": "import os; os.ftruncate(1, 2**40)",
    "children that stay": "import os\nif os.fork() == 0:\n    os.setsid()\n    while True: pass",
}
"""Attack to a program that would harm the trainer, or end with status 0 where it was let do it."""


@pytest.mark.parametrize("name", DAMAGES)
def test_a_program_damages_nothing(name: str, target: Target) -> None:
    program = filled(DAMAGES[name], target)
    rows = target.folder / "train-rows.jsonl"
    before = (rows.read_text(), rows.stat(), sorted(os.listdir(target.folder)), os.getpriority(os.PRIO_PROCESS, 0))
    # It would be right if it came to its end.
    row = {"tests": [{"input": "", "output": "done"}]}
    response = Response([1], [2], f"{program}\nimport os; os.write(1, b'done'); os._exit(0)", "stop", row)
    assert CodeTests(limits=LIMITS, workers=1)([response]).tolist() == [0]
    after = (rows.read_text(), rows.stat(), sorted(os.listdir(target.folder)), os.getpriority(os.PRIO_PROCESS, 0))
    assert before[0] == after[0]
    assert [getattr(before[1], f"st_{part}") for part in ("mode", "uid", "size", "mtime_ns", "ino")] == [
        getattr(after[1], f"st_{part}") for part in ("mode", "uid", "size", "mtime_ns", "ino")
    ]
    assert before[2:] == after[2:]
    assert target.signals == []
    assert not Path("/tmp/new-file").exists()
    assert not Path("/dev/shm/new-file").exists()
