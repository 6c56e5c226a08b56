"""Lazy exports of a package: a class is imported when it is first used, not with its package.

The import statements stay where readers and type checkers look for them, under `if TYPE_CHECKING`, and are read from
there; a command that needs one class of a package does not wait for the imports of all others.
"""

import ast
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def lazy_exports(package: str, file: str) -> Callable[[str], Any]:
    """`__getattr__` of a package (PEP 562) for the names that its `if TYPE_CHECKING` block imports.

    Args:
        package: name of the package.
        file: path of its `__init__.py`.
    """
    homes: dict[str, str] = {}

    def read() -> None:
        for node in ast.parse(Path(file).read_text(encoding="utf-8")).body:
            if isinstance(node, ast.If):
                for statement in node.body:
                    if isinstance(statement, ast.ImportFrom) and statement.module:
                        homes.update({alias.asname or alias.name: statement.module for alias in statement.names})

    def get(name: str) -> Any:
        if not homes:
            read()
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(homes[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    return get
