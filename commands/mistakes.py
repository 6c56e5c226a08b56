"""Users' mistakes in one line, with the closest names that exist ('did you mean').

The names that exist are read from the classes themselves, so that there is no list to keep; they are imported only
once there is a mistake to explain.
"""

import difflib
import errno
import sys
import traceback
from collections.abc import Iterable
from typing import NoReturn

from common.errors import InputError

PACKAGES = ("models", "datamodules", "strategies", "alignment", "callbacks")
"""Their exported names are what YAML calls classes by."""
MIN_LIKENESS = 0.6
"""Of two names, see `difflib.SequenceMatcher.ratio`; its own default."""

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP)
"""What the system says of a disk, folder or name that takes no file."""


def fail(message: str) -> NoReturn:
    """End with exit status 2 and one line."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


def input_error_behind(error: BaseException | None) -> InputError | None:
    """The user's mistake behind an error: jsonargparse wraps what a constructor raises."""
    while error is not None and not isinstance(error, InputError):
        error = error.__cause__ or error.__context__
    return error


def unusable_path(error: OSError) -> str | None:
    """What is wrong with a path that was given and cannot be used as it is, and the fix; None for any other error.

    A file that is not found may be a defect of the program, a folder that cannot be made is a path that was given.
    """
    path = error.filename2 or error.filename or "a file"  # of a rename, the name it was to have
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        return f"{path} is a file, and a folder is needed there: give another path"
    if error.errno == errno.EISDIR:
        return f"{path} is a folder, and a file is to be written: give the name of a file"
    made_folder = any(frame.name in ("mkdir", "makedirs") for frame in traceback.extract_tb(error.__traceback__)[-1:])
    if error.errno in UNWRITABLE or (error.errno is not None and made_folder):
        return f"{path}: {error.strerror}: make room or change its folder, then run this again"
    return None


def require_at_least(**given: tuple[int | None, int]) -> None:
    """Refuse the first number that is below the least that works.

    Args:
        given: value and least value by name; None is not a number and passes.

    Raises:
        InputError: with the name.
    """
    for name, (value, least) in given.items():
        if value is not None and value < least:
            raise InputError(f"{name}={value}: must be at least {least}")


def did_you_mean(name: str, existing: Iterable[str]) -> str:
    """`: did you mean a, b?` with the closest existing names, or an empty string.

    Args:
        name: as it was typed; of a dotted one only the last part is compared.
        existing: names that exist; those whose last part is much less alike than the best are left out.
    """

    def likeness(other: str) -> float:
        mine, theirs = (text.rpartition(".")[-1].lower().lstrip("-") for text in (name, other))
        return difflib.SequenceMatcher(None, mine, theirs).ratio()

    ranked = sorted(((likeness(other), other) for other in sorted(set(existing))), reverse=True)
    best = ranked[0][0] if ranked else 0.0
    close = [other for ratio, other in ranked[:3] if ratio >= max(MIN_LIKENESS, best - 0.15)]
    return f": did you mean {', '.join(close)}?" if close else ""
