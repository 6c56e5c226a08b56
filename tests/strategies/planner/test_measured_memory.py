"""The plan's peak memory beside what training a model of 30 million parameters takes, in four layouts."""

import json
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
import yaml

from commands.plan.setup import setup_of
from commands.plan.verify import compare_run, hardware_it_ran_on
from strategies.planner.hardware import read_hardware
from strategies.planner.peak_memory import rank_memory
from tests.conftest import ROOT
from tests.helpers.distributed import run_ranks

CPU = read_hardware(ROOT / "configs/hardware/cpu.yaml")
SPREAD, PIPELINE = "strategies.TensorParallelStrategy", "strategies.PipelineParallelStrategy"
LAYOUTS: dict[str, tuple[int, str, dict[str, Any]]] = {
    "single": (1, SPREAD, {}),
    "tp2": (2, SPREAD, {"tensor_parallel_size": 2}),
    "fsdp2": (2, SPREAD, {}),
    "pp2": (2, PIPELINE, {"pipeline_parallel_size": 2, "microbatches": 2}),
}


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
    import strategies
    from callbacks import MetricsTable, Throughput
    from datamodules import RandomTokens
    from models import AdamW, Cosine, LanguageModel
    from models.decoder import DecoderConfig

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


@pytest.mark.distributed
@pytest.mark.parametrize("layout", LAYOUTS)
def test_peak_memory_within_a_tenth(layout: str, tmp_path: Path) -> None:
    world, strategy, arguments = LAYOUTS[layout]
    chosen = configuration(tmp_path, world, strategy, arguments)
    run_ranks(world, train, chosen, timeout=600)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(chosen))
    found = {row.name: row for row in compare_run(tmp_path, CPU)}
    memory = [row for name, row in found.items() if name.startswith("peak memory")]
    assert len(memory) == setup_of(chosen, CPU).sizes.pp
    facts = json.loads((tmp_path / "run.json").read_text())
    assert hardware_it_ran_on(tmp_path, facts, ROOT / "configs/hardware") == "cpu"
    parts = [rank_memory(setup_of(chosen, CPU), rank, CPU.overhead) for rank in range(len(memory))]
    for row, part in zip(memory, parts, strict=True):
        assert abs(row.difference) < 0.1, (layout, row, part, facts["peak_memory_bytes"])
    assert {"step time", "tokens per second"} <= found.keys()


@pytest.mark.distributed
def test_peak_memory_of_a_zero_bubble_schedule(tmp_path: Path) -> None:
    """A small model and many windows: without the gradients between the two backward passes the plan lay 11 and 16 %
    below what was measured, with them 5 %.
    """
    arguments = {
        "pipeline_parallel_size": 2, "schedule": "interleaved_zero_bubble", "microbatches": 4, "stages_per_rank": 2,
    }  # fmt: skip
    chosen = configuration(tmp_path, 2, PIPELINE, arguments, batch_size=16, vocabulary_size=1024)
    chosen["model"]["init_args"]["decoder"] |= {"width": 256, "layers": 8, "heads": 4, "feed_forward_width": 704}
    run_ranks(2, train, chosen, timeout=600)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(chosen))
    memory = [row for row in compare_run(tmp_path, CPU) if row.name.startswith("peak memory")]
    assert len(memory) == 2
    for row in memory:
        assert abs(row.difference) < 0.1, row
