"""Run folder at the start of training: saved configuration and tokenizer, metrics and checkpoints cut to this step.

It is written when training starts and not when the command starts, so that a configuration that is refused leaves an
earlier run's folder as it was.
"""

import json
import os
import uuid
from pathlib import Path
from typing import Any

import lightning
from jsonargparse import Namespace
from lightning.pytorch.cli import SaveConfigCallback

from callbacks.checkpoints import set_later_checkpoints_aside
from callbacks.metrics_table import rewind_metrics
from common.run_folder import MIXTURE, WANDB_ID
from datamodules.mixing.balance import format_mixture
from datamodules.pretraining import PretrainingData
from datamodules.tokenization.files import TEMPLATE


class RunFolderCallback(SaveConfigCallback):
    """Brings a run's folder to the step that training starts from, once everything has been checked.

    The configuration is saved then; metrics logged after that step are removed and later checkpoints set aside, because
    both are about to be made again.
    """

    def setup(self, trainer: lightning.Trainer, pl_module: Any, stage: str) -> None:
        """Nothing yet: data and checkpoint may still be refused."""

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        self.config = without_places(self.config, Path(trainer.default_root_dir))
        super().setup(trainer, pl_module, "fit")
        if trainer.is_global_zero:
            folder = Path(trainer.default_root_dir)
            # What comes after (fine-tuning, preferences) begins from this folder.
            data = getattr(trainer, "datamodule", None)
            if (tokenizer := getattr(data, "tokenizer", None)) is not None:
                tokenizer.write(folder)
            if (template := getattr(data, "template", None)) is not None:
                (folder / TEMPLATE).write_text(template.source, encoding="utf-8")
            rewind_metrics(folder, trainer.global_step)
            if isinstance(data, PretrainingData):
                self._report_mixture(trainer, data, folder)
            set_later_checkpoints_aside(folder, trainer.global_step)

    def _report_mixture(self, trainer: lightning.Trainer, data: PretrainingData, folder: Path) -> None:
        """Print the weight of each source and what this run reaches, and log it from the step where it holds."""
        report = data.mixture_report()
        (folder / MIXTURE).write_text(json.dumps({"sources": report, "history": data.history}, indent=1) + "\n")
        print(format_mixture(report), flush=True)
        if data.history[-1]["first"] == data.consumed_samples:
            numbers = {f"mixture/{name}/{key}": value for name, row in report.items() for key, value in row.items()}
            for logger in trainer.loggers:
                logger.log_metrics(numbers, step=trainer.global_step)


def without_places(config: Namespace, folder: Path) -> Namespace:
    """A configuration whose loggers do not name the run's folder and identity, so that it serves for another run too.

    Args:
        config: whole configuration of `fit`.
        folder: of the run.
    """
    config = config.clone()
    loggers = (config[config.subcommand] if config.get("subcommand") else config).trainer.logger
    for logger in loggers if isinstance(loggers, list) else [loggers]:
        arguments = logger.get("init_args") if isinstance(logger, Namespace) else None
        if arguments is not None and arguments.get("save_dir") == str(folder):
            arguments.save_dir = "."
            if "id" in arguments:
                arguments.id = None
    return config


def wandb_run_id(folder: Path) -> str:
    """The run's id at Weights & Biases, made once and kept, so that a resumed run continues the same curves.

    Processes that something else starts, as torchrun does, ask at once: a link that exists is not made again, so that
    all get the id of the first.
    """
    path = folder / WANDB_ID
    if not path.exists() or not path.read_text().strip():
        folder.mkdir(parents=True, exist_ok=True)
        mine = folder / f".{WANDB_ID}.{uuid.uuid4().hex}"
        mine.write_text(uuid.uuid4().hex[:12], encoding="ascii")
        if path.exists() and not path.read_text().strip():
            mine.replace(path)  # empty, as a full disk leaves it
        else:
            try:
                os.link(mine, path)
            except FileExistsError:
                pass
            except OSError:  # a file system without links
                mine.replace(path)
            mine.unlink(missing_ok=True)
    return path.read_text().strip()
