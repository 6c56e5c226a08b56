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
MIN_LIKENESS = 0.6
"""Of two names, see `difflib.SequenceMatcher.ratio`; its own default."""


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
