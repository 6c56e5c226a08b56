"""A data module's position: saved under one key, and known for every step of earlier starts."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning
import pytest
import torch

from common.errors import InputError
from datamodules import RandomTokens
from datamodules.mixing.batch_size_warmup import BatchSizeWarmup
from datamodules.resumable import DATA_STATE, ResumableDataModule


class RenamedTokens(RandomTokens):
    """The same data under another class name."""


class SeenSamples(lightning.LightningModule):
    """Notes the samples of each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[list[int]] = []

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:
        self.seen.append(batch["sample"].tolist())
        return self.weight * 1.0

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def train(data: ResumableDataModule, folder: Path, steps: int, checkpoint: Path | None = None) -> Any:
    """The trainer and the samples of each batch."""
    module = SeenSamples()
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_steps=steps,
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    trainer.fit(module, datamodule=data, ckpt_path=checkpoint)
    return trainer, module.seen


@pytest.mark.end_to_end
def test_a_checkpoint_of_a_class_with_another_name_resumes(tmp_path: Path) -> None:
    path = tmp_path / "step=2.ckpt"
    trainer, first = train(RandomTokens(batch_size=4), tmp_path, 2)
    trainer.save_checkpoint(path)
    checkpoint = torch.load(path, weights_only=True)
    assert checkpoint[DATA_STATE]["consumed_samples"] == 8
    assert "RandomTokens" not in checkpoint
    renamed = RenamedTokens(batch_size=4)
    _, second = train(renamed, tmp_path, 5, path)
    assert first + second == [list(range(4 * step, 4 * step + 4)) for step in range(5)]


@pytest.mark.end_to_end
def test_a_checkpoint_without_a_position_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "step=2.ckpt"
    trainer, _ = train(RandomTokens(batch_size=4), tmp_path, 2)
    trainer.save_checkpoint(path)
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint[DATA_STATE]
    torch.save(checkpoint, path)
    with pytest.raises(InputError, match="step 2 holds no position in the data"):
        train(RandomTokens(batch_size=4), tmp_path, 5, path)


def numbered(micro_batches: int, warmup: BatchSizeWarmup | None = None, state: Any = None) -> Any:
    """Samples for a run of so many micro-batches a step, from the beginning or a checkpoint."""
    data: Any = ResumableDataModule(4, 0, warmup)
    data.trainer = SimpleNamespace(
        accumulate_grad_batches=micro_batches, distributed_sampler_kwargs=None, global_step=0, max_steps=-1
    )
    if state is not None:
        data.load_state_dict(state)
    return data


def test_a_resumed_run_knows_the_samples_of_the_steps_before() -> None:
    """Two starts and a third, with batches that grow and then another number of them a step."""
    warmup = BatchSizeWarmup(initial=1, increment=1, steps=6)
    first = numbered(2, warmup)
    first.skipped.add(5, 7)
    taken = [first.samples_of_step(step) for step in range(1, 11)]
    assert [len(samples) for samples in taken] == [2, 2, 4, 4, 6, 6, 8, 8, 8, 8]
    first.trainer.global_step = 10
    second = numbered(1, None, first.state_dict())
    taken += [second.samples_of_step(step) for step in range(11, 16)]
    second.trainer.global_step = 15
    third = numbered(3, None, second.state_dict())
    third.skipped.add(taken[14][-1] + 1, taken[14][-1] + 9)
    taken += [third.samples_of_step(step) for step in range(16, 19)]
    everything = [sample for samples in taken for sample in samples]
    assert everything == third.skipped.take(0, len(everything))
    for data, known in ((second, 15), (third, 18)):
        assert [data.samples_of_step(step) for step in range(1, known + 1)] == taken[:known]
        assert [data.position_at(step) for step in range(known)] == [samples[0] for samples in taken[:known]]


def test_a_checkpoint_that_does_not_say_what_came_before_is_not_guessed_at() -> None:
    data = numbered(1, None, {"consumed_samples": 12, "counted_steps": 3})
    assert data.samples_of_step(4) == [12, 13, 14, 15]
    with pytest.raises(InputError, match="samples of step 3: the checkpoint of step 3 .* set it aside"):
        data.samples_of_step(3)
