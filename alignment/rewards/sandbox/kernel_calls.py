"""System calls that Python does not wrap, by ctypes: prctl, capset, mount, raw numbers.

A compiled extension would check the arguments, but would have to be built; these few calls have taken the same
arguments since they exist.
"""

import ctypes
import math
import os
import resource
import signal
from collections.abc import Sequence

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 4, 24, 38
_CAPABILITY_VERSION = 0x20080522
LAST_CAPABILITY = 63
"""The most that two words of a capability set can hold."""

_library = ctypes.CDLL(None, use_errno=True)


def checked(result: int, call: str) -> int:
    """The result of a call of the C library.

    Raises:
        OSError: for -1.
    """
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
    return result


def system_call(name: str, number: int, *arguments: int | bytes | None) -> int:
    """One system call by its number.

    Raises:
        OSError: where the kernel refuses it or has no such call.
    """
    passed = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    return checked(_library.syscall(ctypes.c_long(number), *passed), name)


def prctl(option: int, value: int, address: int = 0) -> None:
    """Change a property of this process.

    Raises:
        OSError: where the kernel refuses it.
    """
    arguments = [ctypes.c_ulong(each) for each in (value, address, 0, 0)]
    checked(_library.prctl(option, *arguments), f"prctl({option})")


def mount(source: str, target: str, kind: str, flags: int) -> None:
    """Mount a file system, or bind a path to another.

    Raises:
        OSError: where the kernel refuses it.
    """
    paths = [os.fsencode(text) for text in (source, target, kind)]
    checked(_library.mount(*paths, ctypes.c_ulong(flags), None), f"mount({target})")


def unmount(target: str, flags: int) -> None:
    """Take a mounted file system away.

    Raises:
        OSError: where the kernel refuses it.
    """
    checked(_library.umount2(os.fsencode(target), flags), f"umount2({target})")


def unshare(flags: int) -> None:
    """Enter new namespaces.

    Raises:
        OSError: where the kernel refuses it.
    """
    checked(_library.unshare(flags), "unshare")


def drop_privileges() -> None:
    """Give up every capability, also root's, and any way to gain one.

    Raises:
        OSError: where the kernel refuses it.
    """
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    for capability in range(LAST_CAPABILITY + 1):
        try:
            prctl(PR_CAPBSET_DROP, capability)
        except OSError:  # one that this kernel does not know, or this process may not drop because it has none
            break
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    checked(_library.capset(header, (ctypes.c_uint32 * 6)()), "capset")


def limit_resources(cpu_seconds: float, address_bytes: int, file_bytes: int) -> None:
    """Bound processor time, address space, size of files, open files; no core dumps.

    Raises:
        OSError, ValueError: where the kernel refuses it.
    """
    whole = math.ceil(cpu_seconds)
    limits: Sequence[tuple[int, int]] = (
        (resource.RLIMIT_CPU, whole), (resource.RLIMIT_AS, address_bytes), (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_NOFILE, 32), (resource.RLIMIT_CORE, 0),
    )  # fmt: skip
    for what, most in limits:
        resource.setrlimit(what, (most, most + (what == resource.RLIMIT_CPU)))


def end_with_parent() -> None:
    """Be killed when the thread that started this process ends.

    Raises:
        OSError: where the kernel refuses it.
    """
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def hide_from_other_processes() -> None:
    """Make this process not dumpable: processes of the same user without CAP_SYS_PTRACE cannot read its memory,
    environment or descriptors.

    Raises:
        OSError: where the kernel refuses it.
    """
    prctl(PR_SET_DUMPABLE, 0)
