"""Explanations of jsonargparse's messages: the mistyped name and the closest names that exist, in one line.

jsonargparse shows every type that it tried; what a user needs is the word that is wrong and the word that was meant.
Messages that are not recognized are passed on as they are.
"""

import importlib
import re
from collections.abc import Iterable
from typing import Any

from commands.locate import locate
from commands.mistakes import PACKAGES, did_you_mean
from commands.registry import COMMANDS

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
POSITIONAL = re.compile(r"unrecognized arguments: (?P<value>[^-\s]\S*)")
PRINT_CONFIG = re.compile(r'Invalid option "(?P<value>[^"]*)" for --print_config')
CLASS_HELP = re.compile(r"(?P<option>--\S+\.help): module '(?P<module>[\w.]+)' has no attribute '(?P<name>\w+)'")
NOT_SUBCLASS = re.compile(r"Not a valid subclass of (?P<base>\w+)\. Got value: (?P<value>[^\n]*)")
REQUIRED = re.compile(r"the following arguments are required: (?P<names>.+)")
WRONG_TYPE = re.compile(
    r"Expected an? (?P<types>(?:<class|typing\.|list\[|dict\[|tuple\[|set\[)[^\n]*?)\.? Got value: (?P<value>.*)",
    re.DOTALL,
)
WRONG_TYPES = re.compile(
    r"Union subtypes\s+Subtypes: \[(?P<types>.*?)\]\s+Errors:.*Given value: (?P<value>.*)", re.DOTALL
)
ACCEPTED = re.compile(
    r"Literal\[(?P<values>[^\]]*)\]|<class '(?:[\w.]+\.)?(?P<type>\w+)'>"
    r"|\b(?P<generic>[Ll]ist|[Dd]ict|tuple|set|Sequence)\["
)
TYPES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "list": "a list",
    "tuple": "a list",
    "set": "a list",
    "sequence": "a list",
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
    if found := CLASS_HELP.search(message):
        path = f"{found['module']}.{found['name']}"
        return f"{found['option']}: no class is called {path}{alternatives(path, class_names(path))}"
    if found := PRINT_CONFIG.search(message):
        return f"--print_config={found['value']}: it takes no value, leave that out"
    if found := POSITIONAL.search(message):
        value = found["value"]
        is_file = value.endswith((".yaml", ".yml"))
        return f"{value}: {f'give it as --config {value}' if is_file else 'options begin with --, --help lists them'}"
    if (found := CLASS.search(message)) and not MISSING.search(found["reason"]):
        return f"{place_of_class(found['path'], key)}class_path={found['path']}: {found['reason']}"
    if found and (module := NO_MODULE.search(found["reason"])) and not did_you_mean(found["path"], class_names("")):
        return (
            f"{place_of_class(found['path'], key)}class_path={found['path']}: module {module['name']} is not found in "
            "this folder nor among the installed packages, correct it or start from its folder"
        )
    if found := found or NO_PATH.search(message):
        path = found["path"]
        return f"{place_of_class(path, key)}no class is called {path}{alternatives(path, class_names(path))}"
    if found := WRONG_KIND.search(message):
        base = found["base"]
        return f"{place_of_class(found['path'], key)}class_path={found['path']} is not a {base}, name one"
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
        return required_message([name.strip() for name in found["names"].split(",")], option_names(parser))
    if key and (found := NOT_SUBCLASS.search(message)):
        return f"{value_given(key['key'], found['value'])}: must be a {found['base']}, give class_path and init_args"
    if key and (found := WRONG_TYPE.search(message) or WRONG_TYPES.search(message)):
        value, wanted = found["value"].strip(), accepted(found["types"])
        single = f", as --{key['key']}.{value}" if "=" in value and wanted == TYPES["dict"] else ""
        return f"{value_given(key['key'], value)}: must be {wanted}{single}"
    return message


def place_of_class(path: str, key: re.Match[str] | None) -> str:
    """Where a class is named: the dotted name of its key and the file, with a colon."""
    name, where = locate("class_path", path)
    if "." in name:
        return f"{name.removesuffix('.class_path')}{where}: "
    if where:
        return f"class_path{where}: "
    return f"{locate(key['key'])[0]}: " if key else ""


def value_given(key: str, value: str) -> str:
    """`KEY=VALUE in FILE`, with the dotted name of the key."""
    name, where = locate(key, value)
    return f"{name}={value}{where}"


def required_message(names: list[str], options: Iterable[str]) -> str:
    """What is missing: whole parts of a configuration, options of the command, or keys within a configuration."""
    plain = [name.partition(".")[2] if name.split(".")[0] in COMMANDS else name for name in names]
    if {"model", "data"} & set(plain):
        return f"{', '.join(plain)}: required, give a configuration with --config FILE"
    known = set(options)
    listed = ", ".join(f"--{name}" if name in known else name for name in plain)
    return f"{listed}: required, give {'a value' if len(plain) == 1 else 'values'}"


def accepted(types: str) -> str:
    """Values that types take, in words, from jsonargparse's list of them."""
    words: list[str] = []
    for found in ACCEPTED.finditer(types):
        name = found["type"] or (found["generic"] or "").lower()
        words += found["values"].replace("'", "").split(", ") if found["values"] else [TYPES.get(name, f"a {name}")]
    words = [word for word in words if word != TYPES["int"] or TYPES["float"] not in words]
    return " or ".join(dict.fromkeys(words)) or types


def key_message(name: str, names: Iterable[str], group: str = "") -> str:
    """What is said about a mistyped key; of a nested one, its first part that does not exist is the mistake."""
    parts, level = name.split("."), [other.split(".") for other in names]
    for depth, part in enumerate(parts):
        existing = {other[depth] for other in level if len(other) > depth}
        if part not in existing or depth == len(parts) - 1:
            return f"no key is called {_located(group, parts[: depth + 1])}{alternatives(part, existing)}"
        level = [other for other in level if len(other) > depth and other[depth] == part]
    return f"no key is called {_located(group, parts)}"


def _located(group: str, parts: list[str]) -> str:
    """A key's dotted name and where it was given."""
    return "".join(locate(f"{group}{'.'.join(parts)}"))


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
