"""The list of commands: what `--help` shows, at what price, and that every command is where it is said to be."""

import inspect
import subprocess
import sys
import typing

import pytest

from commands.argument_parser import OF_FIT
from commands.cli import main
from commands.functions import switched_on
from commands.registry import COMMANDS, Command, overview
from commands.suggestions import option_names
from commands.training.lightning_cli import CommandLine
from common.path_lists import path_list
from tests.helpers.command_line import refused
from tests.helpers.corpus import ROOT

FUNCTIONS = [command for command in COMMANDS.values() if command.kind == "function"]


def test_help_lists_every_command_with_one_line() -> None:
    lines = overview().splitlines()
    for command in COMMANDS.values():
        assert [line for line in lines if line.split()[:1] == [command.name]] == [
            line for line in lines if line.startswith(f"  {command.name} ") and command.help in line
        ]
    for group in ("data:", "training:", "alignment:", "models:", "planning:"):
        assert group in lines


def test_help_and_mistakes_import_no_torch() -> None:
    """What a user waits for before anything is computed; one interpreter for all, because none may import it."""
    quick = [
        "--help", "evaluate --help", "convert --help", "generate --help", "plan --help", "parity --help",
        "recipe --help", "plan --budget 1e20", "plan --config missing.yaml", "fit --config missing.yaml",
        "evaluate --input missing --text README.md", "convert --input missing --output made",
        "generate --input missing --prompt a", "plan --hardwre h100", "plan --verify missing", "report --rnu missing",
        "report missing", "fit",
    ]  # fmt: skip
    code = f"""
import sys
from commands.cli import main
for line in {quick!r}:
    try:
        main(line.split())
    except SystemExit:
        pass
    loaded = {{"torch", "lightning"}} & set(sys.modules)
    assert not loaded, (line, loaded)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_options_of_fit_are_those_that_other_commands_pass_on() -> None:
    parser = CommandLine("fit", args=["--config", "configs/quickstart.yaml"], run=False).parser
    assert {name.split(".")[0] for name in option_names(parser)} == set(OF_FIT) - {"ckpt_path", "resume"}


@pytest.mark.end_to_end
def test_the_docstring_of_main_names_every_command() -> None:
    words = (ROOT / "main.py").read_text(encoding="utf-8").replace(",", " ").split()
    assert set(COMMANDS) <= set(words)
    assert len((ROOT / "main.py").read_text(encoding="utf-8").splitlines()) <= 25


@pytest.mark.end_to_end
@pytest.mark.parametrize("command", COMMANDS.values(), ids=lambda command: command.name)
def test_every_command_is_where_the_registry_says(command: Command) -> None:
    assert len(command.help) < 80
    assert command.help.endswith(".")
    if command.kind == "trainer":
        from commands.training.trainer import Trainer

        assert callable(getattr(Trainer, command.target))
    else:
        assert callable(command.load())


@pytest.mark.end_to_end
@pytest.mark.parametrize("name", [command.name for command in COMMANDS.values() if command.kind != "trainer"])
def test_help_of_a_command_begins_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main([name, "--help"])
    assert raised.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    if name != "plan":
        assert f"llm {name} {' '.join(COMMANDS[name].example.split())}" in shown


@pytest.mark.end_to_end
@pytest.mark.parametrize("command", FUNCTIONS, ids=lambda command: command.name)
def test_an_option_that_takes_paths_takes_one(command: Command) -> None:
    """One path and a list of paths are both types of every such option."""
    hints = typing.get_type_hints(command.load())
    for name in inspect.signature(command.load()).parameters:
        parts = set(typing.get_args(hints[name]))
        if hints[name] == list[str] or list[str] in parts:
            assert str in parts, f"{command.name} --{name} takes no single path"


def test_one_path_becomes_a_list() -> None:
    assert path_list("a") == ["a"]
    assert path_list(["a", "b"]) == ["a", "b"]
    assert path_list(None) == []


@pytest.mark.end_to_end
def test_the_version_is_that_of_the_project(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["--version"])
    assert raised.value.code == 0
    assert f'version = "{capsys.readouterr().out.split()[1]}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


@pytest.mark.end_to_end
def test_without_a_command_all_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([])
    assert capsys.readouterr().out.strip() == overview()


@pytest.mark.end_to_end
def test_help_says_what_the_command_is_and_lists_no_part_of_the_classes(capsys: pytest.CaptureFixture[str]) -> None:
    shown = {}
    for name in ("fit", "prepare", "inspect", "export"):
        with pytest.raises(SystemExit):
            main([name, "--help"])
        shown[name] = " ".join(capsys.readouterr().out.split())
        assert f"usage: llm {name} [-" in shown[name]
        assert "known subclasses" not in shown[name]
        assert "command line tool" not in shown[name]
    assert "--dry-run --hardware h100" in shown["fit"]
    assert "model, trainer, fallback_precision" in shown["prepare"]
    assert "A DataModule standardizes" not in shown["prepare"]
    for option in ("--data.help", "--model.help"):
        assert f"{option}: name a class, such as" in refused(["fit", option], capsys)


@pytest.mark.end_to_end
def test_a_flag_needs_no_value() -> None:
    function = COMMANDS["scaling_law"].load()
    assert switched_on(function, ["--json", "--last", "0.1"]) == ["--json=true", "--last", "0.1"]
    assert switched_on(function, ["--runs", "a", "--json"]) == ["--runs", "a", "--json=true"]
    assert switched_on(function, ["--json", "false"]) == ["--json", "false"]
