"""Configuration files as text: refused before a parser reads them, because it would name neither file nor line.

A file that is there, valid YAML, a mapping and without a key given twice goes to the parser, which knows the keys; an
empty one is an empty mapping.
"""

import difflib
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from commands.mistakes import MIN_LIKENESS
from common.errors import InputError

Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


OCTAL = re.compile(r"[-+]?0[0-7_]+")


def config_files(arguments: list[str]) -> list[Path]:
    """Files that a command line gives with `--config` or `-c`, in their order.

    Raises:
        InputError: for a `--config` without a value.
    """
    found: list[Path] = []
    for argument, following in itertools.pairwise([*arguments, ""]):
        option, equals, value = argument.partition("=")
        if option in ("--config", "-c"):
            given = value if equals else following
            if not given or given.startswith("--"):
                raise InputError(f"{option}: give a YAML file, such as {option} configs/quickstart.yaml")
            found.append(Path(given))
    return found


def require_config_files(arguments: list[str]) -> None:
    """Refuse a `--config` that no parser can read, before what reads it is imported.

    Args:
        arguments: of any command.

    Raises:
        InputError: for a file that is not there (with the closest ones of the same folder, or of `configs`), that is
            not YAML, gives a key twice, or a number with a leading zero.
    """
    for path in config_files(arguments):
        if not path.is_file():
            folder = path.parent if path.parent.is_dir() and path.parent != Path() else Path("configs")
            files = {str(file.with_suffix("")): str(file) for file in folder.rglob("*.yaml")}
            stem = str(path.with_suffix(""))
            close = [files[one] for one in difflib.get_close_matches(stem, files, cutoff=MIN_LIKENESS)]
            hint = f"did you mean {', '.join(close)}?" if close else "give a YAML file"
            raise InputError(f"--config {path} is not a file: {hint}")
        read_config_file(path)


KINDS = {
    ("datasheet", "measured"): ("hardware", "llm plan --config RUN.yaml --hardware {path}"),
    ("stages",): ("a recipe", "llm recipe --config {path}"),
    ("constitution", "generator"): ("of the constitution command", "llm constitution --config {path}"),
}
"""Keys that tell a file of another command: what the file is, and the command that takes it."""


def require_run_files(name: str, arguments: list[str]) -> None:
    """Refuse files of other commands where a configuration of `fit` is read.

    Args:
        name: the command's.
        arguments: of it.

    Raises:
        InputError: with the command that takes the file.
    """
    for path in config_files(arguments):
        keys = read_config_file(path).keys()
        for marks, (what, call) in KINDS.items():
            if keys >= set(marks) and not keys & {"model", "data", "trainer"}:
                raise InputError(f"{name} --config {path}: the file is {what}, take {call.format(path=path)}")


def read_config_file(path: Path) -> dict[str, Any]:
    """Contents of a configuration file; an empty one is an empty mapping.

    Raises:
        InputError: with the line of the mistake.
    """
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader)
        loaded = yaml.load(path.read_text(encoding="utf-8"), Loader)
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not valid UTF-8: re-save it as UTF-8") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f" line {mark.line + 1}"
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        raise InputError(f"{path}{line} is not valid YAML ({problem}): correct it") from error
    if loaded is not None and not isinstance(loaded, dict):
        raise InputError(f"{path} holds a {type(loaded).__name__}, a configuration is a mapping: begin with KEY: VALUE")
    for name, first, second in repeated_keys(node):
        raise InputError(
            f"{path} line {second}: {name} is also given at line {first}, the first would be lost: join them"
        )
    for text, place in octal_numbers(node):
        raise InputError(
            f"{path} line {place}: {text} has a leading zero, which makes it a number of base 8 ({int(text, 8)}): "
            "write it without, or as 0o..."
        )
    return loaded or {}


def octal_numbers(node: Any) -> Iterator[tuple[str, int]]:
    """Text and line of each number that YAML 1.1 reads in base 8 for a leading zero.

    Args:
        node: root of composed YAML.
    """
    if isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from octal_numbers(value)
    elif isinstance(node, yaml.MappingNode):
        for _, value in node.value:
            yield from octal_numbers(value)
    elif isinstance(node, yaml.ScalarNode) and node.tag.endswith(":int") and OCTAL.fullmatch(node.value):
        yield node.value.replace("_", ""), node.start_mark.line + 1


def repeated_keys(node: Any, before: str = "") -> Iterator[tuple[str, int, int]]:
    """Dotted name and both lines of each key that a mapping gives twice.

    Args:
        node: root of composed YAML.
        before: dotted name of the node, with its point.
    """
    if isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            yield from repeated_keys(value, f"{before}{number}.")
    elif isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if lines.setdefault(name, line) != line and name != "<<":
                yield f"{before}{name}", lines[name], line
            yield from repeated_keys(value, f"{before}{name}.")
