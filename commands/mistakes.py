"""Users' mistakes in one line, with the closest names that exist ('did you mean').

The names that exist are read from the classes themselves, so that there is no list to keep; they are imported only
once there is a mistake to explain.
"""

import difflib
import sys
from collections.abc import Iterable
from typing import NoReturn

from common.errors import InputError

PACKAGES = ("models", "datamodules", "strategies", "alignment", "callbacks")
"""Their exported names are what YAML calls classes by."""


def fail(message: str) -> NoReturn:
    """End with exit status 2 and one line."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


def input_error_behind(error: BaseException | None) -> InputError | None:
    """The user's mistake behind an error: jsonargparse wraps what a constructor raises."""
    while error is not None and not isinstance(error, InputError):
        error = error.__cause__ or error.__context__
    return error


def did_you_mean(name: str, existing: Iterable[str]) -> str:
    """`: did you mean a, b?` with the closest existing names, or an empty string."""
    names = {other.lower(): other for other in existing}
    found = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.6)
    return f": did you mean {', '.join(names[one] for one in found)}?" if found else ""
