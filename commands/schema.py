"""JSON schema of configurations, from signatures and docstrings of the classes that YAML may name.

Editors complete and check keys by it. It is as strict as the signatures are: a class of this project takes its own
arguments only, a class of another library any; values that Python alone can check (a divisor, a path) are not checked.
"""

import importlib
import inspect
import json
import sys
import types
import typing
from pathlib import Path
from typing import Any, Literal

from docstring_parser import parse

from commands.mistakes import PACKAGES
from commands.registry import COMMANDS
from common.files import write_text_atomically

DRAFT = "https://json-schema.org/draft/2020-12/schema"
BASIC: dict[Any, dict[str, Any]] = {
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
    Path: {"type": "string"},
    dict: {"type": "object"},
    list: {"type": "array"},
}
OWN = (*PACKAGES, "commands")
"""Packages whose classes are described by their signatures."""
NOT_IN_RECIPES = ("resolve", "only", "first", "dry_run")
"""Arguments of a recipe that belong to one call of it."""
OTHERS = {
    "type": "object",
    "properties": {"class_path": {"type": "string", "not": {"pattern": rf"^({'|'.join(PACKAGES)})\."}}},
    "required": ["class_path"],
}
"""A class of another library, whose arguments are its own matter."""


def schema(output: str | None = None, command: Literal["fit", "recipe", "constitution", "compare"] = "fit") -> None:
    """Write the JSON schema of the configurations that a command reads, overlays included.

    Other commands that train, test or prepare read those of `fit`.

    Args:
        output: file to write; by default the schema is printed.
        command: the command whose configurations are described.
    """
    made = configuration_schema() if command == "fit" else function_schema(command)
    text = json.dumps(made, indent=1) + "\n"
    if output is None:
        sys.stdout.write(text)
        return
    path = Path(output)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomically(path, text)
    print(f"schema: {path}; in a YAML file beside it: # yaml-language-server: $schema={path.name}")


def configuration_schema() -> dict[str, Any]:
    """The schema of a whole configuration; every key may be left out, because overlays say only what differs."""
    import lightning

    from commands.training.trainer import Trainer

    builder = SchemaBuilder()
    run = {
        "seed_everything": {"type": ["integer", "boolean"], "description": "Seed of Python, NumPy and PyTorch."},
        "fallback_precision": {"enum": ["32-true", None], "description": "Precision where a device has no bf16 units."},
        "ckpt_path": {"type": ["string", "null"], "description": "Checkpoint to continue from; the newest otherwise."},
        "resume": {"type": "boolean", "description": "false insists on a run from the initial weights."},
        "trainer": builder.arguments(Trainer, extensible=True),
        "model": builder.typed(lightning.LightningModule),
        "data": builder.typed(lightning.LightningDataModule),
    }
    return {"$schema": DRAFT, "type": "object", "properties": run, "additionalProperties": False, "$defs": builder.defs}


def function_schema(name: str) -> dict[str, Any]:
    """The schema of the configurations of `recipe`, `constitution` or `compare`, by the signatures of their functions.

    Args:
        name: the command's.
    """
    builder = SchemaBuilder()
    if name == "recipe":
        from commands.recipe.command import run_recipe

        described = builder.arguments(run_recipe)
        for key in NOT_IN_RECIPES:
            described["properties"].pop(key)
    else:
        described = builder.arguments(COMMANDS[name].load())
    return {"$schema": DRAFT, **described, "$defs": builder.defs}


class SchemaBuilder:
    """Schemas of types; those of classes are kept once, in `defs`."""

    def __init__(self) -> None:
        self.defs: dict[str, Any] = {}
        packages = [(name, importlib.import_module(name)) for name in PACKAGES]
        self.exported: dict[str, Any] = {
            f"{package}.{name}": getattr(module, name) for package, module in packages for name in module.__all__
        }

    def typed(self, hint: Any) -> dict[str, Any]:
        """The schema of a type hint; a type that is not known accepts anything."""
        if hint in BASIC:
            return BASIC[hint]
        origin, parts = typing.get_origin(hint), typing.get_args(hint)
        if origin is Literal:
            return {"enum": list(parts)}
        if origin in (typing.Union, types.UnionType):
            options = [self.typed(part) for part in parts]
            return {} if {} in options else {"anyOf": options}
        if origin in (list, set, frozenset, tuple) or getattr(origin, "__module__", "") == "collections.abc":
            if origin in (list, set, frozenset) or origin.__name__ in ("Sequence", "Iterable"):
                return {"type": "array", "items": self.typed(parts[0])}
            return {"type": "array"} if origin is tuple else {}
        if origin is dict:
            return {"type": "object", "additionalProperties": self.typed(parts[1])}
        return self.instance(hint) if inspect.isclass(hint) and hint is not Any else {}

    def instance(self, base: type) -> dict[str, Any]:
        """An object of a class or of a class derived from it: by `class_path`, or a dataclass by its fields."""
        if base.__module__.split(".")[0] not in (*OWN, "lightning"):
            return {}
        name = f"{base.__module__}.{base.__qualname__}"
        if name not in self.defs:
            self.defs[name] = {}  # a class may contain itself
            options = [self.by_class_path(path) for path, one in self.exported.items() if _is_subclass(one, base)]
            if base.__module__.split(".")[0] in OWN:  # its class_path may be left out
                options.append(self.arguments(base))
            # An overlay may change arguments of a class that another file names.
            overlay = {"type": "object", "properties": {"init_args": {"type": "object"}}, "additionalProperties": False}
            self.defs[name] = {"anyOf": [*options, OTHERS, overlay, {"type": "string"}]}
        return {"$ref": f"#/$defs/{name}"}

    def by_class_path(self, path: str) -> dict[str, Any]:
        """`class_path` and `init_args` of one class."""
        if path not in self.defs:
            self.defs[path] = {}
            self.defs[path] = {
                "type": "object",
                "description": _first_line(self.exported[path]),
                "properties": {
                    "class_path": {"const": path},
                    "init_args": self.arguments(self.exported[path]),
                    "dict_kwargs": {"type": "object"},
                },
                "required": ["class_path"],
                "additionalProperties": False,
            }
        return {"$ref": f"#/$defs/{path}"}

    def arguments(self, made: Any, extensible: bool = False) -> dict[str, Any]:
        """The arguments of a class, with the lines of its docstring.

        Args:
            made: a class, or a function that makes an object.
            extensible: lists may also be given with `+`, see `commands.training.defaults`.
        """
        found, described = parameters(made), descriptions(made)
        properties: dict[str, Any] = {}
        for name, (hint, default) in found.items():
            entry = dict(self.typed(hint))
            if name in described:
                entry["description"] = described[name]
            if isinstance(default, bool | int | float | str):
                entry["default"] = default
            properties[name] = entry
            if extensible and name in ("callbacks", "logger", "plugins"):
                properties[f"{name}+"] = entry
        return {"type": "object", "properties": properties, "additionalProperties": False}


def parameters(made: Any) -> dict[str, tuple[Any, Any]]:
    """Type hint and default of each parameter; `**further` are those of the base class."""
    found: dict[str, tuple[Any, Any]] = {}
    for owner in made.__mro__ if inspect.isclass(made) else [made]:
        if inspect.isclass(owner) and "__init__" not in vars(owner):
            continue
        function = owner.__init__ if inspect.isclass(owner) else owner
        listed = list(inspect.signature(function).parameters.values())
        hints = typing.get_type_hints(inspect.unwrap(function))
        for one in listed[1:] if inspect.isclass(owner) else listed:
            if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL):
                found.setdefault(one.name, (hints.get(one.name, Any), one.default))
        if not any(one.kind is one.VAR_KEYWORD for one in listed):
            break
    return found


def descriptions(made: Any) -> dict[str, str]:
    """Lines of a docstring's `Args`, those of the base classes too."""
    found: dict[str, str] = {}
    for owner in reversed(made.__mro__ if inspect.isclass(made) else [made]):
        for text in (owner.__doc__, owner.__init__.__doc__ if inspect.isclass(owner) else None):
            found |= {one.arg_name: one.description or "" for one in parse(text or "").params}
    return found


def _first_line(made: Any) -> str:
    return (made.__doc__ or "").strip().split("\n")[0]


def _is_subclass(made: Any, base: type) -> bool:
    """Whether a class is derived from another, or a function says that it returns such an object."""
    if inspect.isclass(made):
        return issubclass(made, base)
    returned = typing.get_type_hints(made).get("return")
    return inspect.isclass(returned) and issubclass(returned, base)
