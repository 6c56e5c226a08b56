"""Import rules, import cycles, folder sizes and file lengths, read from the source."""

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
MODELING = {"common", "models"}
EVERYTHING = {"common", "models", "datamodules", "strategies", "alignment", "callbacks", "commands"}
FORMATS = "datamodules/readers/formats"
READING = {"common", "datamodules/readers", FORMATS, f"{FORMATS}/markup", f"{FORMATS}/web"}
CURATION = "datamodules/curation"
ALLOWED: dict[str, set[str]] = {
    "common/compute": {"common"},
    "common/stored_models": {"common"},
    "common": {"common/compute"},
    "models/attention_kernels": {"common"},
    "models/optimizers": {"common"},
    "models/losses": {"common", "models"},
    "models": {"common", "models/attention_kernels", "models/losses", "models/optimizers"},
    "models/inference": {"common", "models"},
    "models/weights": {"common", "models"},
    FORMATS: {"common", f"{FORMATS}/markup"},
    f"{FORMATS}/markup": {"common", FORMATS},
    f"{FORMATS}/web": {"common", FORMATS, f"{FORMATS}/markup"},
    "datamodules/readers": READING,
    f"{CURATION}/words": {"common"},
    f"{CURATION}/deduplication": {"common", f"{CURATION}/words"},
    f"{CURATION}/filters": {*READING, f"{CURATION}/words", f"{CURATION}/deduplication"},
    f"{CURATION}/personal_data": {"common", f"{CURATION}/filters"},
    f"{CURATION}/passes": {*READING, *(f"{CURATION}/{name}" for name in ("deduplication", "filters", "personal_data"))},
    f"{CURATION}/reports": {*READING, f"{CURATION}/filters", f"{CURATION}/passes"},
    CURATION: {
        *READING,
        *(f"{CURATION}/{name}" for name in ("deduplication", "filters", "personal_data", "passes", "reports")),
    },
    "datamodules/tokenization": {"common"},
    "datamodules/shards": {*READING, "datamodules/tokenization"},
    "datamodules/mixing": {"common", "datamodules/shards"},
    "datamodules/conversations": {*READING, "datamodules/tokenization", "datamodules/shards"},
    "datamodules": {"common", "datamodules/*"},
    "strategies/parallel": MODELING,
    "strategies": {*MODELING, "strategies/parallel"},
    "strategies/planner": {*MODELING, "strategies", "strategies/parallel"},
    "alignment": MODELING,
    "alignment/rewards/sandbox": {"common"},
    "alignment/rewards": {*MODELING, "alignment", "alignment/rewards/sandbox"},
    "alignment/preferences": {*MODELING, "alignment"},
    "alignment/constitutional": {*MODELING, "alignment"},
    "alignment/reinforcement/engines": {*MODELING, "alignment", "alignment/rewards"},
    "alignment/reinforcement": {
        *MODELING,
        "alignment",
        "alignment/rewards",
        "alignment/preferences",
        "alignment/reinforcement/engines",
    },
    "alignment/comparison": {
        *MODELING,
        "alignment",
        "alignment/rewards",
        "alignment/reinforcement",
        "alignment/reinforcement/engines",
    },
    "callbacks/reports": {"common"},
    "callbacks": {*MODELING, "callbacks/reports"},
    "commands": {*EVERYTHING, "commands/*"},
    **{f"commands/{name}": EVERYTHING for name in ("compare", "models", "recipe", "training")},
    **{f"commands/{name}": {*EVERYTHING, "commands/training"} for name in ("data", "plan")},
    "main": {"commands"},
}
"""Folder to the folders that its modules may import besides their own; a whole other package, or `package/*` for all
folders below the own one. The `__init__.py` of a package may name whatever lies below it."""
INSTALLED = {
    "common/compute": {"daft", "numba", "numpy", "pyarrow", "ray", "xxhash"},
    "common": {"daft", "filelock", "numba", "numpy", "pyarrow", "ray", "tqdm", "xxhash", "yaml"},
    "callbacks/reports": {"jinja2", "markupsafe", "matplotlib", "numpy"},
}
"""Folder to the installed packages that it may import: neither needs PyTorch."""
PACKAGES = (*sorted(EVERYTHING), "main")
MAX_FILES, MAX_LINES = 15, 400


class Import(NamedTuple):
    """An import statement: the dotted name, and whether it runs only when a function is called."""

    name: str
    deferred: bool


@functools.cache
def imports(source: str) -> tuple[Import, ...]:
    """Imports of a source; each name of `from a import b` as `a.b`, which may be a module or what a module holds.

    A relative import keeps its dots: `from . import b` is `.b`.
    """

    def below(node: ast.AST, deferred: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from (Import(alias.name, deferred) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                origin = "." * child.level + (f"{child.module}." if child.module else "")
                yield from (Import(f"{origin}{alias.name}", deferred) for alias in child.names)
            yield from below(child, deferred or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))

    return tuple(below(ast.parse(source), False))


def project_modules() -> dict[str, Path]:
    """Dotted name to file of every module of the packages."""
    found = {}
    for package in PACKAGES:
        for path in [ROOT / "main.py"] if package == "main" else sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = project_modules()


def module_of(name: str) -> str | None:
    """The module of this project that a dotted name is, or is defined in; None for what is installed."""
    above = name.rpartition(".")[0]
    return next((each for each in (name, above) if each in MODULES), None)


def folder_of(module: str) -> str:
    """The folder of a module as the table names it."""
    path = MODULES[module].relative_to(ROOT)
    return path.stem if path.parent == Path() else path.parent.as_posix()


@functools.cache
def graph(deferred: bool) -> dict[str, set[str]]:
    """Module to the modules of this project that it imports, with or without those within functions."""
    return {
        module: {
            target
            for found in imports(path.read_text(encoding="utf-8"))
            if (deferred or not found.deferred) and (target := module_of(found.name)) not in (None, module)
        }
        for module, path in MODULES.items()
    }


def may_import(folder: str, target: str) -> bool:
    """Whether modules of a folder may import those of another."""
    package = target.split("/")[0]
    if package != folder.split("/")[0] and package in ALLOWED[folder]:
        return True
    return target == folder or target in ALLOWED[folder] or f"{folder}/*" in ALLOWED[folder]


def cycle(edges: Mapping[str, set[str]]) -> list[str]:
    """A cycle of a directed graph as a path that ends where it begins, empty where there is none."""
    done: set[str] = set()

    def visit(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return []
        found = next((found for target in sorted(edges[node]) if (found := visit(target, [*path, node]))), [])
        done.add(node)
        return found

    return next((found for node in sorted(edges) if (found := visit(node, []))), [])


def tracked_files() -> list[Path]:
    """Python files of the repository, relative to its root."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [path for path in map(Path, listed.stdout.splitlines()) if (ROOT / path).is_file()]


def test_every_folder_has_a_rule() -> None:
    assert {folder_of(module) for module in MODULES} == ALLOWED.keys()


@pytest.mark.parametrize("folder", ALLOWED)
def test_folders_import_only_what_they_may(folder: str) -> None:
    forbidden = {
        f"{module} imports {target}"
        for module, targets in graph(deferred=True).items()
        if folder_of(module) == folder
        for target in targets
        if not may_import(folder, folder_of(target))
        and not (MODULES[module].name == "__init__.py" and target.startswith(f"{module}."))
    }
    assert not forbidden


def test_no_package_imports_tests_or_benchmarks() -> None:
    found = {(module, each.name) for module, path in MODULES.items() for each in imports(path.read_text("utf-8"))}
    assert not {pair for pair in found if pair[1].split(".")[0] in ("tests", "benchmarks")}


def test_imports_are_absolute() -> None:
    """The rules below read names from the root on; a relative import would pass them unseen."""
    assert not {pair for pair in imports_of_files() if pair[1].startswith(".")}


def test_no_test_module_and_no_conftest_is_imported() -> None:
    """What several tests use lies in tests/helpers: importing a test runs its module, fixtures and all, once more."""
    assert not {pair for pair in imports_of_files() if names_a_test(pair[1])}


def imports_of_files() -> set[tuple[str, str]]:
    """File and imported name, of every Python file of the repository."""
    return {
        (path.as_posix(), each.name)
        for path in tracked_files()
        for each in imports((ROOT / path).read_text(encoding="utf-8"))
    }


def names_a_test(name: str) -> bool:
    """Whether a dotted name is a module of tests or of fixtures, or something within one."""
    parts = name.split(".")
    return parts[0] == "tests" and any(part == "conftest" or part.startswith("test_") for part in parts)


@pytest.mark.parametrize("folder", INSTALLED)
def test_the_ground_floor_and_reports_need_no_pytorch(folder: str) -> None:
    names = {
        each.name.split(".")[0]
        for module, path in MODULES.items()
        if folder_of(module) == folder
        for each in imports(path.read_text(encoding="utf-8"))
    }
    assert not names & {"torch", "lightning", "torchmetrics"}
    assert names - set(PACKAGES) - sys.stdlib_module_names <= INSTALLED[folder]


@pytest.mark.parametrize("deferred", [False, True])
def test_no_module_imports_itself_by_way_of_others(deferred: bool) -> None:
    """Also not within functions: a deferred import saves time here, it breaks no cycle."""
    assert cycle(graph(deferred)) == []


def test_folders_have_at_most_15_files() -> None:
    folders = [path.parent.as_posix() for path in tracked_files() if path.name != "__init__.py"]
    assert {folder for folder in folders if folders.count(folder) > MAX_FILES} == set()


def test_files_have_at_most_400_lines() -> None:
    long = {
        path.as_posix() for path in tracked_files() if len((ROOT / path).read_text("utf-8").splitlines()) > MAX_LINES
    }
    assert not long


def test_violations_are_seen() -> None:
    source = "import torch\nif True:\n    from main import main\ndef f():\n    import callbacks.report as r\n"
    assert imports(source) == (
        Import("torch", False),
        Import("main.main", False),
        Import("callbacks.report", True),
    )
    assert imports("from . import a\nfrom ..b import c") == (Import(".a", False), Import("..b.c", False))
    assert names_a_test("tests.models.test_config.SHAPE")
    assert names_a_test("tests.conftest.configure")
    assert not names_a_test("tests.helpers.corpus.ROOT")
    assert module_of("main.main") == "main"
    assert module_of("torch") is None
    assert not may_import("models", "datamodules/readers")
    assert not may_import("datamodules/shards", "datamodules/mixing")
    assert may_import("datamodules", "datamodules/mixing")
    assert may_import("alignment/rewards", "models/inference")
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
