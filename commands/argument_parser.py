"""Argument parser of commands that read their own options: help begins with an example, a mistake is one line.

argparse in place of jsonargparse: what these commands do not know they pass on to the configuration that `fit` reads.
"""

import argparse
from typing import NoReturn

from commands.registry import example_of
from common.errors import InputError


class CommandArguments(argparse.ArgumentParser):
    """Argument parser of one command.

    Args:
        command: its name in the registry.
        epilog: last paragraph of the help.
    """

    def __init__(self, command: str, epilog: str) -> None:
        super().__init__(f"llm {command}", epilog=epilog, allow_abbrev=False)
        self.command = command

    def error(self, message: str) -> NoReturn:
        """Refuse the arguments in one line."""
        raise InputError(f"{self.command}: {message}")

    def format_help(self) -> str:
        """First what the command does and an example, then the options."""
        return f"{example_of(self.command)}\n\n{super().format_help()}"
