"""Programs that would harm the trainer, its files or its machine: each is refused and has no reward."""

import os
from pathlib import Path

import pytest

from alignment import CodeTests, Limits
from alignment.rewards.base import Response
from tests.alignment.rewards.sandbox.conftest import Target

LIMITS = Limits(cpu_seconds=1, wall_seconds=20)
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
    program = target.aimed(DAMAGES[name])
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
