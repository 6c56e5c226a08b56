"""Samples callbacks: texts of a few prompts at each validation, and rollouts of a policy with their rewards."""

import json
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.loggers import WandbLogger

from common.contracts import ModelParallelStrategy
from common.errors import InputError
from common.files import write_text_atomically
from common.run_folder import SAMPLES, read_samples
from common.stop_tokens import stop_tokens
from models.inference.generation import generate
from models.inference.sampling import Sampling


class Samples(lightning.Callback):
    """Continues fixed prompts, appends them to `samples.jsonl`, logs them to W&B and prints the last ones.

    Where no process holds the whole model it says so and leaves sampling to `generate`, which reads any checkpoint.

    Args:
        prompts: texts to continue.
        max_new_tokens: tokens to add at most.
        temperature, top_p: see `models.inference.sampling.Sampling`.
        seed: of the sampling, the same at every validation.
    """

    def __init__(
        self,
        prompts: list[str],
        max_new_tokens: int = 64,
        temperature: float = 0.7,
        top_p: float = 0.95,
        seed: int = 0,
    ) -> None:
        if not prompts:
            raise InputError("prompts is empty: name at least one text to continue, or leave the callback out")
        self.prompts, self.max_new_tokens = prompts, max_new_tokens
        self.temperature, self.top_p, self.seed = temperature, top_p, seed
        self._last: list[dict[str, Any]] = []

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        # Sampling runs the model in one process, token by token.
        self._whole = not isinstance(trainer.strategy, ModelParallelStrategy) or trainer.strategy.holds_whole_model
        if not self._whole and trainer.is_global_zero:
            print("samples: left to `generate`, no process of this layout holds the whole model", flush=True)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        if trainer.sanity_checking or not trainer.is_global_zero or trainer.state.fn != "fit" or not self._whole:
            return
        self._last = [
            {"step": trainer.global_step, "prompt": prompt, "continuation": self._continue(trainer, pl_module, prompt)}
            for prompt in self.prompts
        ]
        write_samples(trainer, self._last)

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        for sample in self._last:
            print(f"\n--- {sample['prompt']!r} continues ---\n{sample['prompt']}{sample['continuation']}")

    def _continue(self, trainer: Any, pl_module: Any, prompt: str) -> str:
        tokenizer = trainer.datamodule.tokenizer
        prompt_ids = [*tokenizer.beginning, *tokenizer.encode(prompt)] or [tokenizer.before_text]
        sampling = Sampling(temperature=self.temperature, top_p=self.top_p, seed=self.seed)
        (new,) = generate(
            pl_module.decoder,
            [prompt_ids],
            max_new_tokens=self.max_new_tokens,
            sampling=sampling,
            stop=stop_tokens(tokenizer, None),
        )
        whole: str = tokenizer.decode([*prompt_ids, *new.tokens])
        return whole[len(prompt) :]


def write_samples(trainer: lightning.Trainer, samples: list[dict[str, Any]]) -> None:
    """Write the samples of this step to the run's `samples.jsonl`, and to W&B where there is such a logger."""
    run = Path(trainer.default_root_dir)
    # A resumed run writes the samples of a step again: those of later steps are from before the kill.
    earlier = [row for row in read_samples(run) if row["step"] < trainer.global_step]
    write_text_atomically(run / SAMPLES, (json.dumps(row) + "\n" for row in [*earlier, *samples]))
    for logger in trainer.loggers:
        if samples and isinstance(logger, WandbLogger):
            logger.log_text("samples", columns=list(samples[0]), data=[list(row.values()) for row in samples])


class RolloutSamples(lightning.Callback):
    """Appends responses of a batch of rollouts to `samples.jsonl`, with reward, monitored reward, KL and how
    they ended, and logs them to W&B as a table.

    Args:
        every_steps: batches of rollouts between them; the first one is always written.
        responses: of a batch, the first ones of the first rank.

    Raises:
        InputError: when either is below 1.
    """

    def __init__(self, every_steps: int = 50, responses: int = 8) -> None:
        if every_steps < 1 or responses < 1:
            raise InputError(f"every_steps={every_steps}, responses={responses}: both must be at least 1")
        self.every_steps, self.responses = every_steps, responses

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        step = trainer.global_step
        if trainer.is_global_zero and (step % self.every_steps == 0 or step == 1):
            write_samples(trainer, [{"step": step, **row} for row in pl_module.latest_responses(self.responses)])
