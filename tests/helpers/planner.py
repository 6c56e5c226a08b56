"""A small training setup of the planner tests."""

from typing import Any

from models.config import DecoderConfig
from strategies.parallel.mesh import MeshSizes
from strategies.planner.training_setup import TrainingSetup

SHAPE: dict[str, Any] = {
    "vocabulary_size": 512, "width": 64, "layers": 4, "heads": 8, "key_value_heads": 2, "head_width": 16,
    "feed_forward_width": 160, "tied_embeddings": False,
}  # fmt: skip
ROWS, LENGTH = 2, 128


def small_setup(mixed: bool = False, tp: int = 1, **shape: Any) -> TrainingSetup:
    config = DecoderConfig(**SHAPE | shape)
    return TrainingSetup(config, MeshSizes(tp=tp), LENGTH, ROWS, mixed=mixed, device="cpu")
