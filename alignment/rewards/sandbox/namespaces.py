"""Namespaces: a file system, process list and network for confined processes, which hold next to nothing.

They need unprivileged user namespaces, which some distributions and most containers turn off. Where they work, paths
outside do not exist, processes outside have no numbers, and all processes of the sandbox end with its first one. The
root is an empty file system in memory on which the readable paths are bound, read-only, in their old places; there is
no /proc, so that no path leads to another process.
"""

import os
import signal
from collections.abc import Sequence
from typing import NoReturn

from alignment.rewards.sandbox.kernel_calls import end_with_parent, mount, system_call, unmount, unshare

NEW_MOUNTS, NEW_UTS, NEW_IPC, NEW_USER, NEW_PROCESSES, NEW_NETWORK = (
    0x00020000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000,
)  # fmt: skip
"""CLONE_NEW*, linux/sched.h."""
READ_ONLY, NO_SUID, NO_DEVICES, NO_EXEC, REMOUNT, BIND, RECURSIVE, PRIVATE = (
    0x1, 0x2, 0x4, 0x8, 0x20, 0x1000, 0x4000, 0x40000,
)  # fmt: skip
"""MS_*, linux/mount.h; the first four are also the flags that statvfs gives."""
DETACH = 2
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
"""Number of the call by machine."""
MOUNT_POINTS = ("/mnt", "/tmp", "/srv", "/media", "/var", "/run", "/home", "/opt")
"""Folders on which the new root can be built; none is changed outside."""


def enter(readable: Sequence[str], hidden: Sequence[str]) -> None:
    """Go on in new namespaces, as their first process; the process that called waits for it and ends as it does.

    Args:
        readable: files and folders that stay, in the order in which they are bound.
        hidden: folders below them that are empty, but for what is bound later.

    Raises:
        OSError: where the kernel or its settings refuse it; this process is then half way there and should end.
        KeyError: for a machine whose numbers are not known here.
    """
    user, group = os.geteuid(), os.getegid()
    unshare(NEW_USER | NEW_MOUNTS | NEW_PROCESSES | NEW_NETWORK | NEW_IPC | NEW_UTS)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    _replace_root(readable, hidden)
    first = os.fork()
    if first:
        _wait_for(first)
    end_with_parent()


def _replace_root(readable: Sequence[str], hidden: Sequence[str]) -> None:
    """Make an empty file system with the readable paths on it the root, and let go of the old one."""
    mount("none", "/", "", RECURSIVE | PRIVATE)
    root = next(
        (
            folder
            for folder in MOUNT_POINTS
            if os.path.isdir(folder) and not any(path.startswith(f"{folder}/") for path in readable)
        ),
        None,
    )
    if root is None:
        raise FileNotFoundError(f"no folder to build a root on, of {', '.join(MOUNT_POINTS)}")
    mount("tmpfs", root, "tmpfs", NO_SUID | NO_DEVICES)
    built = [root]
    for path in readable:
        place = root + path
        if os.path.isdir(path):
            os.makedirs(place, exist_ok=True)
        else:
            os.makedirs(os.path.dirname(place), exist_ok=True)
            with open(place, "w"):
                pass
        mount(path, place, "", BIND | RECURSIVE)
        # What the mount outside forbids cannot be allowed here, and leaving it out would be that.
        kept = os.statvfs(place).f_flag & (NO_SUID | NO_DEVICES | NO_EXEC)
        mount("none", place, "", REMOUNT | BIND | READ_ONLY | kept)
        for below in hidden:
            if below.startswith(f"{path}/") and os.path.isdir(below):
                mount("tmpfs", root + below, "tmpfs", NO_SUID | NO_DEVICES)
                built.append(root + below)
    for place in built:
        mount("none", place, "", REMOUNT | BIND | READ_ONLY | NO_SUID | NO_DEVICES)
    os.chdir(root)
    # With the old root put on the new one it is what is unmounted next (pivot_root(2)).
    system_call("pivot_root", PIVOT_ROOT[os.uname().machine], b".", b".")
    unmount(".", DETACH)
    os.chdir("/")


def _wait_for(process: int) -> NoReturn:
    """End as a process does, without the descriptors that only it should hold."""
    os.closerange(0, 256)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    if status < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(status)
