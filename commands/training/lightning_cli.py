"""LightningCLI of the project: the parser of configurations, and the commands that need model, data and trainer.

YAML chooses every class; here is what YAML alone cannot say: which values follow from others, what is checked before
anything is built, and where a run is kept.
"""

import importlib
import logging
import os
import re
import tempfile
import warnings
from pathlib import Path
from typing import Any, Literal, cast

import lightning
import torch
import yaml
from jsonargparse import ActionConfigFile, Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from commands.locate import given
from commands.mistakes import fail, input_error_behind
from commands.registry import example_of
from commands.suggestions import explain
from commands.training.begin_from import Sources, begin_from, open_weights, vocabulary_size
from commands.training.defaults import WANDB, is_switched_off, merge_defaults, parser_defaults
from commands.training.run_folder_callback import RunFolderCallback, wandb_run_id
from commands.training.trainer import Trainer
from commands.training.trainer_checks import check_epochs, check_trainer
from common.errors import InputError
from common.run_folder import latest_checkpoint
from models.device import has_bf16_matrix_units

LEFT_OUT = ("💡", "TPU available", "GPU available", "Seed set to", "Using bfloat16 Automatic")
"""Parts of Lightning's lines that say what the configuration says, before a mistake in it may be found."""


KNOWN_SUBCLASSES = re.compile(r",\s+known\s+subclasses:\s+[^)]*(?=\))")


class Parser(LightningArgumentParser):
    """Parser that reports a mistake in one line, with exit status 2, and shows an example at the top of its help."""

    example = ""
    ignored: frozenset[str] = frozenset()
    """Keys of configuration files that belong to other commands."""

    def _load_config_parser_mode(self, content: str, *args: Any, **kwargs: Any) -> Any:
        content = content if yaml.safe_load(content) is not None else "{}"
        if self.ignored and isinstance(loaded := yaml.safe_load(content), dict) and self.ignored & loaded.keys():
            content = yaml.safe_dump({key: value for key, value in loaded.items() if key not in self.ignored})
        return super()._load_config_parser_mode(content, *args, **kwargs)

    def parse_args(self, args: Any = None, *further: Any, **kwargs: Any) -> Any:
        """As jsonargparse; what was given is kept for messages."""
        with given(args or ()):
            return super().parse_args(args, *further, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> Any:
        fail(explain(message, self))

    def dump(self, cfg: Namespace, *args: Any, **kwargs: Any) -> str:
        """The configuration as YAML, callbacks and loggers merged with the defaults."""
        return super().dump(merged_lists(cfg), *args, **kwargs)

    def format_help(self, *args: Any, **kwargs: Any) -> str:
        """First what the command does and an example, then the options."""
        # The known subclasses are those that happen to be imported, a part of what may be named.
        text = KNOWN_SUBCLASSES.sub("", super().format_help(*args, **kwargs)).replace("llm [options] ", "llm ")
        return f"{self.example}\n\n{text}" if self.example else text


def merged_lists(cfg: Namespace) -> Namespace:
    """A configuration whose callbacks and loggers are merged with the defaults, see `commands.training.defaults`."""
    cfg = cfg.clone()
    for trainer in (cfg.get("trainer"), (cfg.get(cfg.get("subcommand") or "") or {}).get("trainer")):
        if trainer is not None:
            for name in ("callbacks", "logger"):
                trainer[name] = merge_defaults(trainer.get(name))
            if isinstance(trainer.callbacks, list):
                trainer.callbacks = [one for one in trainer.callbacks if not is_switched_off(one, trainer)]
    return cfg


def add_config_file(parser: LightningArgumentParser) -> None:
    """The option `--config`."""
    parser.add_argument("-c", "--config", action=ActionConfigFile, help="YAML file; later ones override earlier ones")


class CommandLine(LightningCLI):
    """LightningCLI of one command.

    Args:
        command: its name; its parser alone is made, because each holds all options of the Trainer.
    """

    def __init__(self, command: str = "fit", **settings: Any) -> None:
        self.command = command
        super().__init__(
            lightning.LightningModule,
            lightning.LightningDataModule,
            trainer_class=Trainer,
            parser_class=Parser,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=RunFolderCallback,
            save_config_kwargs={"overwrite": True},
            seed_everything_default=0,
            **settings,
        )

    def init_parser(self, **kwargs: Any) -> Parser:
        parser = Parser(**kwargs | {"prog": "llm", "description": None})
        parser.example = example_of(self.command)
        # The configuration that `fit` saved serves `validate`, `test` and `predict` as it is.
        parser.ignored = frozenset() if self.command == "fit" else frozenset({"resume"})
        add_config_file(parser)
        return parser

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        return {self.command: LightningCLI.subcommands()[self.command] | {"weights_only"}}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--fallback_precision",
            type=Literal["32-true"] | None,
            default=None,
            help="precision to take instead of a bf16 one on a device that has no bfloat16 matrix units, where "
            "bf16 would be many times slower; null keeps trainer.precision",
        )
        parser.link_arguments(
            "data.vocabulary_size", "model.init_args.decoder.vocabulary_size", self._vocabulary, apply_on="instantiate"
        )
        parser.set_defaults(parser_defaults())

    def before_instantiate_classes(self) -> None:
        self.config = merged_lists(self.config)
        config = self.config[self.subcommand] if self.subcommand else self.config
        check_trainer(config.trainer, trains=self.subcommand in ("fit", None))
        self.stored: Sources = begin_from(config, trains=self.subcommand in ("fit", None))
        self._choose_precision(config)
        if torch.backends.mps.is_available() and config.trainer.accelerator in ("auto", "mps"):
            # Lightning takes no strategy of several processes there, not even with one.
            config.trainer.strategy = "auto"
        folder = Path(config.trainer.default_root_dir or "runs/default")
        if folder.exists() and not folder.is_dir():
            raise InputError(f"trainer.default_root_dir={folder}: it is a file, name a folder")
        self._require_checkpoint(config, folder)
        if config.trainer.fast_dev_run:
            # Nothing of a trial may be what the next run continues from.
            folder = Path(tempfile.mkdtemp(prefix="fast-dev-run-"))
            print(f"fast_dev_run: its files are in {folder}, the run's own folder is left alone", flush=True)
        config.trainer.default_root_dir = str(folder)
        plugins = config.trainer.plugins or []
        if isinstance(plugins, list) and not any("Checkpoint" in str(plugin) for plugin in plugins):
            # A list in YAML replaces the default, and half-written files would come with it.
            config.trainer.plugins = [*plugins, Namespace(class_path="strategies.AtomicCheckpointIO")]
        if self.subcommand not in ("fit", None):
            # Only training has curves to extend.
            config.trainer.logger = False
        if self.subcommand == "predict" and not any("Predictions" in str(each) for each in config.trainer.callbacks):
            config.trainer.callbacks = [*config.trainer.callbacks, Namespace(class_path="callbacks.Predictions")]
        self._place_logs(config.trainer.logger, folder)

    def _require_checkpoint(self, config: Namespace, folder: Path) -> None:
        """Refuse a run without the checkpoint that is asked for, before its data are prepared."""
        path = config.get("ckpt_path")
        if path is not None and not Path(path).exists():
            raise InputError(f"ckpt_path={path} does not exist: correct it, or leave it out for the newest")
        needed = self.subcommand not in ("fit", None) and getattr(_class_of(config.model), "trains", True)
        if path is None and needed and latest_checkpoint(folder) is None:
            raise InputError(f"no checkpoint in {folder}/checkpoints: train first (fit), or give --ckpt_path")

    def _place_logs(self, loggers: Any, folder: Path) -> None:
        """Loggers write into the run's folder and continue its curves."""
        for logger in loggers if isinstance(loggers, list) else [loggers] if isinstance(loggers, Namespace) else []:
            arguments = logger.init_args
            if arguments.save_dir in (None, "."):
                arguments.save_dir = str(folder)
            if logger.class_path.endswith(WANDB.rpartition(".")[-1]):
                arguments.id = arguments.id or wandb_run_id(folder)
                arguments.name = arguments.name or folder.name
                if arguments.offline:
                    os.environ.setdefault("WANDB_SILENT", "true")

    def _vocabulary(self, of_data: int) -> int:
        return vocabulary_size(self.stored, of_data)

    def instantiate_classes(self) -> None:
        super().instantiate_classes()
        if self.subcommand in ("fit", None):
            check_epochs((self.config[self.subcommand] if self.subcommand else self.config).trainer, self.datamodule)
        open_weights(self.model, self.datamodule, self.stored)

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Any]) -> lightning.Trainer:
        try:
            return super()._instantiate_trainer(config, callbacks)
        except (TypeError, ValueError, ModuleNotFoundError, MisconfigurationException) as error:
            # Lightning's words for a number of devices or an accelerator that cannot be.
            raise (input_error_behind(error) or InputError(f"trainer: {error}")) from error

    def _choose_precision(self, config: Any) -> None:
        fallback, configured = config.fallback_precision, config.trainer.precision
        on_cpu = config.trainer.accelerator == "cpu" or not torch.accelerator.is_available()
        device = torch.device("cpu") if on_cpu else cast(torch.device, torch.accelerator.current_accelerator())
        if fallback and str(configured).startswith("bf16") and not has_bf16_matrix_units(device):
            config.trainer.precision = fallback
            print(f"precision: {fallback} instead of {configured}, {device} has no bfloat16 matrix units", flush=True)

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        arguments = super()._prepare_subcommand_kwargs(subcommand)
        if subcommand in ("validate", "test", "predict") and getattr(self.model, "trains", True):
            arguments["ckpt_path"] = cast(Trainer, self.trainer).require_checkpoint(arguments["ckpt_path"])
        return arguments


def _class_of(configured: Any) -> Any:
    """Class, or function that makes an object, of an entry with `class_path`."""
    module, _, name = configured.class_path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def silence_third_party_logs() -> None:
    """Leave out what Lightning prints at every start and a reader of this log can do nothing about."""
    warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\)")
    # The command line is also called from Python, by tests and by commands that start others.
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
    for module in ("pytorch.utilities.rank_zero", "fabric.utilities.rank_zero", "fabric.utilities.seed"):
        logging.getLogger(f"lightning.{module}").addFilter(
            lambda record: not any(part in record.getMessage() for part in LEFT_OUT)
        )


def build_cli(arguments: list[str] | None = None, run: bool = True) -> CommandLine:
    """Parse and instantiate; with `run`, the first argument is a trainer's command and is carried out."""
    command = arguments[0] if run and arguments else "fit"
    return CommandLine(command, args=arguments, run=run)
