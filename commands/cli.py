"""Dispatch of the command line: finds the command, imports it, and turns mistakes into one line with status 2.

Nothing heavy is imported before the command is known, so that help comes at once and a command pays only for what it
uses.
"""

import itertools
import os
import sys
from pathlib import Path
from typing import NoReturn

from commands.config_files import require_config_files, require_run_files
from commands.mistakes import did_you_mean, fail, input_error_behind, unusable_path
from commands.registry import COMMANDS, DRY_RUN, Command, overview
from common.compute.cpu_threads import thread_settings, watch_spin
from common.compute.open_files import raise_open_file_limit
from common.console import escape_unprintable
from common.errors import InputError

CLASSES = {"--data.help": "datamodules.PretrainingData", "--model.help": "models.LanguageModel"}
"""Classes to name where the help of one is asked for."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; a user's mistake ends it with one line and status 2."""
    given = sys.argv[1:] if arguments is None else arguments
    escape_unprintable()
    os.environ.update(thread_settings(os.environ))  # OpenMP reads them once, when PyTorch is loaded
    raise_open_file_limit()  # memory maps hold one each; processes that are started inherit it
    if not given or given[0] in ("-h", "--help", "help"):
        print(overview())
        sys.exit(0)
    if given[0] == "--version":
        print(f"llm {version()}")
        sys.exit(0)
    if os.getcwd() not in sys.path:
        # A user's own classes are found from the installed program too, and behind those of this project.
        sys.path.append(os.getcwd())
    command = COMMANDS.get(given[0])
    if command is None:
        no_such_command(given[0])
    try:
        require_config_files(given[1:])
        if command.kind in ("trainer", "data") or command.name in ("plan", "parity", "report"):
            require_run_files(command.name, given[1:])
        run(command, given[1:], whole_process=arguments is None)
    except UnicodeError as error:
        fail(str(error))
    except OSError as error:
        message = unusable_path(error)
        if message is None:
            raise
        fail(message)
    except ValueError as error:
        mistake = input_error_behind(error)
        if mistake is None:
            raise
        fail(str(mistake))


def run(command: Command, arguments: list[str], whole_process: bool) -> None:
    """Run a command.

    Args:
        command: of the registry.
        arguments: those after its name.
        whole_process: whether all that this process does is part of the run, see `callbacks.goodput.begin_run`.
    """
    is_dry_run = command.name == "fit" and not set(DRY_RUN).isdisjoint(arguments)
    if is_dry_run:
        arguments = [argument for argument in arguments if argument not in DRY_RUN]
    if not arguments and command.kind in ("trainer", "data"):
        raise InputError(f"{command.name}: give a configuration, as: llm {command.name} {command.example}")
    for argument, following in itertools.pairwise([*arguments, ""]):
        if argument in ("--data.help", "--model.help") and (not following or following.startswith("-")):
            raise InputError(f"{argument}: name a class, such as {argument} {CLASSES[argument]}")
    if command.kind == "arguments":
        from commands.resolve import resolve_config

        command.load()(arguments, resolve_config)
    elif command.kind == "function":
        from commands.functions import run_function

        run_function(command, arguments)
    elif command.kind == "data":
        from commands.data.datamodule_parser import run_data_command
        from commands.resolve import resolve_config
        from commands.training.lightning_cli import silence_third_party_logs

        silence_third_party_logs()
        run_data_command(command, arguments, resolve_config)
    elif is_dry_run:
        from commands.plan.dry_run import dry_run
        from commands.resolve import resolve_config

        dry_run(["fit", *arguments], resolve_config)
    else:
        run_trainer(command, arguments, whole_process)


def run_trainer(command: Command, arguments: list[str], whole_process: bool) -> None:
    """Run a command of the Trainer."""
    import torch
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    from callbacks.goodput import begin_run
    from commands.training.lightning_cli import build_cli, silence_third_party_logs

    begin_run(whole_process)
    watch_spin(torch.get_num_threads())
    silence_third_party_logs()
    try:
        build_cli([command.name, *arguments])
    except MisconfigurationException as error:
        fail(str(error))


def no_such_command(name: str) -> NoReturn:
    """End with the closest commands."""
    if name.startswith("-"):
        fail(f"{name}: the first argument is a command, `llm --help` lists them")
    hint = did_you_mean(name, COMMANDS)
    fail(f"no command is called {name}{hint or '; `llm --help` lists them'}")


def version() -> str:
    """The project's version, from `pyproject.toml` where it runs from its folder."""
    import tomllib
    from importlib import metadata

    file = Path(__file__).parents[1] / "pyproject.toml"
    if file.is_file():
        return str(tomllib.loads(file.read_text(encoding="utf-8"))["project"]["version"])
    return metadata.version("lightning-language-models")


if __name__ == "__main__":
    main()
