"""Configurations, training setups and runs of known laws, for tests of the planner."""

import copy
import math
from pathlib import Path
from typing import Any

import torch
import yaml

from commands.training.defaults import TRAINER, merge_defaults
from models.config import DecoderConfig
from strategies.parallel.mesh import MeshSizes
from strategies.planner.hardware import read_hardware
from strategies.planner.scaling_law_fit import Point
from strategies.planner.scaling_laws import ScalingLaw
from strategies.planner.training_setup import TrainingSetup
from tests.helpers.corpus import ROOT

H100, CPU = (read_hardware(ROOT / f"configs/hardware/{name}.yaml") for name in ("h100", "cpu"))
SIZES = ("8b", "70b", "405b", "1t")
SPREAD, PIPELINE = "strategies.TensorParallelStrategy", "strategies.PipelineParallelStrategy"
LAYOUTS: dict[str, tuple[int, str, dict[str, Any]]] = {
    "single": (1, SPREAD, {}),
    "tp2": (2, SPREAD, {"tensor_parallel_size": 2}),
    "fsdp2": (2, SPREAD, {}),
    "pp2": (2, PIPELINE, {"pipeline_parallel_size": 2, "microbatches": 2}),
}
SHAPE: dict[str, Any] = {
    "vocabulary_size": 512, "width": 64, "layers": 4, "heads": 8, "key_value_heads": 2, "head_width": 16,
    "feed_forward_width": 160, "tied_embeddings": False,
}  # fmt: skip
ROWS, LENGTH = 2, 128
KNOWN = ScalingLaw("known", e=1.8, a=450.0, alpha=0.35, b=1800.0, beta=0.37)


def configuration(folder: Path, world: int, strategy: str, layout: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A run of two steps of 2 x 128 tokens."""
    return {
        "trainer": {
            "default_root_dir": str(folder), "accelerator": "cpu", "devices": world, "precision": "32-true",
            "max_steps": 2, "accumulate_grad_batches": 1, "strategy": {"class_path": strategy, "init_args": layout},
        },
        "model": {
            "class_path": "models.LanguageModel",
            "init_args": {
                "decoder": {
                    "width": 384, "layers": 16, "heads": 6, "key_value_heads": 2, "feed_forward_width": 1024,
                    "tied_embeddings": False,
                },
                "optimizer": {"class_path": "models.AdamW"},
            },
        },
        "data": {"init_args": {"vocabulary_size": 8192, "sequence_length": 128, "batch_size": 2} | changes},
    }  # fmt: skip


def train(configuration: dict[str, Any], peak: float | None = 1e10) -> None:
    """Train as `fit` would; the rate of products is measured where none is given."""
    import lightning

    import strategies
    from callbacks import MetricsTable, Throughput
    from datamodules import RandomTokens
    from models import AdamW, Cosine, LanguageModel

    torch.manual_seed(0)
    trainer, data = configuration["trainer"], configuration["data"]["init_args"]
    kind = getattr(strategies, trainer["strategy"]["class_path"].removeprefix("strategies."))
    run = lightning.Trainer(
        default_root_dir=trainer["default_root_dir"], accelerator="cpu", devices=trainer["devices"],
        precision=trainer["precision"], max_steps=trainer["max_steps"],
        accumulate_grad_batches=trainer["accumulate_grad_batches"],
        strategy=kind(**trainer["strategy"]["init_args"]), callbacks=[Throughput(peak)],
        logger=MetricsTable(trainer["default_root_dir"]), log_every_n_steps=1, limit_val_batches=0,
        gradient_clip_val=1.0, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        use_distributed_sampler=False,
    )  # fmt: skip
    config = DecoderConfig(vocabulary_size=data["vocabulary_size"], **configuration["model"]["init_args"]["decoder"])
    run.fit(LanguageModel(AdamW(), Cosine(1), config), datamodule=RandomTokens(**data))


def size_configuration(name: str) -> dict[str, Any]:
    """A configuration of a size with the defaults of the command line, without the seconds that its parser takes."""
    found: dict[str, Any] = yaml.safe_load((ROOT / f"configs/pretrain/{name}.yaml").read_text())
    own = found["trainer"]
    for added in [key for key in own if key.endswith("+")]:
        kept = added.removesuffix("+")
        own[kept] = merge_defaults([*copy.deepcopy(TRAINER[kept]), *own.pop(added)])
    found["trainer"] = copy.deepcopy(TRAINER) | own
    return found


def small(tmp_path: Path, layout: str = "single", **trainer: Any) -> dict[str, Any]:
    world, strategy, arguments = LAYOUTS[layout]
    made = configuration(tmp_path, world, strategy, arguments)
    made["trainer"] |= trainer
    return made


def small_setup(mixed: bool = False, tp: int = 1, **shape: Any) -> TrainingSetup:
    config = DecoderConfig(**SHAPE | shape)
    return TrainingSetup(config, MeshSizes(tp=tp), LENGTH, ROWS, mixed=mixed, device="cpu")


def runs(law: ScalingLaw, noise: float = 0.0) -> list[Point]:
    """Five sizes around the optimum of each of four computes."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for flops in (1e18, 1e19, 1e20, 1e21):
        best, _ = law.optimum(flops)
        for factor in (0.25, 0.5, 1.0, 2.0, 4.0):
            n, d = factor * best, flops / 6 / (factor * best)
            error = math.exp(noise * float(torch.randn((), generator=generator)))
            found.append(Point(n, d, law.loss(n, d) * error))
    return found
