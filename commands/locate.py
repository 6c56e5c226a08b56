"""Place of a key in what was given: its dotted name and the file, for parsers that report its last part alone.

The files and options of the command line are searched; where several keys are called so all are named, because a
parser does not say which it means.
"""

import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from commands.config_files import config_files, read_config_file
from common.errors import InputError

GIVEN: ContextVar[tuple[str, ...]] = ContextVar("arguments that are being parsed", default=())
"""Arguments of the outermost parser that runs."""
FOLDER: ContextVar[Path] = ContextVar("folder that the arguments' paths are relative to", default=Path())
"""jsonargparse works in the folder of a file while it reads that."""
MAX_PLACES = 3


@contextmanager
def given(arguments: Iterable[Any]) -> Iterator[None]:
    """Keep the arguments while they are parsed; parsers of single classes within leave them as they are."""
    if GIVEN.get():
        yield
        return
    token, folder = GIVEN.set(tuple(map(str, arguments))), FOLDER.set(Path.cwd())
    try:
        yield
    finally:
        GIVEN.reset(token)
        FOLDER.reset(folder)


def locate(key: str, value: str | None = None) -> tuple[str, str]:
    """Dotted name of a key, and ` in FILE` where a file gives it.

    Args:
        key: the name or its last parts.
        value: what the key was given, as text; None where it is not known.

    Returns:
        The key as it came and an empty string, where nothing that was given is called so.
    """
    places: dict[str, str] = {}
    try:
        for name, found, file in _given():
            if (name == key or name.endswith(f".{key}")) and (value is None or str(found) == value):
                places[name] = f" in {file}" if file else ""
    except InputError:  # a file that changed since it was checked: the parser's own message is the better one
        return key, ""
    if len(places) == 1:
        return next(iter(places.items()))
    listed = [f"{name}{where}" for name, where in places.items()]
    return key, f" (given as {', '.join(listed)})" if 0 < len(listed) <= MAX_PLACES else ""


def _given() -> Iterator[tuple[str, Any, str]]:
    """Dotted name, value and file of every key; options of the command line have no file."""
    arguments = [*GIVEN.get(), ""]
    for path in config_files(arguments[:-1]):
        yield from ((name, value, str(path)) for name, value in _walk(read_config_file(FOLDER.get() / path)))
    for argument, following in itertools.pairwise(arguments):
        option, equals, value = argument.partition("=")
        if option.startswith("--"):
            yield option[2:], value if equals else following, ""


def _walk(value: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    if before:
        yield before, value
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in entries:
        yield from _walk(inner, f"{before}.{key}" if before else str(key))
