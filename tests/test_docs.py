"""Documentation: the site builds, its examples run, and a newcomer's searches land in the right file."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from common import run_folder
from tests.helpers.code_blocks import RUN, code_blocks, run_blocks
from tests.helpers.distributed import warm_program

ROOT = Path(__file__).parent.parent
PACKAGES = ("common", "models", "datamodules", "strategies", "alignment", "callbacks", "commands")
PAGES = sorted((ROOT / "docs").rglob("*.md"))
RUNNABLE = [page for page in PAGES if any(block.title == RUN for block in code_blocks(page))]
NOT_SEARCHED = ("tests/", "benchmarks/", "examples/", "CHANGELOG.md", "README.md", "docs/architecture.md")
NO_NOUN = re.compile(
    r"(what|which|how|where|who|whose|whoever|when|whether|why|if|it|this is|the one way)\b", re.IGNORECASE
)
LONGEST_FIRST_LINE = 120
MOST_FILES = 5
"""Files that a search may find; a reader looks through so few within a minute."""


def name(page: Path) -> str:
    return str(page.relative_to(ROOT / "docs"))


def modules() -> list[Path]:
    """Every module that has a docstring or should have one."""
    found = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return [ROOT / "main.py", *(path for path in found if path.read_text(encoding="utf-8").strip())]


@pytest.mark.end_to_end
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [*warm_program(), "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    page = (tmp_path / "site/reference/commands/index.html").read_text(encoding="utf-8")
    assert all(f'id="{command}"' in page for command in ("prepare", "fit", "generate", "constitution", "plan"))
    assert "models.AdamW" in (tmp_path / "site/reference/configuration/index.html").read_text(encoding="utf-8")
    assert not re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=\"https?://", page)


@pytest.mark.end_to_end
@pytest.mark.parametrize("page", RUNNABLE, ids=name)
def test_marked_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    try:
        assert run_blocks(page)
    finally:
        for module in {path.stem for path in tmp_path.glob("*.py")} & set(sys.modules) - before:
            del sys.modules[module]


def test_every_page_about_extending_has_an_example_that_runs() -> None:
    assert {page for page in PAGES if page.parent.name == "extending"} <= set(RUNNABLE)


def test_files_that_pages_name_exist() -> None:
    missing = []
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *PAGES]:
        prose = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        tops = "|".join((*PACKAGES, "docs", "configs", "tests", "examples", "benchmarks"))
        paths = [path for path in re.findall(rf"`((?:{tops})/[\w./-]*)`", prose) if "NAME" not in path]
        missing += [f"{page.relative_to(ROOT)}: {path}" for path in paths if not (ROOT / path).exists()]
    assert not missing


def test_classes_that_pages_name_exist() -> None:
    missing = []
    for page in [ROOT / "README.md", *PAGES]:
        text = page.read_text(encoding="utf-8")
        for package, found in re.findall(r"\b(models|datamodules|alignment|strategies|callbacks)\.([A-Z]\w+)", text):
            if found not in exported(package):
                missing.append(f"{page.relative_to(ROOT)}: {package}.{found}")
    assert not missing


def exported(package: str) -> list[str]:
    """Names that YAML may use."""
    tree = ast.parse((ROOT / package / "__init__.py").read_text(encoding="utf-8"))
    lists = [node.value for node in tree.body if isinstance(node, ast.Assign) and isinstance(node.value, ast.List)]
    return [str(found) for value in lists for found in ast.literal_eval(value)]


def test_the_page_about_the_run_folder_names_every_file() -> None:
    page = (ROOT / "docs/operations/run_folder.md").read_text(encoding="utf-8")
    files = [value for key, value in vars(run_folder).items() if key.isupper() and isinstance(value, str)]
    assert len(files) > 10
    assert [file for file in files if file.replace("{rank}", "RANK") not in page] == []


# Ten questions


def searches() -> list[list[str]]:
    """Rows of the table in the architecture page: question, term, where, file."""
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8").split("## Findable")[1]
    rows = [[cell.strip().strip("`") for cell in row.strip("|").split("|")] for row in text.splitlines() if "|" in row]
    return [row for row in rows if row[0].endswith("?")]


def searched_files() -> Iterator[Path]:
    """Tracked source files and pages."""
    listed = subprocess.run(
        ["git", "ls-files", "*.py", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for line in listed.splitlines():
        if not line.startswith(NOT_SEARCHED):
            yield ROOT / line


def test_there_are_ten_searches() -> None:
    assert len(searches()) == 10


@pytest.mark.parametrize(("question", "term", "where", "file"), searches(), ids=lambda value: value.strip("?"))
def test_findable(question: str, term: str, where: str, file: str) -> None:
    """A search for the field's word lands in the right file, among few."""
    found = []
    for path in searched_files():
        text = path.read_text(encoding="utf-8")
        searched = text.partition("\n")[0] if where == "first line" else text
        if re.search(rf"\b{re.escape(term)}s?\b", searched, flags=re.IGNORECASE):
            found.append(str(path.relative_to(ROOT)))
    assert file in found
    assert len(found) <= MOST_FILES, found


# First lines


def glossary() -> list[str]:
    """Terms of the glossary, in lower case."""
    text = (ROOT / "docs/concepts.md").read_text(encoding="utf-8").split("## Glossary")[1]
    groups = re.findall(r"^- \*\*(.+?)\*\*: \S.*\.$", text, flags=re.MULTILINE)
    assert len(groups) == text.count("\n- ")
    return [term.strip().lower() for group in groups for term in group.split(",")]


def test_the_glossary_defines_each_term_once() -> None:
    terms = glossary()
    assert len(terms) == len(set(terms)) > 60


def names_a_term(line: str, terms: list[str]) -> bool:
    """Whether a line holds a term as whole words, in the singular or the plural."""
    plain = line.lower().replace("-", " ")
    return any(re.search(rf"\b{re.escape(term.replace('-', ' '))}(s|es)?\b", plain) for term in terms)


@pytest.mark.end_to_end
def test_the_first_line_of_every_module_names_a_term_of_the_glossary() -> None:
    terms, wrong = glossary(), []
    for path in modules():
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        if text is None:
            if path.name != "__init__.py":
                wrong.append(f"{path.relative_to(ROOT)}: no docstring")
            continue
        line = text.splitlines()[0]
        if NO_NOUN.match(line) or len(line) > LONGEST_FIRST_LINE or not names_a_term(line, terms):
            wrong.append(f"{path.relative_to(ROOT)}: {line}")
    assert not wrong, "\n".join(wrong)


def test_the_rule_sees_a_sentence_without_a_noun() -> None:
    terms = glossary()
    assert NO_NOUN.match("What becomes of documents by themselves.")
    assert not names_a_term("Things on their way.", terms)
    assert names_a_term("Slot-based KV caches.", terms)
    assert names_a_term("Pipeline stage, cut from a decoder.", terms)
