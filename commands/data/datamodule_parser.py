"""Commands that need only data: `data:` of a configuration is parsed and built, everything else in it is left alone.

The same file serves `fit` and these; no weights are opened and no trainer is made, so that text can be prepared and
looked at on a machine without an accelerator, and before there is a model.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import yaml
from jsonargparse import Namespace

from commands.config_files import config_files, read_config_file
from commands.registry import Command, example_of
from commands.training.lightning_cli import Parser, add_config_file
from common.errors import InputError

Resolve = Callable[[list[str]], tuple[dict[str, Any], list[Path]]]
UNUSED = ("model", "trainer", "fallback_precision", "seed_everything", "ckpt_path", "resume")
"""Keys of `fit` that these commands accept and do not use."""


class DataParser(Parser):
    """Parser that leaves out what belongs to model and trainer, in files and on the command line."""

    init_from: str | None = None
    """Run that the model begins from, which gives the tokenizer where the data name none."""
    of_fit: list[str]
    """The arguments that `fit` reads too."""

    def _load_config_parser_mode(self, content: str, *args: Any, **kwargs: Any) -> Namespace:
        loaded = yaml.safe_load(content)
        if isinstance(loaded, dict):
            model = loaded.get("model")
            init_from = (model.get("init_args") or {}).get("init_from") if isinstance(model, dict) else None
            self.init_from = (init_from[0] if isinstance(init_from, list) else init_from) or self.init_from
            content = yaml.safe_dump({key: value for key, value in loaded.items() if key not in UNUSED})
        return super()._load_config_parser_mode(content, *args, **kwargs)

    def without_unused(self, arguments: list[str]) -> list[str]:
        """Arguments without the options of model and trainer."""
        kept: list[str] = []
        self.of_fit = []
        left = iter(arguments)
        for argument in left:
            option, equals, value = argument.removeprefix("--").partition("=")
            first = option.split(".")[0].rstrip("+") if argument.startswith("--") else argument
            if first in UNUSED and argument.startswith("--"):
                value = value if equals else next(left, "")
                self.of_fit.append(f"--{option}={value}")
                if option == "model.init_args.init_from":
                    self.init_from = value
                continue
            kept.append(argument)
            if first in ("-c", "config", "data"):
                self.of_fit.append(argument)
                if not equals and argument != "--data.help" and (following := next(left, None)) is not None:
                    kept.append(following)
                    self.of_fit.append(following)
        return kept


def data_parser(command: Command) -> DataParser:
    """The parser of a command that needs only data."""
    parser = DataParser(prog=f"llm {command.name}", description="")
    parser.example = example_of(command.name)
    parser.epilog = f"{', '.join(UNUSED)} of a configuration are accepted and not used: the same file serves fit."
    add_config_file(parser)
    parser.add_lightning_class_args(lightning.LightningDataModule, "data", subclass_mode=True)
    for group in parser._action_groups:
        if str(group.title).startswith("A DataModule"):
            group.title = "Data module"
    parser.add_function_arguments(command.load(), skip={"datamodule"})
    return parser


def parse_data_command(command: Command, arguments: list[str]) -> tuple[DataParser, Namespace]:
    """The parser and what it read, the tokenizer filled in where the model's run gives it."""
    parser = data_parser(command)
    config = parser.parse_args(parser.without_unused(arguments))
    data = config.data.init_args
    if parser.init_from is not None and "tokenizer" in data and data.tokenizer is None:
        data.tokenizer = parser.init_from
    return parser, config


def run_data_command(command: Command, arguments: list[str], resolve: Resolve) -> None:
    """Build the data module of a configuration and call the command with it.

    Args:
        command: of the registry.
        arguments: those after its name.
        resolve: makes the whole configuration of `fit` from its arguments.
    """
    parser, config = parse_data_command(command, arguments)
    note_mistakes_of_fit(command, parser.of_fit, resolve)
    built = parser.instantiate_classes(config).as_dict()
    built.pop("config", None)
    command.load()(built.pop("data"), **built)


def note_mistakes_of_fit(command: Command, arguments: list[str], resolve: Resolve) -> None:
    """Print what `fit` would refuse in a configuration that also names a model, before hours go into its data.

    It is a note and no refusal, because data may be prepared where the model's class is not installed.
    """
    named = any("model" in read_config_file(path) for path in config_files(arguments))
    if named or any(argument.startswith("--model") for argument in arguments):
        try:
            resolve(["fit", *arguments])
        except InputError as error:
            print(f"note: fit would refuse this configuration: {error}; {command.name} reads `data` alone", flush=True)
