"""Scaled-down twin of a configuration, in its layout and in one process, for `parity`.

The twin keeps what a layout can get wrong (axes, schedule, grouped heads, tying, accumulation, clipping, precision) and
shrinks what it cannot (widths, layers, vocabulary), so that it runs in a minute on a laptop's CPU.
"""

import math
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from common.errors import InputError
from strategies.parallel.mesh import ARGUMENTS

SEQUENCE_LENGTH = 32
HEAD_WIDTH = 8


class Twin(NamedTuple):
    """A small configuration in its layout, the same in one process, and what was made smaller."""

    spread: dict[str, Any]
    alone: dict[str, Any]
    processes: int
    changes: list[str]


def make_twin(configuration: dict[str, Any], steps: int, max_axis: int = 2) -> Twin:
    """Scale a configuration of `fit` down.

    Args:
        configuration: as `--print_config` gives it.
        steps: optimizer steps.
        max_axis: axes of the mesh larger than this are cut down to it.

    Raises:
        InputError: when its strategy is not one of this project's.
    """
    trainer, model = configuration["trainer"], configuration["model"]
    strategy = trainer.get("strategy")
    if not isinstance(strategy, dict) or not strategy["class_path"].startswith("strategies."):
        raise InputError(
            f"trainer.strategy={strategy}: parity compares strategies.TensorParallelStrategy and "
            "strategies.PipelineParallelStrategy with one process, take one of them"
        )
    layout, changes = dict(strategy.get("init_args") or {}), []
    devices = trainer["devices"] if isinstance(trainer["devices"], int) else 1
    world = devices * trainer.get("num_nodes", 1)
    others = math.prod(layout.get(name, 1) for axis, name in ARGUMENTS.items() if axis != "dp_shard")
    if layout.get(ARGUMENTS["dp_shard"], "auto") == "auto":
        layout[ARGUMENTS["dp_shard"]] = max(world // others, 1)
    for name in ARGUMENTS.values():
        if layout.get(name, 1) > max_axis:
            changes.append(f"{name} {layout[name]} -> {max_axis}")
            layout[name] = max_axis
    processes = math.prod(layout.get(name, 1) for name in ARGUMENTS.values())
    data_parallel = layout.get(ARGUMENTS["dp_shard"], 1) * layout.get(ARGUMENTS["dp_replicate"], 1)
    tensor, stages = (
        layout.get(ARGUMENTS["tp"], 1),
        layout.get(ARGUMENTS["pp"], 1) * (layout.get("stages_per_rank") or 2),
    )

    decoder = dict(model["init_args"]["decoder"])
    groups = decoder["heads"] // decoder["key_value_heads"]
    small = {
        "key_value_heads": tensor,
        "heads": tensor * min(groups, 2),
        "width": tensor * min(groups, 2) * HEAD_WIDTH,
        "head_width": HEAD_WIDTH,
        "feed_forward_width": 24 * tensor,
        "layers": max(2, stages),
        "vocabulary_size": 64 * tensor,
    }
    changes += [f"{name} {decoder.get(name)} -> {value}" for name, value in small.items() if decoder.get(name) != value]
    microbatches = layout.get("microbatches") or 1
    batch = 2 * microbatches
    accumulate = min(trainer.get("accumulate_grad_batches") or 1, 2)
    changes.append(f"batch {batch} windows of {SEQUENCE_LENGTH} random tokens, accumulated {accumulate} times")

    # Weights to begin with would not fit.
    given = {name: value for name, value in model["init_args"].items() if name != "init_from"}
    settings = given | {"decoder": decoder | small}
    settings["schedule"] = {"class_path": "models.Cosine", "init_args": {"warmup_steps": min(2, steps)}}

    def configure(strategy: dict[str, Any], processes: int, batch: int) -> dict[str, Any]:
        data = {"vocabulary_size": small["vocabulary_size"], "sequence_length": SEQUENCE_LENGTH, "batch_size": batch}
        return {
            "seed_everything": configuration.get("seed_everything", 0),
            "trainer": {
                "accelerator": "cpu",
                "devices": processes,
                "strategy": strategy,
                "precision": trainer.get("precision") or "32-true",
                "max_steps": steps,
                "accumulate_grad_batches": accumulate,
                "gradient_clip_val": trainer.get("gradient_clip_val"),
                "val_check_interval": accumulate * steps,
                "check_val_every_n_epoch": None,
                "num_sanity_val_steps": 1,
                "log_every_n_steps": 1,
                "enable_progress_bar": False,
                "enable_model_summary": False,
                "logger": [{"class_path": "callbacks.MetricsTable"}],
                "callbacks": [{"class_path": "callbacks.Checkpoints", "init_args": {"every_steps": 1, "keep": steps}}],
            },
            "model": model | {"init_args": settings},
            "data": {"class_path": "datamodules.RandomTokens", "init_args": data},
        }

    one = {"class_path": "strategies.TensorParallelStrategy"}
    spread = {"class_path": strategy["class_path"], "init_args": layout}
    return Twin(configure(spread, processes, batch), configure(one, 1, batch * data_parallel), processes, changes)


def write_configuration(configuration: dict[str, Any], folder: Path) -> Path:
    """A configuration as a YAML file beside the run it is for."""
    folder.mkdir(parents=True, exist_ok=True)
    configuration["trainer"]["default_root_dir"] = str(folder)
    path = folder / "parity.yaml"
    path.write_text(yaml.safe_dump(configuration), encoding="utf-8")
    return path
