"""Commands that are plain functions: their signature gives the options, their docstring the help.

The parser is jsonargparse's own and not Lightning's, whose import costs more than most of these commands.
"""

import inspect
import itertools
from collections.abc import Callable
from typing import Any

from jsonargparse import ActionConfigFile, ArgumentParser

from commands.locate import given
from commands.mistakes import fail
from commands.registry import Command, example_of
from commands.suggestions import explain


class FunctionParser(ArgumentParser):
    """Parser that reports a mistake in one line, with exit status 2, and shows an example at the top of its help."""

    example = ""

    def _load_config_parser_mode(self, content: str, *args: Any, **kwargs: Any) -> Any:
        return super()._load_config_parser_mode(content if content.strip() else "{}", *args, **kwargs)

    def parse_args(self, args: Any = None, *further: Any, **kwargs: Any) -> Any:
        """As jsonargparse; what was given is kept for messages."""
        with given(args or ()):
            return super().parse_args(args, *further, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> Any:
        fail(explain(message, self))

    def format_help(self, *args: Any, **kwargs: Any) -> str:
        """First what the command does and an example, then the options."""
        text = super().format_help(*args, **kwargs)
        return f"{self.example}\n\n{text}" if self.example else text


def function_parser(command: Command) -> FunctionParser:
    """The parser of a function's command."""
    parser = FunctionParser(prog=f"llm {command.name}")
    parser.example = example_of(command.name)
    parser.add_argument("-c", "--config", action=ActionConfigFile, help="YAML file; later ones override earlier ones")
    parser.add_function_arguments(command.load(), as_group=False, sub_configs=True, fail_untyped=True)
    return parser


def switched_on(function: Callable[..., Any], arguments: list[str]) -> list[str]:
    """Arguments in which a bare `--json` is `--json=true`, as with the commands that have flags."""
    flags = {f"--{name}" for name, one in inspect.signature(function).parameters.items() if one.annotation is bool}
    return [
        f"{argument}=true" if argument in flags and (not following or following.startswith("-")) else argument
        for argument, following in itertools.pairwise([*arguments, ""])
    ]


def run_function(command: Command, arguments: list[str]) -> None:
    """Parse the arguments and call the function."""
    parser = function_parser(command)
    arguments = switched_on(command.load(), arguments)
    built = parser.instantiate_classes(parser.parse_args(arguments))
    values = {name: value for name, value in vars(built).items() if name != "config"}
    command.load()(**values)
