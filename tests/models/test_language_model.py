"""Settings that cannot train are refused before a weight exists; what is logged costs no wait."""

from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.trainer.states import TrainerFn

from common.errors import InputError
from datamodules import RandomTokens
from models import AdamW, Cosine, LanguageModel
from models.config import DecoderConfig, Experts
from models.decoder import auxiliary_loss

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


class FirstStep(lightning.Callback):
    """Batches and logged metrics of the first optimizer step."""

    def __init__(self) -> None:
        self.batches: list[dict[str, Any]] = []
        self.logged: dict[str, float] = {}

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.batches.append(batch)
        self.logged = {name: float(value) for name, value in trainer.callback_metrics.items()}


@pytest.mark.parametrize("z_loss", [0.0, 0.5])
@pytest.mark.parametrize("experts", [None, Experts(4, 2, balance_weight=0.7)])
def test_the_training_loss_is_the_cross_entropy_and_its_companions_have_names_of_their_own(
    experts: Experts | None, z_loss: float, tmp_path: Any
) -> None:
    config = DecoderConfig(**SHAPE, experts=experts)
    record = FirstStep()
    trainer = lightning.Trainer(
        max_steps=1, accumulate_grad_batches=2, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, callbacks=[record], default_root_dir=tmp_path,
        limit_val_batches=0, use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(LanguageModel(AdamW(), Cosine(warmup_steps=0), config, z_loss), datamodule=RandomTokens(64, 32, 2))
    fresh = LanguageModel(AdamW(), Cosine(warmup_steps=0), config, z_loss)
    fresh.configure_model()
    assert fresh.decoder is not None
    losses, squares, balances = [], [], []
    for batch in record.batches:
        with torch.no_grad():
            logits = fresh.decoder.output(fresh.decoder(batch["tokens"], batch["document_ids"])).double()
        losses.append(torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten()))
        squares.append(z_loss * logits.logsumexp(-1).square().mean())
        balances.append(auxiliary_loss(fresh.decoder) if experts else torch.zeros(()))
    expected = {"train/loss": losses} | ({"train/z_loss": squares} if z_loss else {})
    expected |= {"train/experts_loss": balances} if experts else {}
    assert len(record.batches) == 2
    assert {name for name in record.logged if "loss" in name} == expected.keys()
    for name, values in expected.items():
        assert record.logged[name] == pytest.approx(sum(float(value) for value in values) / 2, abs=2e-6), name
