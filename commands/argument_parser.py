"""Argument parser of commands that read their own options: help begins with an example, a mistake is one line.

argparse in place of jsonargparse: what these commands do not know they pass on to the configuration that `fit` reads.
An option that neither has is refused here, before PyTorch is imported to read that configuration.
"""

import argparse
from typing import NoReturn

from commands.mistakes import did_you_mean
from commands.registry import example_of
from common.errors import InputError

OF_FIT = (
    "config",
    "seed_everything",
    "trainer",
    "model",
    "data",
    "optimizer",
    "lr_scheduler",
    "fallback_precision",
    "ckpt_path",
    "resume",
)
"""First parts of the options of `fit`; a test holds them against its parser."""


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

    def parse_with_fit(self, arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
        """This command's options, and the rest, which are options of `fit`.

        Raises:
            InputError: for an option of neither.
        """
        given, rest = self.parse_known_args(arguments)
        self.refuse_unknown(rest)
        return given, rest

    def refuse_unknown(self, rest: list[str]) -> None:
        """Refuse options that neither this command nor `fit` has.

        Args:
            rest: options and values that are not this command's.

        Raises:
            InputError: with the closest options.
        """
        own = [option for action in self._actions for option in action.option_strings]
        for argument in rest:
            option = argument.partition("=")[0]
            if option.startswith("--") and option[2:].split(".")[0].rstrip("+") not in OF_FIT:
                meant = did_you_mean(option, [*own, *(f"--{name}" for name in OF_FIT)])
                listed = [name for name in own if name.startswith("--") and name != "--help"]
                known = f"there are {', '.join(listed)} and those of fit" if listed else "it takes those of fit"
                raise InputError(f"{self.command}: no option is called {option}{meant or f'; {known}'}")
