"""Fingerprints of settings and of source code, from which the names of prepared folders are made.

Source code counts by what it does: the abstract syntax tree, without docstrings and comments, of a module and of all
modules of this project that it imports, and the versions of the installed libraries that these import. An edited
comment makes nothing again; an edited line three imports away does. It is an over-estimate: a function that is imported
and never called counts too. The `__init__.py` of a package counts only where something is imported from it by that
name.
"""

import ast
import functools
import importlib.metadata
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import xxhash

ROOT = Path(__file__).parents[1]
"""Folder of this project's packages."""
OBSERVERS = (
    "callbacks",
    "common.artifacts",
    "common.console",
    "common.contracts",
    "common.errors",
    "common.files",
    "common.fingerprint",
    "common.path_lists",
    "common.run_folder",
)
"""Modules that show, lock or write what others decide: an edit of one changes no result."""
NEUTRAL = frozenset(
    {
        "aiohttp",
        "filelock",
        "lightning",
        "matplotlib",
        "ray",
        "torch",
        "torchmetrics",
        "tqdm",
        "typing_extensions",
        "wandb",
        "xxhash",
        "yaml",
    }
)
"""Libraries that decide no byte of what is prepared."""


def fingerprint(*inputs: Any) -> str:
    """Fingerprint of JSON-able inputs, twelve hexadecimal digits, the same on every machine."""
    text = json.dumps(inputs, sort_keys=True, ensure_ascii=True)
    return xxhash.xxh3_64_hexdigest(text.encode())[:12]


def code_fingerprint(*modules: str, without: Iterable[str] = ()) -> str:
    """Fingerprint of modules by name, of all of this project that they import, and of the libraries' versions.

    Args:
        modules: dotted names, as `datamodules.curation.filters.gopher`; a class gives its own by `__module__`. Modules
            of other projects do not count.
        without: dotted names of modules and packages that do not decide the result, as reports.
    """
    files = import_closure(filter(None, map(module_file, modules)), (*OBSERVERS, *without))
    code = {path.relative_to(ROOT).as_posix(): ast_fingerprint(path) for path in sorted(files)}
    return fingerprint(code, library_versions(files))


def library_versions(files: Iterable[Path]) -> dict[str, str]:
    """Versions of the installed distributions that source files import, those in `NEUTRAL` left out."""
    names = {name.split(".")[0] for file in files for name in _source(file).imports}
    distributions = _distributions()
    wanted = {distribution for name in names - NEUTRAL for distribution in distributions.get(name, ())}
    return {name: importlib.metadata.version(name) for name in sorted(wanted)}


@functools.cache
def _distributions() -> dict[str, list[str]]:
    """Installed distributions by the top-level module they bring; this project itself is none of them."""
    found = importlib.metadata.packages_distributions()
    return {name: sorted(set(owners)) for name, owners in found.items() if module_file(name) is None}


def module_file(name: str) -> Path | None:
    """The source file of a module of this project, or None."""
    path = ROOT.joinpath(*name.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def import_closure(files: Iterable[Path], without: tuple[str, ...] = OBSERVERS) -> set[Path]:
    """Import closure: these files and all of this project that they import, directly or not.

    Args:
        files: source files of this project.
        without: dotted names of modules and packages that are not followed.
    """
    found: set[Path] = set()
    waiting = list(files)
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += imported_files(path, without)
    return found


@functools.cache
def imported_files(path: Path, without: tuple[str, ...] = OBSERVERS) -> list[Path]:
    """Files of this project that a file imports."""
    names = (name for name in _source(path).imports if not any(f"{name}.".startswith(f"{top}.") for top in without))
    return [file for name in names if (file := module_file(name)) is not None]


def ast_fingerprint(path: Path) -> str:
    """Fingerprint of a source file's syntax tree: comments, docstrings and layout do not count."""
    return _source(path).fingerprint


class _Source(NamedTuple):
    """Dotted names that a source file imports, each of which may be a module, and the fingerprint of its tree."""

    imports: tuple[str, ...]
    fingerprint: str


@functools.cache
def _source(path: Path) -> _Source:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imports: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imports += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        if isinstance(body := getattr(node, "body", None), list):
            node.body = [line for line in body if not _is_text(line)] or [ast.Pass()]  # type: ignore[attr-defined]
    return _Source(tuple(imports), xxhash.xxh3_64_hexdigest(ast.unparse(tree).encode())[:12])


def _is_text(node: ast.AST) -> bool:
    """True if a statement is nothing but a string."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
