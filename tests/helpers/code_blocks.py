"""Code blocks of Markdown pages, and running those that a page marks as run by a test."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from main import main

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```(\w*)(?: title=\"([^\"]*)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RUN = "run by a test"


@dataclass(frozen=True)
class CodeBlock:
    """A fenced block.

    Attributes:
        language: after the fence; empty where there is none.
        title: `run by a test`, the name of a file that the block is, or empty.
        text: what is inside.
    """

    language: str
    title: str
    text: str


def code_blocks(page: Path) -> list[CodeBlock]:
    """All fenced blocks of a page, in order."""
    return [CodeBlock(*found) for found in FENCE.findall(page.read_text(encoding="utf-8"))]


def commands(text: str) -> Iterator[list[str]]:
    """Arguments of every `llm` or `python main.py` command of a shell block; other lines are left out."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["llm"]:
            yield words[1:]
        elif words[:2] == ["python", "main.py"]:
            yield words[2:]


def run_command(arguments: list[str]) -> None:
    """A command in this process; an exit status other than 0 fails."""
    status: object = 0
    try:
        main(arguments)
    except SystemExit as end:
        status = end.code
    assert not status, f"{shlex.join(arguments)} ended with status {status}"


def run_blocks(page: Path) -> int:
    """Write the files and run the marked blocks of a page in order, in the current folder; how many were run."""
    count = 0
    for block in code_blocks(page):
        if block.title == RUN and block.language == "python":
            exec(compile(block.text, f"{page.name}, block {count + 1}", "exec"), {"__name__": "__main__"})
        elif block.title == RUN:
            found = list(commands(block.text))
            assert found, f"{page.name}: a block of {block.language} that is run by a test holds no command"
            for arguments in found:
                run_command(arguments)
        elif block.title:
            Path(block.title).write_text(block.text, encoding="utf-8")
        count += block.title == RUN
    return count
