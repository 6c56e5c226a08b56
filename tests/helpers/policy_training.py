"""A tiny policy that learns from rewards in any layout, and what it logged: the common ground of the tests of PPO."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from alignment import GAE, FixedKL, KLPenalty, PolicyOptimization, PPOUpdates
from alignment.rewards.base import Response, Reward
from datamodules.mixing.samplers import StepBatch
from datamodules.mixing.windows import PADDING
from datamodules.resumable import ResumableDataModule
from models import AdamW, Cosine, DecoderConfig
from models.inference.sampling import Sampling

EOS, WANTED = 2, 7
CONFIG = DecoderConfig(vocabulary_size=16, width=16, layers=2, heads=2, key_value_heads=1, feed_forward_width=24)


class Letters:
    """A tokenizer of letters."""

    bos, eos, pad = None, EOS, 3

    def decode(self, ids: Iterable[int]) -> str:
        return "".join(chr(ord("a") + token) for token in ids)

    def decode_continuation(self, ids: Iterable[int]) -> str:
        """The same."""
        return self.decode(ids)

    def control_ids(self) -> dict[str, int]:
        return {"<|stop|>": 5}


class PromptBatches(Dataset[dict[str, Any]]):
    """Random prompts of 1 to 6 tokens, a function of the sample's number."""

    def __getitem__(self, key: StepBatch) -> dict[str, Any]:
        prompts = []
        for sample in key.samples:
            generator = np.random.default_rng([7, max(sample, 0)])
            prompts.append(generator.integers(4, 16, size=generator.integers(1, 7)).tolist())
        rows = [{"prompt": "", "number": max(sample, PADDING)} for sample in key.samples]
        return {"prompts": prompts, "rows": rows, "sample": torch.tensor(key.samples), "source": "prompts"}


class TinyPrompts(ResumableDataModule):
    """Prompts in the format of `datamodules.PromptData`."""

    def __init__(self, batch_size: int = 4, validation_prompts: int = 5) -> None:
        super().__init__(batch_size, workers=0)
        self.source_names, self.tokenizer, self.validation_prompts = ["prompts"], Letters(), validation_prompts

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        return self.batch_loader(PromptBatches(), self.training_keys())

    def val_dataloader(self) -> DataLoader[dict[str, Any]]:
        return self.batch_loader(PromptBatches(), self.evaluation_keys(self.validation_prompts))

    def predict_dataloader(self) -> DataLoader[dict[str, Any]]:
        return self.val_dataloader()


class Wanted(Reward):
    """Share of a response's tokens that are the wanted one."""

    def __call__(self, responses: Sequence[Response]) -> Tensor:
        return torch.tensor([list(response.tokens).count(WANTED) / len(response.tokens) for response in responses])


class Length(Reward):
    """Tokens of a response."""

    def __call__(self, responses: Sequence[Response]) -> Tensor:
        return torch.tensor([float(len(response.tokens)) for response in responses])


class Nothing(Reward):
    """All responses are worth the same."""

    def __call__(self, responses: Sequence[Response]) -> Tensor:
        return torch.zeros(len(responses))


def ppo(**changes: Any) -> PolicyOptimization:
    """A module whose every part is switched on."""
    settings: dict[str, Any] = {
        "reward": Wanted(),
        "monitored_reward": Length(),
        "advantage": GAE(),
        "kl": KLPenalty(FixedKL(0.05)),
        "optimization": PPOUpdates(epochs=2, minibatches=2, microbatch_tokens=40),
        "group_size": 2,
        "max_new_tokens": 6,
        "sampling": Sampling(temperature=0.9, seed=1),
        "missing_eos_penalty": 0.1,
        "optimizer": AdamW(1e-2, weight_decay=0.0),
        "schedule": Cosine(warmup_steps=0),
        "decoder": CONFIG,
    }
    return PolicyOptimization(**settings | changes)


@dataclass
class Logged:
    """What was logged at each step and each validation, and the responses drawn at each step, by sample."""

    steps: list[dict[str, float]] = field(default_factory=list)
    drawn: list[dict[int, list[list[int]]]] = field(default_factory=list)
    validations: list[dict[str, float]] = field(default_factory=list)


class Record(lightning.Callback):
    """Keeps what was logged."""

    def __init__(self, logged: Logged) -> None:
        self.logged = logged

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        metrics = trainer.callback_metrics
        self.logged.steps.append(
            {name: float(value) for name, value in metrics.items() if not name.startswith("validation/")}
        )
        rollouts, found = pl_module.latest.rollouts, {}
        for sample, response in zip(rollouts.samples, rollouts.responses, strict=True):
            found.setdefault(sample, []).append(response.tokens)
        self.logged.drawn.append(found)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        metrics = trainer.callback_metrics
        self.logged.validations.append(
            {name: float(v) for name, v in metrics.items() if name.startswith("validation/")}
        )


class SaveAt(lightning.Callback):
    """Saves a checkpoint after one step of a run that goes on."""

    def __init__(self, step: int, path: str) -> None:
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer: Any, *arguments: Any) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


def train(
    folder: str,
    world: int = 1,
    layout: dict[str, Any] | str | None = None,
    settings: dict[str, Any] | None = None,
    batch_size: int = 4,
    options: dict[str, Any] | None = None,
    save: str | None = None,
    resume: str | None = None,
    module: PolicyOptimization | None = None,
) -> Logged:
    """Train in this process as one of `world` ranks; `layout` is of the project's strategy, or the name of another,
    `module` one that is looked at afterward, in place of one with `settings`.
    """
    from strategies import TensorParallelStrategy

    torch.manual_seed(0)
    logged = Logged()
    strategy: Any = layout if isinstance(layout, str) else TensorParallelStrategy(**(layout or {}))
    defaults = {"max_steps": 4, "precision": "32-true", "val_check_interval": 4} | (options or {})
    trainer = lightning.Trainer(
        default_root_dir=Path(folder),
        accelerator="cpu",
        devices=world,
        strategy=strategy,
        callbacks=[Record(logged), *([SaveAt(2, save)] if save is not None else [])],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        check_val_every_n_epoch=None,
        **defaults,
    )
    trainer.fit(module or ppo(**(settings or {})), datamodule=TinyPrompts(batch_size), ckpt_path=resume)
    return logged


UNEQUAL = {"train/seconds/generation", "train/seconds/scoring", "train/seconds/learning", "train/responses_per_second"}


def assert_same_steps(found: list[dict[str, float]], expected: list[dict[str, float]], tolerance: float) -> None:
    assert len(found) == len(expected)
    for step, (mine, theirs) in enumerate(zip(found, expected, strict=True)):
        assert mine.keys() == theirs.keys()
        for name in mine.keys() - UNEQUAL:
            assert mine[name] == pytest.approx(theirs[name], abs=tolerance, nan_ok=True), (step, name)
