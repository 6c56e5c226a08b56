"""Open files of this process: their limit, raised to what the system allows, and what is left for caches.

A memory map holds a descriptor as long as it lives, and the usual soft limit is 1,024. Half of what is left is given to
caches; the other half is for sockets, pipes to worker processes and files that are open for a moment.
"""

import os
import resource

MAX_LIMIT = 2**16
"""Descriptors asked for at most: Linux lets a process hold 65,530 memory maps, and old programs that are started close
every descriptor up to the limit, one by one."""
MIN_LEFT = 16


def raise_open_file_limit() -> int:
    """The soft limit of open files of this process, after raising it toward the hard one; never lowered."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MAX_LIMIT
    wanted = MAX_LIMIT if hard == resource.RLIM_INFINITY else min(hard, MAX_LIMIT)
    if wanted > soft:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):  # a sandbox may forbid it: caches are smaller then
            return soft
    return max(soft, wanted)


def files_left() -> int:
    """Descriptors that a cache may hold: half of those that this process has left, at least `MIN_LEFT`."""
    try:
        used = len(os.listdir("/proc/self/fd"))
    except OSError:  # no Linux
        used = 64
    return max(MIN_LEFT, (raise_open_file_limit() - used) // 2)
