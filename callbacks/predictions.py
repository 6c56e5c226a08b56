"""Writes what `predict` returns: bits per byte of every held-out window, for looking at the worst ones."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import BasePredictionWriter


class Predictions(BasePredictionWriter):
    """One JSON line a window in `predictions-RANK.jsonl`: sample, source, nats, bytes, bits_per_byte.

    RANK counts data-parallel shares; of the ranks that see the same windows one writes.
    """

    def __init__(self) -> None:
        super().__init__(write_interval="epoch")

    def write_on_epoch_end(
        self, trainer: lightning.Trainer, pl_module: Any, predictions: Sequence[Any], batch_indices: Sequence[Any]
    ) -> None:
        if not getattr(trainer.strategy, "is_model_parallel_leader", True):
            return
        share = (trainer.distributed_sampler_kwargs or {"rank": 0})["rank"]
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"predictions-{share}.jsonl"
        with path.open("w", encoding="utf-8") as file:
            for batch in predictions:
                for sample, nats, size in zip(batch["sample"], batch["nats"], batch["bytes"], strict=True):
                    bits = nats / size / math.log(2) if size else None
                    row = {
                        "sample": sample,
                        "source": batch["source"],
                        "nats": nats,
                        "bytes": size,
                        "bits_per_byte": bits,
                    }
                    file.write(json.dumps(row) + "\n")
        print(f"predictions: {path}")
