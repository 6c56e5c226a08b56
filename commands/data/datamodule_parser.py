"""Commands that need only data: `data:` of a configuration is parsed and built, everything else in it is left alone.

The same file serves `fit` and these; no weights are opened and no trainer is made, so that text can be prepared and
looked at on a machine without an accelerator, and before there is a model.
"""

from typing import Any

import lightning
import yaml
from jsonargparse import Namespace

from commands.registry import Command, example_of
from commands.training.lightning_cli import Parser, add_config_file

UNUSED = ("model", "trainer", "fallback_precision", "seed_everything", "ckpt_path", "resume")
"""Keys of `fit` that these commands accept and do not use."""


class DataParser(Parser):
    """Parser that leaves out what belongs to model and trainer, in files and on the command line."""

    init_from: str | None = None
    """Run that the model begins from, which gives the tokenizer where the data name none."""

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
        left = iter(arguments)
        for argument in left:
            option, equals, value = argument.removeprefix("--").partition("=")
            if argument.startswith("--") and option.split(".")[0].rstrip("+") in UNUSED:
                value = value if equals else next(left, "")
                if option == "model.init_args.init_from":
                    self.init_from = value
            else:
                kept.append(argument)
        return kept


def data_parser(command: Command) -> DataParser:
    """The parser of a command that needs only data."""
    parser = DataParser(prog=f"llm {command.name}")
    parser.example = example_of(command.name)
    add_config_file(parser)
    parser.add_lightning_class_args(lightning.LightningDataModule, "data", subclass_mode=True)
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


def run_data_command(command: Command, arguments: list[str]) -> None:
    """Build the data module of a configuration and call the command with it."""
    parser, config = parse_data_command(command, arguments)
    built = parser.instantiate_classes(config).as_dict()
    built.pop("config", None)
    command.load()(built.pop("data"), **built)
