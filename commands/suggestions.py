"""Explanations of jsonargparse's messages: the mistyped name and the closest names that exist, in one line.

jsonargparse shows every type that it tried; what a user needs is the word that is wrong and the word that was meant.
Messages that are not recognized are passed on as they are.
"""

import importlib
import re
from collections.abc import Iterable
from typing import Any

from commands.mistakes import PACKAGES, did_you_mean

CLASS = re.compile(
    r"Problem with given class_path '(?P<path>[^']+)':\s*(?P<reason>.*?)(?=\s+- |\s+Given value|$)", re.DOTALL
)
NO_PATH = re.compile(r"Expected a dot import path string: (?P<path>\S+)")
WRONG_KIND = re.compile(r"Import path (?P<path>\S+) does not correspond to a subclass of (?P<base>\w+)")
NO_MODULE = re.compile(r"No module named '(?P<name>[^']+)'")
MISSING = re.compile(r"has no attribute|No module named")
KEY = re.compile(r'Parser key "(?P<key>[^"]+)":')
OPTION = re.compile(r"Option '(?P<name>[^']+)' is not accepted")
GROUP = re.compile(r"(?P<kind>Group|Subcommand) '(?P<group>[^']+)' does not accept option '(?P<name>[^']+)'")
UNRECOGNIZED = re.compile(r"unrecognized arguments: --(?P<name>[^\s=]+)")
REQUIRED = re.compile(r"the following arguments are required: (?P<names>.+)")
WRONG_TYPE = re.compile(r"Expected an? (?P<types><class '\w+'>)\.? Got value: (?P<value>.*)", re.DOTALL)
WRONG_TYPES = re.compile(
    r"Union subtypes\s+Subtypes: \[(?P<types>.*?)\]\s+Errors:.*Given value: (?P<value>.*)", re.DOTALL
)
ACCEPTED = re.compile(r"Literal\[(?P<values>[^\]]*)\]|<class '(?P<type>\w+)'>")
TYPES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "list": "a list",
    "dict": "a mapping",
    "NoneType": "null",
}
"""Types of YAML's values in words."""
MAX_LISTED = 40
"""Names listed where none is close."""


def explain(message: str, parser: Any) -> str:
    """The message in the project's words.

    Args:
        message: of jsonargparse.
        parser: that found the mistake; its options are the names that exist.
    """
    key = KEY.search(message)
    before = f"{key['key']}: " if key else ""
    if (found := CLASS.search(message)) and not MISSING.search(found["reason"]):
        return f"{before}class_path={found['path']}: {found['reason']}"
    if found and (module := NO_MODULE.search(found["reason"])) and not did_you_mean(found["path"], class_names("")):
        return (
            f"{before}class_path={found['path']}: module {module['name']} is not found in this folder nor among the "
            "installed packages, correct it or start from its folder"
        )
    if found := found or NO_PATH.search(message):
        return f"{before}no class is called {found['path']}{alternatives(found['path'], class_names(found['path']))}"
    if found := WRONG_KIND.search(message):
        return f"{before}class_path={found['path']} is no {found['base']}, name one"
    if found := GROUP.search(message):
        names = option_names(parser)
        if found["kind"] == "Group":
            start = f"{found['group']}."
            names = [name.removeprefix(start) for name in names if name.startswith(start)]
        return key_message(found["name"], names, f"{found['group']}." if found["kind"] == "Group" else "")
    if found := OPTION.search(message):
        return key_message(found["name"], option_names(parser))
    if found := UNRECOGNIZED.search(message):
        options = [f"--{name}" for name in option_names(parser)]
        return f"no option is called --{found['name']}{alternatives('--' + found['name'].rstrip('+'), options)}"
    if found := REQUIRED.search(message):
        return f"{', '.join(f'--{name.strip()}' for name in found['names'].split(','))}: required, give a value"
    if key and (found := WRONG_TYPE.search(message) or WRONG_TYPES.search(message)):
        return f"{key['key']}={found['value'].strip()}: must be {accepted(found['types'])}"
    return message


def accepted(types: str) -> str:
    """Values that types take, in words, from jsonargparse's list of them."""
    words: list[str] = []
    for found in ACCEPTED.finditer(types):
        words += found["values"].replace("'", "").split(", ") if found["values"] else [TYPES.get(found["type"], types)]
    words = [word for word in words if word != TYPES["int"] or TYPES["float"] not in words]
    return " or ".join(dict.fromkeys(words)) or types


def key_message(name: str, names: Iterable[str], group: str = "") -> str:
    """What is said about a mistyped key; of a nested one, its first part that does not exist is the mistake."""
    parts, level = name.split("."), [other.split(".") for other in names]
    for depth, part in enumerate(parts):
        existing = {other[depth] for other in level if len(other) > depth}
        if part not in existing or depth == len(parts) - 1:
            return f"no key is called {group}{'.'.join(parts[: depth + 1])}{alternatives(part, existing)}"
        level = [other for other in level if len(other) > depth and other[depth] == part]
    return f"no key is called {group}{name}"


def alternatives(name: str, names: Iterable[str]) -> str:
    """The closest names, or all of them where none is close and they are few."""
    existing = sorted(set(names))
    if close := did_you_mean(name, existing) or did_you_mean(name.split(".")[0], existing):
        return close
    return f"; there are: {', '.join(existing)}" if 0 < len(existing) <= MAX_LISTED else ""


def option_names(parser: Any) -> list[str]:
    """Dotted names of a parser's options, those of its commands too."""
    commands = getattr(parser, "_subcommands_action", None)
    inner = [name for sub in commands._name_parser_map.values() for name in option_names(sub)] if commands else []
    own = [action.dest for action in parser._actions if not action.dest.endswith(".help")]
    return [name for name in [*own, *inner] if name not in ("help", "print_config", "print_shtab", "subcommand")]


def class_names(path: str) -> list[str]:
    """Full names of the classes that could have been meant: of the module named, or of this project."""
    module, _, name = path.rpartition(".")
    ours = [f"{package}.{one}" for package in PACKAGES for one in importlib.import_module(package).__all__]
    if module in PACKAGES:
        return [one for one in ours if one.startswith(f"{module}.") or one.endswith(f".{name}")]
    try:
        found = importlib.import_module(module)
    except (ImportError, ValueError):
        return ours
    return [f"{module}.{one}" for one in getattr(found, "__all__", dir(found)) if not one.startswith("_")]
