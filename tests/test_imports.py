"""Who may import whom: read from the source, so that a shortcut taken in a hurry shows."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED = {
    "errors": set(),
    "common": set(),
    "models": {"models", "errors"},
    "datamodules": {"datamodules", "errors"},
    "strategies": {"strategies", "models", "errors", "common"},
    "alignment": {"alignment", "models", "errors"},
    "callbacks": {"callbacks", "models", "errors"},
}
LOCAL = {*ALLOWED, "main", "commands", "tests", "benchmarks"}


def local_imports(source: str) -> set[str]:
    """Top-level names of this project that a module imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found & LOCAL


def modules(package: str) -> list[Path]:
    folder = ROOT / package
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [ROOT / f"{package}.py"]


@pytest.mark.parametrize(
    "package", [name for name in ALLOWED if (ROOT / name).is_dir() or (ROOT / f"{name}.py").exists()]
)
def test_packages_import_only_what_they_may(package: str) -> None:
    found = modules(package)
    assert found
    forbidden = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in found
        for name in local_imports(path.read_text(encoding="utf-8")) - ALLOWED[package]
    }
    assert not forbidden


def test_a_violation_is_seen() -> None:
    assert local_imports("import torch\nif True:\n    from main import Trainer\nimport callbacks.report as r") == {
        "main",
        "callbacks",
    }
    assert local_imports("from datamodules import Files") - ALLOWED["models"] == {"datamodules"}
