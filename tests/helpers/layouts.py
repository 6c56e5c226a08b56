"""A tiny model trained in any layout, what it logged, and layouts that are looked at before a process starts."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from datamodules import RandomTokens
from datamodules.mixing.batch_size_warmup import BatchSizeWarmup
from models import AdamW, Cosine, LanguageModel, Muon, SpikeSkip
from models.decoder import DecoderConfig
from strategies import PipelineParallelStrategy
from tests.helpers.distributed import run_ranks

SPREAD, PIPELINE = "TensorParallelStrategy", "PipelineParallelStrategy"
LAYOUTS: dict[str, tuple[int, str, dict[str, Any]]] = {
    "single": (1, SPREAD, {}),
    "ddp2": (2, SPREAD, {"data_parallel_replicate_size": 2}),
    "fsdp2": (2, SPREAD, {}),
    "hsdp2x2": (4, SPREAD, {"data_parallel_replicate_size": 2}),
    "tp2": (2, SPREAD, {"tensor_parallel_size": 2}),
    "tp2xfsdp2": (4, SPREAD, {"tensor_parallel_size": 2}),
    "gpipe": (2, PIPELINE, {"pipeline_parallel_size": 2, "schedule": "gpipe"}),
    "1f1b": (2, PIPELINE, {"pipeline_parallel_size": 2}),
    "interleaved_1f1b": (2, PIPELINE, {"pipeline_parallel_size": 2, "schedule": "interleaved_1f1b"}),
    "interleaved_zero_bubble": (2, PIPELINE, {"pipeline_parallel_size": 2, "schedule": "interleaved_zero_bubble"}),
    "zbv": (2, PIPELINE, {"pipeline_parallel_size": 2, "schedule": "zbv"}),
    "pp2xtp2": (4, PIPELINE, {"pipeline_parallel_size": 2, "tensor_parallel_size": 2}),
    "pp2xfsdp2": (4, PIPELINE, {"pipeline_parallel_size": 2}),
    "zbvxfsdp2": (4, PIPELINE, {"pipeline_parallel_size": 2, "schedule": "zbv"}),
}
SHAPE = {"vocabulary_size": 66, "width": 32, "layers": 4, "heads": 4, "key_value_heads": 2, "feed_forward_width": 48}
CONTINUED = ["single", "tp2", "1f1b", "zbv", "pp2xfsdp2", "tp2xfsdp2"]


class Record(lightning.Callback):
    """Keeps what was logged at each step, and which samples each batch held."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.norms: list[float] = []
        self.bits: list[float] = []
        self.samples: list[list[int]] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.samples.append(batch["sample"].tolist())
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self.losses.append(float(trainer.callback_metrics["train/loss"]))
            self.norms.append(float(trainer.callback_metrics["train/gradient_norm"]))

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.sanity_checking:
            self.bits.append(float(trainer.callback_metrics["validation/bits_per_byte/all"]))


class SaveAt(lightning.Callback):
    """Saves a checkpoint after one step of a run that goes on."""

    def __init__(self, step: int, path: str) -> None:
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step and (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            trainer.save_checkpoint(self.path)


def language_model(
    optimizer: str = "AdamW", learning_rate: float = 1e-2, spike_skip: SpikeSkip | None = None, **changes: Any
) -> LanguageModel:
    """Four layers, grouped-query attention, weight decay, a schedule: whatever a layout could get wrong."""
    factory = {"AdamW": AdamW, "Muon": Muon}[optimizer](learning_rate)
    shape = {
        "width": 32,
        "layers": 4,
        "heads": 4,
        "key_value_heads": 2,
        "feed_forward_width": 48,
        "vocabulary_size": 64,
    }
    config = DecoderConfig(**{**shape, **changes})
    return LanguageModel(factory, Cosine(warmup_steps=2), config, z_loss=1e-3, spike_skip=spike_skip)


def trainer(folder: Path, strategy: Any, record: Record, **options: Any) -> lightning.Trainer:
    """A Trainer that clips, validates twice and logs each step."""
    defaults: dict[str, Any] = {
        "max_steps": 6,
        "accumulate_grad_batches": 1,
        "gradient_clip_val": 0.5,
        "precision": "32-true",
        "num_sanity_val_steps": 1,
        "check_val_every_n_epoch": None,
        "log_every_n_steps": 1,
    }
    chosen = {**defaults, **options}
    chosen.setdefault("val_check_interval", 3 * chosen["accumulate_grad_batches"])
    return lightning.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        strategy=strategy,
        callbacks=[record, *chosen.pop("callbacks", [])],
        logger=False,
        enable_checkpointing=chosen.pop("enable_checkpointing", False),
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **chosen,
    )


def train(
    folder: str,
    world: int,
    strategy_name: str,
    layout: dict[str, Any],
    options: dict[str, Any],
    shape: dict[str, Any],
    batch_size: int = 4,
    save: str | None = None,
    resume: str | None = None,
) -> dict[str, Any]:
    """Train in this process as one of `world` ranks.

    Args:
        save: checkpoint to write half-way; the run goes on.
        resume: checkpoint to continue from.

    Returns:
        losses and gradient norms by step, bits per byte by validation, sample numbers by batch.
    """
    import strategies

    torch.manual_seed(0)
    record = Record()
    strategy = getattr(strategies, strategy_name)(**layout)
    callbacks = [SaveAt(options.get("max_steps", 6) // 2, save)] if save is not None else []
    run = trainer(Path(folder), strategy, record, devices=world, callbacks=callbacks, **options)
    shape = dict(shape)
    warmup = BatchSizeWarmup(batch_size // 2, batch_size // 2, 4) if shape.pop("batch_size_warmup", False) else None
    module = language_model(**shape)
    run.fit(module, datamodule=RandomTokens(64, 32, batch_size, batch_size_warmup=warmup), ckpt_path=resume)
    skipped = float(module.norm_history.skipped) if module.norm_history else 0.0
    return {
        "losses": record.losses,
        "norms": record.norms,
        "bits": record.bits,
        "samples": record.samples,
        "skipped": skipped,
    }


def stop_early(folder: str, world: int, strategy_name: str, layout: dict[str, Any], batch_size: int) -> dict[str, Any]:
    """Lightning's own EarlyStopping and ModelCheckpoint on a run that "does not improve", then `test` of the best."""
    import strategies

    stopping = EarlyStopping("validation/bits_per_byte/all", min_delta=10.0, patience=1)
    best = ModelCheckpoint(folder, monitor="validation/bits_per_byte/all", filename="best")
    strategy = getattr(strategies, strategy_name)(**layout)
    options = {"max_steps": 12, "val_check_interval": 2, "enable_checkpointing": True, "callbacks": [stopping, best]}
    record = Record()
    run = trainer(Path(folder), strategy, record, devices=world, **options)
    module, data = language_model(), RandomTokens(64, 32, batch_size)
    # What evaluation before leaves behind must not be trained on.
    run.predict(module, datamodule=data, return_predictions=False)
    run.fit(module, datamodule=data)
    step = run.global_step
    losses = record.losses
    (result,) = run.test(module, datamodule=data, ckpt_path=best.best_model_path, verbose=False)
    return {
        "step": step,
        "losses": losses,
        "best": float(best.best_model_score),
        "test": result["test/bits_per_byte/all"],
    }


def fit(layout: str, folder: Path, options: dict[str, Any], shape: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    """What each rank saw; the global batch is 8 samples in every layout."""
    world, strategy, arguments = LAYOUTS[layout]
    data_parallel = world // (arguments.get("tensor_parallel_size", 1) * arguments.get("pipeline_parallel_size", 1))
    arguments = arguments | more.pop("extra", {})
    return run_ranks(
        world,
        train,
        str(folder),
        world,
        strategy,
        arguments,
        options,
        shape,
        8 // data_parallel,
        more.get("save"),
        more.get("resume"),
    )


def preflight(
    strategy: Any, processes: int, accumulate: int = 1, batch_size: int = 8, length: int = 32, **shape: Any
) -> None:
    """Have a strategy look at a layout, without a Trainer and without processes."""
    strategy.num_nodes = 1
    strategy.parallel_devices = [None] * processes
    strategy.cluster_environment = None
    strategy.preflight(
        SimpleNamespace(
            lightning_module=SimpleNamespace(config=DecoderConfig(**SHAPE, **shape)),
            datamodule=SimpleNamespace(batch_sizes=lambda: [batch_size], sequence_length=length),
            accumulate_grad_batches=accumulate,
        )
    )


def pipeline(size: int = 2, **arguments: Any) -> PipelineParallelStrategy:
    return PipelineParallelStrategy(size, **arguments)
