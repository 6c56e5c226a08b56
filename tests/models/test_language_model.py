"""Settings that cannot train are refused before a weight exists; what is logged costs no wait."""

from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.trainer.states import TrainerFn

from common.errors import InputError
from models import AdamW, Cosine, LanguageModel
from models.config import DecoderConfig

SHAPE: dict[str, Any] = {
    "vocabulary_size": 64, "width": 16, "layers": 2, "heads": 2, "key_value_heads": 1, "feed_forward_width": 24,
}  # fmt: skip


def model(**arguments: Any) -> LanguageModel:
    return LanguageModel(AdamW(), Cosine(warmup_steps=0), DecoderConfig(**SHAPE), **arguments)


def prepared(precision: str, function: TrainerFn) -> lightning.Trainer:
    """A Trainer on its way into a function."""
    trainer = lightning.Trainer(
        precision=precision,
        max_steps=2,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,  # type: ignore[arg-type]
    )
    trainer.state.fn = function
    return trainer


@pytest.mark.parametrize(
    ("precision", "message"),
    [
        ("bf16-true", "precision=bf16-true: .* take bf16-mixed"),
        ("16-true", "precision=16-true: .* take bf16-mixed or 32-true"),
    ],
)
def test_a_precision_that_loses_updates_is_refused_in_training(precision: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        model().preflight(prepared(precision, TrainerFn.FITTING))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("function", [TrainerFn.VALIDATING, TrainerFn.PREDICTING])
def test_whole_models_in_bfloat16_can_be_evaluated(function: TrainerFn) -> None:
    model().preflight(prepared("bf16-true", function))


def test_most_updates_of_bfloat16_weights_are_lost() -> None:
    """Why it is refused: one step of AdamW at a rate of fine-tuning."""
    moved = {}
    for dtype in (torch.bfloat16, torch.float32):
        weight = torch.nn.Parameter((torch.randn(4096, generator=torch.Generator().manual_seed(0)) * 0.02).to(dtype))
        before = weight.detach().clone()
        weight.grad = torch.ones_like(weight)
        AdamW(3e-5).build([("weight", weight)]).step()
        moved[dtype] = (weight != before).float().mean().item()
    assert moved[torch.float32] == 1.0
    assert moved[torch.bfloat16] < 0.5
