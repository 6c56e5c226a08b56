"""Seccomp filter: the system calls that a generated program keeps, as a program for the kernel.

It gives up, for good, everything but the calls that computing takes: none that starts a process or a thread, opens a
socket, signals anybody, or changes a file. A list of what is allowed needs no privileges and no container, and whatever
a future kernel adds is forbidden; the price is that it holds for Linux on x86-64 and 64-bit ARM only. A filter sees
numbers, not paths: which files may be opened for reading is decided by `landlock` and `namespaces`.
"""

import ctypes
import functools
import os
import struct

from alignment.rewards.sandbox.kernel_calls import PR_SET_NO_NEW_PRIVS, prctl

PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
NUMBERS: dict[str, tuple[int, dict[str, int]]] = {
    "x86_64": (
        0xC000003E,
        {
            "read": 0, "write": 1, "close": 3, "stat": 4, "fstat": 5, "lstat": 6, "lseek": 8, "mmap": 9, "mprotect": 10,
            "munmap": 11, "brk": 12, "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15, "pread64": 17,
            "readv": 19, "writev": 20, "access": 21, "sched_yield": 24, "mremap": 25, "madvise": 28, "dup": 32,
            "nanosleep": 35, "getpid": 39, "exit": 60, "uname": 63, "fcntl": 72, "getcwd": 79, "readlink": 89,
            "getrusage": 98, "sysinfo": 99, "times": 100, "getuid": 102, "getgid": 104, "geteuid": 107, "getegid": 108,
            "getppid": 110, "sigaltstack": 131, "gettid": 186, "futex": 202, "sched_getaffinity": 204,
            "getdents64": 217, "restart_syscall": 219, "clock_gettime": 228, "clock_getres": 229,
            "clock_nanosleep": 230, "exit_group": 231, "openat": 257, "newfstatat": 262, "readlinkat": 267,
            "faccessat": 269, "set_robust_list": 273, "getrandom": 318, "statx": 332, "rseq": 334, "faccessat2": 439,
        },
    ),
    "aarch64": (
        0xC00000B7,
        {
            "getcwd": 17, "dup": 23, "fcntl": 25, "faccessat": 48, "openat": 56, "close": 57, "getdents64": 61,
            "lseek": 62, "read": 63, "write": 64, "readv": 65, "writev": 66, "pread64": 67, "readlinkat": 78,
            "newfstatat": 79, "fstat": 80, "exit": 93, "exit_group": 94, "futex": 98, "set_robust_list": 99,
            "nanosleep": 101, "clock_gettime": 113, "clock_getres": 114, "clock_nanosleep": 115,
            "sched_getaffinity": 123, "sched_yield": 124, "restart_syscall": 128, "sigaltstack": 132,
            "rt_sigaction": 134, "rt_sigprocmask": 135, "rt_sigreturn": 139, "times": 153, "uname": 160,
            "getrusage": 165, "getpid": 172, "getppid": 173, "getuid": 174, "geteuid": 175, "getgid": 176,
            "getegid": 177, "gettid": 178, "sysinfo": 179, "brk": 214, "munmap": 215, "mremap": 216, "mmap": 222,
            "mprotect": 226, "madvise": 233, "getrandom": 278, "statx": 291, "rseq": 293, "faccessat2": 439,
        },
    ),
}  # fmt: skip
"""By machine: the kernel's name for it (linux/audit.h) and the numbers of the allowed calls (asm/unistd.h)."""

FORBIDDEN_BITS: dict[str, tuple[int, int]] = {
    # Files are opened for reading only.
    "openat": (2, os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | getattr(os, "O_TMPFILE", 0) & ~os.O_DIRECTORY),
    # F_DUPFD, F_GETFD, F_SETFD and F_GETFL, which are 0 to 3; F_SETOWN would send signals, F_SETLEASE stop others.
    "fcntl": (1, 0xFFFFFFFC),
}
"""Of calls that are allowed in part: which argument, and its bits that must be 0."""

ALLOW, REFUSE, KILL = 0x7FFF0000, 0x00050000 | 1, 0x80000000
"""What a filter answers: go on; fail with EPERM; end the process (linux/seccomp.h)."""
LOAD, EQUALS, AND, SKIP, RETURN = 0x20, 0x15, 0x54, 0x05, 0x06
"""Instructions of the filter: load a word, skip unless equal, mask, skip, answer (linux/bpf_common.h)."""


@functools.cache
def system_call_filter(machine: str) -> bytes:
    """The kernel's program that lets the allowed calls through, 8 bytes an instruction.

    Raises:
        KeyError: for a machine whose numbers are not known here.
    """
    architecture, numbers = NUMBERS[machine]

    def instruction(code: int, value: int, unless: int = 0) -> bytes:
        return struct.pack("HBBI", code, 0, unless, value)

    # A call is described by its number, the machine, where it came from, and six arguments of 8 bytes.
    program = [instruction(LOAD, 4), instruction(EQUALS, architecture, 1), instruction(SKIP, 1)]
    program += [instruction(RETURN, KILL), instruction(LOAD, 0)]
    for name, number in numbers.items():
        if name not in FORBIDDEN_BITS:
            program += [instruction(EQUALS, number, 1), instruction(RETURN, ALLOW)]
            continue
        argument, bits = FORBIDDEN_BITS[name]
        program += [instruction(EQUALS, number, 5), instruction(LOAD, 16 + 8 * argument), instruction(AND, bits)]
        program += [instruction(EQUALS, 0, 1), instruction(RETURN, ALLOW), instruction(RETURN, REFUSE)]
    return b"".join([*program, instruction(RETURN, REFUSE)])


def install_filter() -> None:
    """Give up the other calls; there is no way back.

    Raises:
        OSError: when the kernel does not do it.
        KeyError: for a machine whose numbers are not known here.
    """
    program = system_call_filter(os.uname().machine)
    buffer = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: the number of instructions and where they are.
    described = ctypes.create_string_buffer(struct.pack("HP", len(program) // 8, ctypes.addressof(buffer)))
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(described))
