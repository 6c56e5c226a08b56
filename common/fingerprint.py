"""Fingerprints of settings and of source code, from which the names of prepared folders are made.

Source code is fingerprinted by what it does: the abstract syntax tree without docstrings and comments, of a module and
of all modules of this project that it imports. A comment edited makes nothing again; a line of a function that a step
calls three imports away makes the step's result again. It is an over-estimate: a function that is imported and never
called counts too. The versions of installed libraries that a closure imports count as well, since they decide its
bytes.
"""

import ast
import functools
import importlib.metadata
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import xxhash

ROOT = Path(__file__).parents[1]
"""Folder of this project's packages."""
OBSERVERS = ("callbacks", "common.run_folder")
"""Packages and modules that only watch: what they import changes no result."""
NEUTRAL = frozenset(
    {
        "torch",
        "lightning",
        "torchmetrics",
        "wandb",
        "tqdm",
        "filelock",
        "matplotlib",
        "typing_extensions",
        "yaml",
        "xxhash",
    }
)
"""Libraries that a closure may import without deciding the bytes of what is prepared."""


def fingerprint(*inputs: Any) -> str:
    """Twelve hexadecimal digits of JSON-able inputs; the same inputs give the same digits on every machine."""
    text = json.dumps(inputs, sort_keys=True, ensure_ascii=True)
    return xxhash.xxh3_64_hexdigest(text.encode())[:12]


def code_fingerprint(*modules: str, without: Iterable[str] = ()) -> str:
    """Fingerprint of modules by name, of all of this project that they import, and of the libraries' versions.

    Args:
        modules: dotted names, as `datamodules.curation.filters.gopher`; a class gives its own by `__module__`.
        without: prefixes of dotted names that do not decide the result, as reports.
    """
    prefixes = (*OBSERVERS, *without)
    files = import_closure([file for name in modules if (file := module_file(name)) is not None], prefixes)
    code = {path.relative_to(ROOT).as_posix(): ast_fingerprint(path) for path in sorted(files)}
    return fingerprint(code, library_versions(files))


def library_versions(files: Iterable[Path]) -> dict[str, str]:
    """Versions of the installed distributions that source files import, those in `NEUTRAL` left out."""
    names = {name.split(".")[0] for file in files for name in imported_names(file.read_text(encoding="utf-8"))}
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
        without: prefixes of dotted names that are not followed.
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
    return [
        file
        for name in imported_names(path.read_text(encoding="utf-8"))
        if not name.startswith(without) and (file := module_file(name)) is not None
    ]


def imported_names(source: str) -> Iterator[str]:
    """Dotted names in the import statements of a source, each of which may be a module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@functools.cache
def ast_fingerprint(path: Path) -> str:
    """Fingerprint of a source file's syntax tree: comments, docstrings and layout do not count."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(body := getattr(node, "body", None), list):
            node.body = [line for line in body if not _is_text(line)] or [ast.Pass()]  # type: ignore[attr-defined]
    return xxhash.xxh3_64_hexdigest(ast.unparse(tree).encode())[:12]


def _is_text(node: ast.AST) -> bool:
    """Whether a statement is nothing but a string."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
