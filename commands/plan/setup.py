"""Training setup of a plan, read from the configuration of `fit`; what no formula covers is refused here.

Plain values are read and nothing is built: a configuration for sixteen thousand GPUs must be readable on a laptop.
"""

from pathlib import Path
from typing import Any, cast

from callbacks.checkpoints import Checkpoints
from common.errors import InputError
from datamodules.mixing.batch_size_warmup import BatchSizeWarmup
from datamodules.resumable import ResumableDataModule
from datamodules.tokenization.files import find_tokenizer, load_tokenizer
from models.config import DecoderConfig
from strategies.parallel.mesh import ARGUMENTS, resolve_sizes
from strategies.parallel.schedules import find_schedule
from strategies.planner.hardware import Hardware
from strategies.planner.layout_search import refusal
from strategies.planner.training_setup import TrainingSetup

MODELS = tuple(f"models.{name}" for name in ("LanguageModel", "language_model.LanguageModel", "SFT", "sft.SFT"))
STRATEGIES = ("strategies.TensorParallelStrategy", "strategies.PipelineParallelStrategy")
OPTIMIZERS = {
    "models.AdamW": "AdamW",
    "models.optimizers.adamw.AdamW": "AdamW",
    "models.Muon": "Muon",
    "models.optimizers.muon.Muon": "Muon",
}


def setup_of(
    configuration: dict[str, Any], hardware: Hardware, devices: int | None = None, accepted: bool = True
) -> TrainingSetup:
    """Training setup of a configuration, as the planner takes it.

    Args:
        configuration: as `--print_config` gives it.
        hardware: hardware to plan for.
        devices: number of devices in place of the configuration's.
        accepted: whether to refuse a layout that the strategies refuse; false where a search chooses another.

    Raises:
        InputError: for a model, strategy, optimizer or precision without formulas, and batches that the data refuse.
    """
    trainer, model, data = configuration["trainer"], configuration["model"], configuration["data"]
    if model["class_path"] not in MODELS:
        raise InputError(f"model={model['class_path']}: plan knows what models.LanguageModel and models.SFT cost")
    arguments = model["init_args"]
    if arguments.get("decoder") is None:
        raise InputError("model.init_args.decoder: plan needs the model's shape, give it beside init_from")
    if arguments.get("lora") is not None:
        raise InputError("model.init_args.lora: plan counts gradients and moments of all weights, set it to null")
    config = DecoderConfig(**{**arguments["decoder"], "vocabulary_size": vocabulary_of(data["init_args"])})
    strategy = trainer.get("strategy")
    strategy = strategy if isinstance(strategy, dict) else {"class_path": str(strategy)}
    if strategy["class_path"] not in STRATEGIES:
        raise InputError(f"trainer.strategy={strategy['class_path']}: plan knows {' and '.join(STRATEGIES)}")
    layout = strategy.get("init_args") or {}
    world = world_of(trainer, devices)
    axes = {axis: layout.get(name) or 1 for axis, name in ARGUMENTS.items()}
    axes["dp_shard"] = layout.get(ARGUMENTS["dp_shard"]) or "auto"
    if devices is not None and devices != world:
        world, axes["dp_shard"] = devices, "auto"
    if not accepted:
        axes = dict.fromkeys(axes, 1) | {"dp_shard": "auto"}
    is_pipeline = strategy["class_path"].endswith("PipelineParallelStrategy") and accepted
    schedule = find_schedule(layout.get("schedule") or "1f1b")
    precision = precision_of(configuration, hardware)
    optimizer = (arguments["optimizer"] or {"class_path": "models.AdamW"})["class_path"]  # null is SFT's default
    if optimizer not in OPTIMIZERS:
        raise InputError(
            f"optimizer={optimizer}: plan knows the state of {', '.join(sorted(set(OPTIMIZERS.values())))}"
        )
    steps = trainer.get("max_steps") or -1
    if steps < 1:
        raise InputError(f"trainer.max_steps={steps}: plan needs the run's length in steps")
    warmup = data["init_args"].get("batch_size_warmup")
    samples = ResumableDataModule(
        data["init_args"]["batch_size"], 0, None if warmup is None else BatchSizeWarmup(**warmup)
    )
    setup = TrainingSetup(
        config=config,
        sizes=resolve_sizes(world, **cast(dict[str, Any], axes)),
        sequence_length=data["init_args"]["sequence_length"],
        rows=samples.batch_size,
        accumulate=trainer.get("accumulate_grad_batches") or 1,
        microbatches_per_batch=layout.get("microbatches", 4) if is_pipeline else 1,
        steps=steps,
        mixed=precision == "bf16-mixed",
        optimizer=cast(Any, OPTIMIZERS[optimizer]),
        checkpointing=layout.get("activation_checkpointing") or "none",
        schedule=schedule.name if is_pipeline else "1f1b",
        stages_per_rank=schedule.stages_per_rank(layout.get("stages_per_rank")) if is_pipeline else 1,
        compiled=layout.get("compile_backend") is not None,
        float8=bool(layout.get("float8")),
        device=hardware.device,
        warmup_batches=tuple(samples.batch_size_warmup.smaller(samples.batch_size))
        if samples.batch_size_warmup
        else (),
    )
    if accepted and (reason := refusal(setup)) is not None:
        raise InputError(reason)
    return setup


def saves_asynchronously(configuration: dict[str, Any]) -> bool:
    """Whether checkpoints are written while training continues."""
    strategy = configuration["trainer"].get("strategy")
    layout = strategy.get("init_args") if isinstance(strategy, dict) else None
    return bool((layout or {}).get("asynchronous_checkpoints"))


def checkpoint_steps(configuration: dict[str, Any]) -> int | None:
    """Steps between the run's checkpoints; None where it has no `callbacks.Checkpoints`.

    Raises:
        InputError: when it is below 1.
    """
    for callback in configuration["trainer"].get("callbacks") or []:
        if callback["class_path"].rpartition(".")[-1] == Checkpoints.__name__:
            found = (callback.get("init_args") or {}).get("every_steps")
            return Checkpoints().every_steps if found is None else Checkpoints(every_steps=found).every_steps
    return None


def world_of(trainer: dict[str, Any], devices: int | None = None) -> int:
    """Number of processes of a run.

    Args:
        trainer: Trainer's part of the configuration.
        devices: number of devices where the configuration leaves it to the machines; without it, "auto" is one per
            machine.

    Raises:
        InputError: for a value that is no number of processes.
    """
    if devices is not None and devices < 1:
        raise InputError(f"--devices {devices}: must be at least 1")
    requested = trainer.get("devices")
    if requested in ("auto", None, -1, "-1"):
        if devices is not None:
            return devices
        if requested in (-1, "-1"):
            raise InputError(
                f"trainer.devices={requested}: all of a machine that is not there, set a number or give plan --devices"
            )
        requested = 1
    if isinstance(requested, list):
        requested = len(requested)
    if isinstance(requested, str) and requested.isdigit():
        requested = int(requested)
    if not isinstance(requested, int) or requested < 1:
        raise InputError(f"trainer.devices={requested}: plan needs a number, at least 1")
    return requested * (trainer.get("num_nodes") or 1)


def precision_of(configuration: dict[str, Any], hardware: Hardware) -> str:
    """Precision that the run would take on this hardware."""
    requested = str(configuration["trainer"].get("precision") or "32-true")
    instead = configuration.get("fallback_precision")
    if instead and requested.startswith("bf16") and hardware.bf16_flops < hardware.float32_flops:
        requested = instead
    requested = {"32": "32-true", "bf16": "bf16-mixed"}.get(requested, requested)
    if requested not in ("32-true", "bf16-mixed"):
        raise InputError(f"trainer.precision={requested}: plan knows bf16-mixed and 32-true")
    return requested


def vocabulary_of(data: dict[str, Any]) -> int:
    """Number of token ids of the data.

    Raises:
        InputError: where the tokenizer does not exist.
    """
    if data.get("vocabulary_size"):
        return int(data["vocabulary_size"])
    tokenizer = data.get("tokenizer")
    if isinstance(tokenizer, dict) and tokenizer.get("vocabulary_size"):
        return int(tokenizer["vocabulary_size"])
    if isinstance(tokenizer, str):
        return len(load_tokenizer(find_tokenizer(Path(tokenizer))))
    raise InputError("data.init_args.tokenizer: plan needs a vocabulary_size or a tokenizer that is there")
