"""The command line: `python main.py COMMAND --config FILE`, and nothing else.

fit, validate, test and predict are Lightning's; prepare, inspect, export, generate, parity and report read the very
same configuration.
convert, evaluate and compare need none: a model brings its shape and its tokenizer. constitution has one of its own;
recipe runs others, one after another; plan reads what fit reads and says what it will cost.
Everything a command does lives in models, datamodules, strategies or callbacks and is chosen in YAML.
"""

import contextlib
import inspect
import io
import json
import logging
import os
import sys
import uuid
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, cast

from common.cpu_threads import thread_settings, watch_spin

os.environ.setdefault("DAFT_ANALYTICS_ENABLED", "0")
os.environ.update(thread_settings(os.environ))  # OpenMP reads them once, when PyTorch is loaded

import lightning
import torch
import yaml
from jsonargparse import ActionConfigFile, Namespace, auto_cli, auto_parser
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback

from alignment.reward_score import RewardModelScore
from callbacks.checkpoints import checkpoint_step, latest_checkpoint, set_later_checkpoints_aside
from callbacks.data_report import write_data_report
from callbacks.goodput import begin_run
from callbacks.metrics_table import rewind_metrics
from callbacks.report import write_report
from commands.compare import compare_models
from commands.constitution import constitution
from commands.convert import convert
from commands.dry_run import dry_run
from commands.evaluate import evaluate
from commands.plan import plan
from commands.recipe import recipe
from commands.scaling_law import scaling_law
from commands.train_classifier import train_classifier
from datamodules.balance import MIXTURE, format_mixture
from datamodules.megatron import export_megatron
from datamodules.pretraining import PretrainingData
from datamodules.tokenizer_files import TEMPLATE, find_tokenizer, load_tokenizer
from errors import InputError
from models.decoder import Decoder
from models.flops import has_bf16_matrix_units
from models.generation import generate
from models.language_model import LanguageModel
from models.sampling import Sampling
from strategies.checkpoint import read_checkpoint
from strategies.parity import compare
from strategies.stored_weights import StoredWeights


class Trainer(lightning.Trainer):
    """Lightning's Trainer, continuing by default, with the commands that are not training."""

    @property
    def newest_checkpoint(self) -> Path | None:
        """The last complete checkpoint in the run's folder."""
        return latest_checkpoint(Path(self.default_root_dir) / "checkpoints")

    def fit(
        self,
        model: Any,
        train_dataloaders: Any = None,
        val_dataloaders: Any = None,
        datamodule: Any = None,
        ckpt_path: str | Path | None = None,
        weights_only: bool | None = True,
        resume: bool = True,
    ) -> None:
        """Train, continuing from the newest checkpoint in the run's folder.

        Args:
            model: the LightningModule.
            train_dataloaders: loaders in place of a datamodule.
            val_dataloaders: likewise.
            datamodule: the LightningDataModule.
            ckpt_path: checkpoint to continue from instead.
            weights_only: checkpoints are read without running code; nothing else is supported.
            resume: set to false to insist on a run from the initial weights; the run's folder must then be empty.
        """
        newest = self.newest_checkpoint
        if ckpt_path is not None and not Path(ckpt_path).exists():
            raise InputError(f"ckpt_path={ckpt_path} does not exist: correct it, or leave it out for the newest")
        if ckpt_path is None and newest is not None:
            if not resume:
                raise InputError(f"resume=false, but {newest} exists: move it away or set trainer.default_root_dir")
            ckpt_path = newest
            if self.is_global_zero:
                print(f"continuing from {newest}", flush=True)
        step = checkpoint_step(Path(ckpt_path)) if ckpt_path else 0
        if 0 < self.max_steps <= step and self.is_global_zero:
            print(f"already trained to step {step}: raise trainer.max_steps to train further")
        # A layout is held against the data before processes are started; Lightning attaches it after.
        self.datamodule = datamodule
        super().fit(model, train_dataloaders, val_dataloaders, datamodule, ckpt_path, weights_only)

    def prepare(self, model: Any, datamodule: PretrainingData) -> None:
        """Collect, clean, tokenise and pack the data, without training."""
        print(f"prepared: {datamodule.run_stages().shards}")
        print(f"report: {write_data_report(datamodule.summary(), datamodule.folder, datamodule.folder.name)}")

    def inspect(
        self,
        model: Any,
        datamodule: PretrainingData,
        why: str | None = None,
        reason: str | None = None,
        samples: int = 3,
    ) -> None:
        """Clean the data if that is not done, and say what became of it, or of one document; nothing is tokenised.

        Args:
            model: the LightningModule.
            datamodule: the LightningDataModule.
            why: a document's id (decimal or hexadecimal) or its path in provenance: says whether it was kept and where,
                or by which step it was dropped, for which measured value against which limit of which paper, or which
                document it duplicates.
            reason: show only documents dropped for this reason, or `kept` ones.
            samples: documents to show of each reason.
        """
        print(datamodule.explain(why) if why is not None else datamodule.examples(reason, samples))

    def export(
        self, model: Any, datamodule: PretrainingData, output: str, format: Literal["megatron"] = "megatron"
    ) -> None:
        """Write the tokens of every source and split in the format of another trainer.

        Args:
            model: the LightningModule.
            datamodule: whose tokens they are, prepared if they are not yet.
            output: folder to write to.
            format: megatron writes .bin and .idx files for Megatron-LM, and the tokenizer.
        """
        if not isinstance(datamodule, PretrainingData):
            raise InputError(f"export: {type(datamodule).__name__} has no shards, give a configuration of pretraining")
        prepared = datamodule.run_stages()
        for path in export_megatron(prepared.shards, prepared.load_tokenizer(), Path(output)):
            print(f"exported: {path}.bin, {path.name}.idx")

    def generate(
        self,
        model: LanguageModel,
        datamodule: PretrainingData,
        prompt: str = "",
        new_tokens: int = 128,
        samples: int = 1,
        temperature: float = 0.8,
        top_k: int = 0,
        top_p: float = 0.95,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        seed: int = 0,
        cuda_graphs: bool = False,
        ckpt_path: str | None = None,
    ) -> None:
        """Continue a prompt with a trained model.

        Args:
            model: the LightningModule.
            datamodule: knows where a checkpoint keeps the tokenizer.
            prompt: text to continue.
            new_tokens: tokens to add at most.
            samples: continuations to print.
            temperature: 0 takes the most likely token.
            top_k: sample from this many tokens; 0 is all.
            top_p: share of the probability to sample from.
            min_p: sample from tokens at least this likely, relative to the most likely one.
            repetition_penalty: above 1 makes tokens that occurred less likely.
            seed: of the sampling.
            cuda_graphs: replay recorded steps, faster for many tokens on a GPU.
            ckpt_path: checkpoint to use; by default the newest in the run's folder.
        """
        if samples < 1:
            raise InputError(f"samples={samples}: must be at least 1")
        if any("\ud800" <= letter <= "\udfff" for letter in prompt):
            raise InputError("prompt holds bytes that are no UTF-8: correct it")
        checkpoint = read_checkpoint(self.require_checkpoint(ckpt_path))
        tokenizer = datamodule.tokenizer_of(checkpoint)
        if checkpoint["decoder_config"].get("scalar_output"):
            raise InputError("generate: this is a reward model, which scores text and writes none")
        model.load_weights(checkpoint)
        decoder = cast(Decoder, model.decoder).to(self.strategy.root_device).eval()
        prompt_ids = [*tokenizer.beginning, *tokenizer.encode(prompt)] or [tokenizer.before_text]
        sampling = Sampling(repetition_penalty, temperature, top_k, top_p, min_p, seed)
        prompts = [prompt_ids] * samples
        stop = [tokenizer.eos]
        for number, new in enumerate(
            generate(decoder, prompts, new_tokens=new_tokens, sampling=sampling, stop=stop, cuda_graphs=cuda_graphs)
        ):
            print(f"--- {number + 1} ---\n" * (samples > 1) + tokenizer.decode([*prompt_ids, *new.tokens]))

    def parity(
        self,
        model: Any,
        datamodule: Any,
        configuration: dict[str, Any],
        steps: int = 10,
        tolerance: float | None = None,
        largest_axis: int = 2,
    ) -> None:
        """Compare this layout with one process on a scaled-down twin; exit status 1 where they part.

        Args:
            model: the LightningModule.
            datamodule: the LightningDataModule; the twin sees random tokens instead.
            configuration: the whole of it, which the twin is made from.
            steps: optimizer steps.
            tolerance: of losses and gradient norms, relative above 1; by default 1e-5 in float32, 5e-2 in bfloat16.
            largest_axis: axes of the mesh are cut down to this many processes.
        """
        command = [sys.executable, str(Path(__file__).resolve())]
        if not compare(configuration, steps, tolerance, largest_axis, command):
            sys.exit(1)

    def report(self, model: Any, datamodule: Any) -> None:
        """Write the report of a run again from what it logged."""
        print(f"report: {write_report(Path(self.default_root_dir))}")

    def require_checkpoint(self, path: str | None) -> str:
        """`path`, or the newest checkpoint of the run."""
        found = path or self.newest_checkpoint
        if found is None:
            raise InputError(
                f"no checkpoint in {self.default_root_dir}/checkpoints: train first (fit), or give --ckpt_path"
            )
        return str(found)


class RunFolder(SaveConfigCallback):
    """Brings a run's folder to the step that training starts from, once nothing can be refused any more.

    The configuration is saved then; metrics logged after that step are forgotten and later checkpoints set aside,
    because both are about to be made again.
    """

    def setup(self, trainer: lightning.Trainer, pl_module: Any, stage: str) -> None:
        """Nothing yet: data and checkpoint may still be refused."""

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
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
        """Say what was asked of each source and what this run reaches, and log it when it begins to hold."""
        report = data.mixture_report()
        (folder / MIXTURE).write_text(json.dumps({"sources": report, "history": data.history}, indent=1) + "\n")
        print(format_mixture(report), flush=True)
        if data.history[-1]["first"] == data.consumed_samples:
            numbers = {f"mixture/{name}/{key}": value for name, row in report.items() for key, value in row.items()}
            for logger in trainer.loggers:
                logger.log_metrics(numbers, step=trainer.global_step)  # with the first step that is mixed so


class Parser(LightningArgumentParser):
    """Reports a mistake in one line, with exit status 2."""

    def error(self, message: str, ex: Exception | None = None) -> Any:
        fail(message)


class CommandLine(LightningCLI):
    """LightningCLI with the further commands and what YAML alone cannot say."""

    def init_parser(self, **kwargs: Any) -> Parser:
        further = (
            f"with a configuration of their own or none: {', '.join([*sorted(COMMANDS), PLAN, RECIPE])} "
            "(COMMAND --help); fit --dry-run builds every rank's part without memory and checks it against the plan"
        )
        parser = Parser(**{"epilog": further} | kwargs)
        parser.add_argument(
            "-c", "--config", action=ActionConfigFile, help="YAML file; later ones override earlier ones"
        )
        return parser

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        ours = {"prepare", "inspect", "export", "generate", "parity", "report"}
        skipped = LightningCLI.subcommands() | {name: {"model", "datamodule"} for name in sorted(ours)}
        return {name: arguments | {"weights_only", "configuration"} for name, arguments in skipped.items()}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--precision_without_bf16_units",
            type=Literal["32-true"] | None,
            default=None,
            help="precision to take instead of a bf16 one on a device that has no bfloat16 matrix units, where "
            "bf16 would be many times slower; null keeps trainer.precision",
        )
        parser.link_arguments(
            "data.vocabulary_size", "model.init_args.decoder.vocabulary_size", self._vocabulary, apply_on="instantiate"
        )
        parser.set_defaults(
            {
                "trainer.plugins": [{"class_path": "strategies.AtomicCheckpointIO"}],
                # The data deals samples out to ranks itself; Lightning's sampler would shuffle them.
                "trainer.use_distributed_sampler": False,
                "trainer.strategy": {"class_path": "strategies.TensorParallelStrategy"},
            }
        )

    def before_instantiate_classes(self) -> None:
        config = self.config[self.subcommand] if self.subcommand else self.config
        self._begin_from(config)
        if self.subcommand == "parity":
            # The layout is that of the machines it is for; the twin runs here.
            self.asked = yaml.safe_load(self._parser("parity").dump(config, skip_link_targets=False))
            config.trainer.accelerator, config.trainer.devices, config.trainer.num_nodes = "cpu", 1, 1
        for name in ("accumulate_grad_batches", "log_every_n_steps"):
            if getattr(config.trainer, name) is not None and getattr(config.trainer, name) < 1:
                raise InputError(f"trainer.{name}={getattr(config.trainer, name)}: must be at least 1")
        self._choose_precision(config)
        if torch.backends.mps.is_available() and config.trainer.accelerator in ("auto", "mps"):
            # Lightning takes no strategy of several processes there, not even with one.
            config.trainer.strategy = "auto"
        folder = Path(config.trainer.default_root_dir or "runs/default")
        if folder.exists() and not folder.is_dir():
            raise InputError(f"trainer.default_root_dir={folder}: it is a file, name a folder")
        config.trainer.default_root_dir = str(folder)
        plugins = config.trainer.plugins or []
        if isinstance(plugins, list) and not any("Checkpoint" in str(plugin) for plugin in plugins):
            # A list in YAML replaces the default, and half-written files would come with it.
            config.trainer.plugins = [*plugins, Namespace(class_path="strategies.AtomicCheckpointIO")]
        if self.subcommand not in ("fit", None):
            # Only training has curves to extend.
            config.trainer.logger = False
        loggers = config.trainer.logger
        for logger in loggers if isinstance(loggers, list) else [loggers] if isinstance(loggers, Namespace) else []:
            arguments = logger.init_args
            if arguments.save_dir in (None, "."):
                arguments.save_dir = str(folder)
            if logger.class_path.endswith("WandbLogger"):
                arguments.id = arguments.id or wandb_identity(folder)
                if arguments.offline:
                    os.environ.setdefault("WANDB_SILENT", "true")

    def _begin_from(self, config: Any) -> None:
        """Shape and tokenizer come with the weights to begin with, where the configuration gives no others."""
        model, data = config.model.init_args, config.data.init_args
        self.stored: StoredWeights | list[StoredWeights] | None = None
        if model.get("init_from") is None:
            return
        if isinstance(model.init_from, list):
            if not model.init_from:
                raise InputError("model.init_args.init_from: [] is empty, name at least one run")
            self.stored = [StoredWeights(Path(path)) for path in model.init_from]
            model.decoder = Namespace(**self.stored[0].config)
        elif model.get("decoder") is None or self.subcommand in ("fit", None):
            self.stored = StoredWeights(Path(model.init_from))
        if model.get("decoder") is None and isinstance(self.stored, StoredWeights):
            model.decoder = Namespace(**self.stored.config)
        if "tokenizer" in data and data.tokenizer is None:
            data.tokenizer = model.init_from[0] if isinstance(model.init_from, list) else model.init_from

    def _vocabulary(self, of_data: int) -> int:
        """That of the tokenizer, or of the weights to begin with, which may have more rows than there are tokens."""
        stored = self.stored[0] if isinstance(self.stored, list) else self.stored
        if stored is None:
            return of_data
        rows: int = stored.config["vocabulary_size"]
        if of_data > rows:
            raise InputError(f"the tokenizer has {of_data} token ids, the weights of init_from {rows}: take theirs")
        return rows

    def instantiate_classes(self) -> None:
        super().instantiate_classes()
        if self.stored is not None:
            self.model.stored = self.stored
        for name in ("reward", "gold"):
            open_reward_models(getattr(self.model, name, None), self.datamodule)
        if (critic := getattr(self.model, "critic_init_from", None)) is not None:
            self.model.begin_critic_from(StoredWeights(Path(critic)))

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Any]) -> lightning.Trainer:
        try:
            return super()._instantiate_trainer(config, callbacks)
        except (TypeError, ValueError) as error:
            # Lightning's words for a number of devices or a precision that cannot be.
            raise (input_error_behind(error) or InputError(f"trainer: {error}")) from error

    def _choose_precision(self, config: Any) -> None:
        instead, asked = config.precision_without_bf16_units, config.trainer.precision
        on_cpu = config.trainer.accelerator == "cpu" or not torch.accelerator.is_available()
        device = torch.device("cpu") if on_cpu else cast(torch.device, torch.accelerator.current_accelerator())
        if instead and str(asked).startswith("bf16") and not has_bf16_matrix_units(device):
            config.trainer.precision = instead
            print(f"precision: {instead} instead of {asked}, {device} has no bfloat16 matrix units", flush=True)

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        arguments = super()._prepare_subcommand_kwargs(subcommand)
        if subcommand == "parity":
            arguments["configuration"] = self.asked
        if subcommand in ("validate", "test", "predict") and getattr(self.model, "trains", True):
            arguments["ckpt_path"] = cast(Trainer, self.trainer).require_checkpoint(arguments["ckpt_path"])
        return arguments


def open_reward_models(reward: Any, data: Any) -> None:
    """Give the reward models within a reward their weights.

    Raises:
        InputError: for one of another tokenizer than the data's, to which the same ids are other text.
    """
    for member in reward.members() if reward is not None else ():
        if isinstance(member, RewardModelScore):
            path = Path(member.init_from)
            stored = StoredWeights(path)
            if load_tokenizer(find_tokenizer(path)).model != data.tokenizer.model:
                raise InputError(
                    f"reward.init_from={path}: it has another tokenizer than the data's, train a reward model from "
                    "the same base"
                )
            member.begin_from(stored, data.tokenizer.eos)


def wandb_identity(folder: Path) -> str:
    """The run's id at Weights & Biases, made once and kept, so that a resumed run continues the same curves."""
    path = folder / "wandb-id.txt"
    if not path.exists() or not path.read_text().strip():
        folder.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".partial")
        temporary.write_text(uuid.uuid4().hex[:12])
        temporary.rename(path)
    return path.read_text().strip()


def input_error_behind(error: BaseException | None) -> InputError | None:
    """The mistake behind an error: jsonargparse wraps what a constructor raises."""
    while error is not None and not isinstance(error, InputError):
        error = error.__cause__ or error.__context__
    return error


def fail(message: str) -> None:
    """End with exit status 2 and one line."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


def quieten() -> None:
    """Leave out what Lightning says on every start and a reader of this log can do nothing about."""
    warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\)")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: not record.getMessage().startswith(("💡", "TPU available"))
    )


def build(arguments: list[str] | None = None, run: bool = True) -> CommandLine:
    """Parse and instantiate; with `run`, the first argument is a command and is carried out."""
    return CommandLine(
        lightning.LightningModule,
        lightning.LightningDataModule,
        trainer_class=Trainer,
        subclass_mode_model=True,
        subclass_mode_data=True,
        save_config_callback=RunFolder,
        save_config_kwargs={"overwrite": True},
        seed_everything_default=0,
        args=arguments,
        run=run,
    )


COMMANDS: dict[str, Callable[..., None]] = {
    "classifier": train_classifier,
    "compare": compare_models,
    "constitution": constitution,
    "convert": convert,
    "evaluate": evaluate,
    "scaling_law": scaling_law,
}
"""Those that take no Trainer, model and data."""
RECIPE, PLAN = "recipe", "plan"
DRY_RUN = ("--dry-run", "--dry_run")


def resolved(arguments: list[str]) -> tuple[dict[str, Any], list[Path]]:
    """The whole configuration of a command, which is not carried out, and the source of one in `COMMANDS`.

    Raises:
        InputError: where the command line would end with it.
    """
    command, printed, mistake = COMMANDS.get(arguments[0]), io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(mistake):
            if command is not None:
                parser = auto_parser(command, as_positional=False, parser_class=Parser)
                printed.write(parser.dump(parser.parse_args(arguments[1:])))
            else:
                build([*arguments, "--print_config"])
    except SystemExit as end:
        if end.code:
            # Warnings of libraries may stand before it.
            raise InputError(mistake.getvalue().strip().splitlines()[-1].removeprefix("error: ")) from end
    return yaml.safe_load(printed.getvalue()), [] if command is None else [Path(inspect.getfile(command))]


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; a user's mistake ends it with one line and status 2."""
    begin_run(whole_process=arguments is None)
    quieten()
    watch_spin(torch.get_num_threads())
    given = sys.argv[1:] if arguments is None else arguments
    try:
        if given and given[0] == RECIPE:
            recipe(given[1:], Parser, resolved)
        elif given and given[0] == PLAN:
            plan(given[1:], resolved)
        elif given and given[0] == "fit" and not set(DRY_RUN).isdisjoint(given):
            dry_run([argument for argument in given if argument not in DRY_RUN], resolved)
        elif given and (command := COMMANDS.get(given[0])) is not None:
            program = f"main.py {given[0]}"
            auto_cli(command, args=given[1:], as_positional=False, prog=program, parser_class=Parser)
        else:
            build(arguments)
    except (MisconfigurationException, FileExistsError, NotADirectoryError, UnicodeError) as error:
        fail(str(error))
    except ValueError as error:
        mistake = input_error_behind(error)
        if mistake is None:
            raise
        fail(str(mistake))


if __name__ == "__main__":
    main()
