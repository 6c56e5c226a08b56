"""Landlock: the files that a confined process may read, and nothing else of the file system.

A process restricts itself and all that it starts, without privileges, on Linux since 5.13 where the kernel was built
and started with Landlock. What newer versions of the interface can restrict as well (TCP ports, device commands,
signals and abstract sockets of processes outside) is restricted where the kernel knows it. Landlock does not hide that
a path exists: `stat` still answers, `open` does not; `namespaces` hides the path too.
"""

import os
import struct
from collections.abc import Iterable

from alignment.rewards.sandbox.kernel_calls import PR_SET_NO_NEW_PRIVS, prctl, system_call

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
"""Numbers of the calls, the same on every machine."""
_VERSION_FLAG, _PATH_BENEATH = 1, 1

EXECUTE, READ_FILE, READ_DIRECTORY = 1 << 0, 1 << 2, 1 << 3
FILE_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
"""By the version that brought them: rights over files, in linux/landlock.h from LANDLOCK_ACCESS_FS_EXECUTE up to
MAKE_SYM, REFER, TRUNCATE and IOCTL_DEV."""
NETWORK_RIGHTS = {4: 0b11}
"""LANDLOCK_ACCESS_NET_BIND_TCP and CONNECT_TCP."""
SCOPES = {6: 0b11}
"""LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET and SIGNAL."""


def known(by_version: dict[int, int], version: int) -> int:
    """The bits that a version of the interface knows, of a table by version."""
    return next((bits for since, bits in sorted(by_version.items(), reverse=True) if since <= version), 0)


def interface_version() -> int:
    """Version of the kernel's Landlock, from 1.

    Raises:
        OSError: where there is none (ENOSYS) or it is turned off (EOPNOTSUPP).
    """
    return system_call("landlock_create_ruleset", CREATE_RULESET, None, 0, _VERSION_FLAG)


def ruleset(version: int, files: int, network: int = 0, scopes: int = 0) -> int:
    """Descriptor of a set of rules: what is named here is forbidden but for what rules allow.

    Args:
        version: of the interface.
        files, network, scopes: bits of the tables above.

    Raises:
        OSError: where the kernel refuses it.
    """
    # struct landlock_ruleset_attr, as long as the version knows it.
    words = [files, *([network] if version >= 4 else []), *([scopes] if version >= 6 else [])]
    attributes = struct.pack(f"{len(words)}Q", *words)
    return system_call("landlock_create_ruleset", CREATE_RULESET, attributes, len(attributes), 0)


def allow(rules: int, path: str, rights: int) -> None:
    """Allow rights over a file, or over all that lies below a folder.

    Raises:
        OSError: for a path that is not there, or a right that the path cannot have.
    """
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        # struct landlock_path_beneath_attr, packed.
        beneath = struct.pack("=Qi", rights, descriptor)
        system_call("landlock_add_rule", ADD_RULE, rules, _PATH_BENEATH, beneath, 0)
    finally:
        os.close(descriptor)


def restrict(rules: int) -> None:
    """Put this process, and all that it will start, under a set of rules, and close it; there is no way back.

    Raises:
        OSError: where the kernel refuses it.
    """
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    try:
        system_call("landlock_restrict_self", RESTRICT_SELF, rules, 0)
    finally:
        os.close(rules)


def restrict_to_reading(readable: Iterable[str], listed: Iterable[str]) -> None:
    """Leave this process, and all that it will start, these files to read and nothing else.

    Args:
        readable: files, and folders with all that lies below them.
        listed: folders of which the names may be read, also of folders below, but no file.

    Raises:
        OSError: where there is no Landlock.
    """
    version = interface_version()
    rules = ruleset(version, known(FILE_RIGHTS, version), known(NETWORK_RIGHTS, version), known(SCOPES, version))
    for path in listed:
        allow(rules, path, READ_DIRECTORY)
    for path in readable:
        allow(rules, path, READ_FILE | (READ_DIRECTORY if os.path.isdir(path) else 0))
    restrict(rules)


def restrict_to_itself() -> None:
    """Put this process into a domain of its own, from which no other process can be traced or, where the kernel knows
    this, signaled; neither can another process of the sandbox.

    Raises:
        OSError: where there is no Landlock.
    """
    version = interface_version()
    # A set of rules has to forbid something: executing files, which nobody here does.
    restrict(ruleset(version, EXECUTE, scopes=known(SCOPES, version)))
