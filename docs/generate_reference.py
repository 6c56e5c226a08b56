"""Reference pages of the documentation: commands from `--help`, YAML classes and the API from docstrings.

An MkDocs hook. The pages exist in the built site only: text that is generated from the code cannot disagree with it,
and costs that the site is built where the project is installed.
"""

import ast
import contextlib
import io
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
PACKAGES = ("models", "datamodules", "alignment", "strategies", "callbacks")
"""Packages whose `__all__` YAML may name."""
API = (
    "common.contracts",
    "models.decoder",
    "models.kv_cache",
    "models.inference.generation",
    "models.inference.sampling",
    "datamodules.curation.filters.base",
    "datamodules.readers.base",
    "alignment.preferences.losses",
    "alignment.reinforcement.advantages",
    "alignment.rewards.base",
)
"""Modules that are called or extended from Python."""


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages and the pictures of the benchmarks."""
    for path in sorted((ROOT / "benchmarks").rglob("*.png")):
        files.append(File.generated(config, str(path.relative_to(ROOT)), abs_src_path=str(path)))
    for name, text in {"commands": commands(), "configuration": configuration(), "api": api()}.items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links to pictures as a repository's browser resolves them, turned into links within the site."""
    return markdown.replace("../benchmarks/", "benchmarks/") if page.file.src_uri.count("/") == 0 else markdown


def commands() -> str:
    """The page of all commands: the list, then the options of each."""
    overview = shown("--help")
    names = re.findall(r"^ {2,4}([a-z][a-z_]*) {2,}\S", overview, flags=re.MULTILINE)
    parts = ["# Commands", "`python main.py COMMAND` and, once installed, `llm COMMAND`.", fenced(overview)]
    for name in names:
        parts += [f"## {name}", fenced(shown(name, "--help"))]
    return "\n\n".join(parts) + "\n"


def configuration() -> str:
    """The page of all classes that YAML may name by `class_path`."""
    parts = [
        "# Configuration",
        "Every class that a `class_path` in YAML may name, with its `init_args`. A name in YAML is `PACKAGE.CLASS`, "
        "for example `models.AdamW`. `python main.py fit --config FILE --print_config` prints a whole configuration.",
    ]
    for package in PACKAGES:
        parts.append(f"## {package}")
        parts += [f"::: {package}.{name}" for name in sorted(exported(package))]
    return "\n\n".join(parts) + "\n"


def api() -> str:
    """The page of the modules that are called from Python, and a list of all modules."""
    parts = ["# API", "Modules that are called or extended from Python, then the list of all modules."]
    for module in API:
        parts += [f"## {module}", f"::: {module}\n    options:\n      show_root_heading: false"]
    rows = [f"| `{path}` | {line.replace('|', '&#124;')} |" for path, line in first_lines().items()]
    parts += ["## All modules", "| module | subject |\n|---|---|\n" + "\n".join(rows)]
    return "\n\n".join(parts) + "\n"


def exported(package: str) -> list[str]:
    """Names in a package's `__all__`."""
    for node in ast.parse((ROOT / package / "__init__.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and any(getattr(target, "id", "") == "__all__" for target in node.targets):
            return [str(name) for name in ast.literal_eval(node.value)]
    raise ValueError(f"{package}/__init__.py has no __all__")


def first_lines() -> dict[str, str]:
    """First line of the docstring of every module, by path."""
    found = {}
    for package in ("common", *PACKAGES, "commands"):
        for path in sorted((ROOT / package).rglob("*.py")):
            text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
            if text:
                found[str(path.relative_to(ROOT))] = text.splitlines()[0]
    return found


def shown(*arguments: str) -> str:
    """What a command prints."""
    from main import main

    printed, program = io.StringIO(), sys.argv[0]
    sys.argv[0] = "llm"  # the name in the line of usage
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        main(list(arguments))
    sys.argv[0] = program
    return printed.getvalue()


def fenced(text: str) -> str:
    """Text as a block of code."""
    return f"```text\n{text.strip()}\n```"
