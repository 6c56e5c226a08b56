"""Registry of all commands: name, group, one-line help, example, and where the code is.

Nothing heavy is imported here, so that `--help` comes at once; a command's module is imported when it is run.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["trainer", "data", "function", "arguments"]


@dataclass(frozen=True)
class Command:
    """A command of the command line.

    Attributes:
        name: as a user types it.
        group: heading in the list of commands.
        help: one line.
        example: arguments of a call that works from the project's folder.
        kind: `trainer` for a method of `commands.training.trainer.Trainer`, which needs model, data and trainer; `data`
            for a function of a datamodule, which reads `data` of a configuration alone; `function` for a function whose
            signature gives the options; `arguments` for one that reads its arguments itself.
        target: `module:function`; a method's name for a `trainer` command.
    """

    name: str
    group: str
    help: str
    example: str
    kind: Kind
    target: str

    def load(self) -> Callable[..., Any]:
        """The function behind the command; imports its module."""
        module, name = self.target.split(":")
        function: Callable[..., Any] = getattr(importlib.import_module(module), name)
        return function


_ALL = (
    Command(
        "prepare",
        "data",
        "Collect, clean, tokenize and pack the data, without training.",
        "--config configs/quickstart.yaml",
        "data",
        "commands.data.prepare:prepare",
    ),
    Command(
        "inspect",
        "data",
        "Show why documents were kept or dropped.",
        "--config configs/quickstart.yaml --reason too_short",
        "data",
        "commands.data.inspect:inspect",
    ),
    Command(
        "export",
        "data",
        "Write prepared tokens in the format of Megatron-LM.",
        "--config configs/quickstart.yaml --output data/megatron",
        "data",
        "commands.data.export:export",
    ),
    Command(
        "classifier",
        "data",
        "Train a text classifier for quality or toxicity filters.",
        "--positive data/good --negative data/ordinary --output data/classifier",
        "function",
        "commands.data.classifier:train_classifier",
    ),
    Command(
        "fit",
        "training",
        "Train a model: pretraining, fine-tuning (SFT), reward models, DPO, PPO, GRPO.",
        "--config configs/quickstart.yaml",
        "trainer",
        "fit",
    ),
    Command(
        "validate",
        "training",
        "Compute the validation metrics of a checkpoint.",
        "--config configs/quickstart.yaml",
        "trainer",
        "validate",
    ),
    Command(
        "test",
        "training",
        "Compute the test metrics of a checkpoint.",
        "--config configs/quickstart.yaml",
        "trainer",
        "test",
    ),
    Command(
        "predict",
        "training",
        "Write predictions for the validation data, a row for each sample.",
        "--config configs/quickstart.yaml",
        "trainer",
        "predict",
    ),
    Command(
        "report",
        "training",
        "Write the HTML report of a run again.",
        "runs/quickstart",
        "arguments",
        "commands.training.report:report",
    ),
    Command(
        "recipe",
        "training",
        "Run several commands in order, each only where its inputs changed.",
        "--config configs/recipes/quickstart.yaml",
        "arguments",
        "commands.recipe.command:recipe",
    ),
    Command(
        "constitution",
        "alignment",
        "Make revisions and preferences by Constitutional AI.",
        "--config configs/constitution/quickstart.yaml",
        "function",
        "commands.constitution:constitution",
    ),
    Command(
        "compare",
        "alignment",
        "Compare models on the same prompts: win rates, KL, responses.",
        "--models.base runs/quickstart --models.sft runs/sft_quickstart --reward_model runs/reward_quickstart "
        "--prompts data/prompts.jsonl --output runs/comparison",
        "function",
        "commands.compare.command:compare_models",
    ),
    Command(
        "generate",
        "models",
        "Write text with a trained model.",
        "--input runs/quickstart --prompt 'def '",
        "function",
        "commands.models.generate:generate",
    ),
    Command(
        "chat",
        "models",
        "Talk with a model in the terminal.",
        "--input smollm2-135m-instruct",
        "function",
        "commands.models.chat:chat",
    ),
    Command(
        "evaluate",
        "models",
        "Score a model on text and multiple-choice questions.",
        "--input runs/quickstart --text README.md",
        "function",
        "commands.models.evaluate:evaluate",
    ),
    Command(
        "convert",
        "models",
        "Convert a model to one file, GGUF or a Hugging Face folder.",
        "--input runs/quickstart --output exported",
        "function",
        "commands.models.convert:convert",
    ),
    Command(
        "plan",
        "planning",
        "Compute memory, time and price of a run; search a layout.",
        "--config configs/pretrain/8b.yaml",
        "arguments",
        "commands.plan.command:plan",
    ),
    Command(
        "parity",
        "planning",
        "Check a parallel layout against one process on a small twin.",
        "--config configs/quickstart.yaml --config configs/layouts/tp2.yaml",
        "arguments",
        "commands.training.parity:parity",
    ),
    Command(
        "scaling_law",
        "planning",
        "Fit a scaling law to finished runs.",
        "--runs 'runs/isoflop/*'",
        "function",
        "commands.plan.scaling_law:scaling_law",
    ),
    Command(
        "schema",
        "planning",
        "Write the JSON schema of a command's configurations, for editors.",
        "--output configs/schema.json",
        "function",
        "commands.schema:schema",
    ),
)
COMMANDS = {command.name: command for command in _ALL}
"""All commands by name, in the order in which `--help` lists them."""
DRY_RUN = ("--dry-run", "--dry_run")
"""Makes `fit` build every rank's part without memory and check it against the plan."""


def overview() -> str:
    """The text of `--help`: every command in its group, a line each."""
    lines = ["usage: llm COMMAND [options]        (also: python main.py COMMAND [options])", ""]
    lines += ["From raw text to an aligned language model; a run is one YAML file.", ""]
    width = max(map(len, COMMANDS)) + 2
    for group in dict.fromkeys(command.group for command in _ALL):
        lines.append(f"{group}:")
        lines += [f"  {one.name:<{width}}{one.help}" for one in _ALL if one.group == group]
        lines.append("")
    lines.append("llm COMMAND --help shows an example and the options; llm fit --dry-run checks a layout without GPUs;")
    lines.append("llm --version shows the version.")
    return "\n".join(lines)


def example_of(name: str) -> str:
    """First paragraph of a command's help: its line and a call of it."""
    command = COMMANDS[name]
    lines = f"{command.help} Example:\n\n  llm {name} {command.example}"
    if name == "fit":
        lines += (
            f"\n\nChecked without its GPUs, every rank's part:\n\n  llm fit {command.example} --dry-run --hardware h100"
        )
    return lines
