"""Prediction writer: per-sample predictions for the validation data, such as bits per byte, to find the worst ones.

The module names the columns (`predict_step`), so that pretraining, reward models, preferences and rollouts are written
by one callback.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import BasePredictionWriter

from common.contracts import ModelParallelStrategy
from common.files import write_text_atomically
from common.run_folder import PREDICTIONS


class Predictions(BasePredictionWriter):
    """One JSON line per sample in `predictions-RANK.jsonl`, with the columns that the module's `predict_step` returns:
    lists have a value for each sample, anything else holds for all.

    RANK counts data-parallel shares; of the ranks that see the same windows one writes.
    """

    def __init__(self) -> None:
        super().__init__(write_interval="epoch")

    def write_on_epoch_end(
        self, trainer: lightning.Trainer, pl_module: Any, predictions: Sequence[Any], batch_indices: Sequence[Any]
    ) -> None:
        if isinstance(trainer.strategy, ModelParallelStrategy) and not trainer.strategy.is_model_parallel_leader:
            return
        share = (trainer.distributed_sampler_kwargs or {"rank": 0})["rank"]
        path = Path(trainer.default_root_dir) / PREDICTIONS.format(rank=share)
        write_text_atomically(path, (json.dumps(row) + "\n" for batch in predictions for row in _rows(batch)))
        print(f"predictions: {path}")


def _rows(batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for number in range(len(batch["sample"])):
        yield {name: column[number] if isinstance(column, list) else column for name, column in batch.items()}
