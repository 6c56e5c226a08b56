"""Whole configurations of commands that are not run: what `recipe` fingerprints and `plan` computes from."""

import contextlib
import inspect
import io
from pathlib import Path
from typing import Any

import yaml

from commands.config_files import require_config_files
from commands.registry import COMMANDS
from common.errors import InputError


def resolve_config(arguments: list[str]) -> tuple[dict[str, Any], list[Path]]:
    """The whole configuration of a command, which is not run, and the source of one that names no classes.

    Args:
        arguments: command and its arguments.

    Raises:
        InputError: where the command line would end with it.
    """
    name, *rest = arguments
    command = COMMANDS.get(name)
    if command is None or command.kind == "arguments":
        raise InputError(f"{name} is not a command with a configuration: take fit, or another that reads --config")
    require_config_files(rest)
    printed, mistake = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(mistake):
            if command.kind == "function":
                from commands.functions import function_parser

                functions = function_parser(command)
                printed.write(functions.dump(functions.parse_args(rest)))
            elif command.kind == "data":
                from commands.data.datamodule_parser import parse_data_command

                parser, config = parse_data_command(command, rest)
                printed.write(parser.dump(config))
            else:
                from commands.training.lightning_cli import build_cli

                build_cli([*arguments, "--print_config"])
    except SystemExit as end:
        if end.code:
            # Warnings of libraries may come before it.
            raise InputError(mistake.getvalue().strip().splitlines()[-1].removeprefix("error: ")) from end
    source = [Path(inspect.getfile(command.load()))] if command.kind == "function" else []
    resolved = yaml.safe_load(printed.getvalue())
    if command.kind == "trainer":
        # --print_config does not ask for them.
        for part in ("model", "data"):
            if resolved.get(part) is None:
                raise InputError(f"{part}: required, give a configuration, as: llm {name} {command.example}")
    return resolved, source
