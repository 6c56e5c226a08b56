"""Episodes per second of GRPO and RLOO beside TRL's trainers, and of PPO, which TRL 1.16 has no trainer for.

    pip install -e ".[bench]" && python -m benchmarks.alignment.rollouts_against_trl

A Llama of 32 M parameters, prompts of 32 random tokens, up to 64 new tokens, 32 responses per batch (GRPO: in groups of
4), bf16-mixed unless said otherwise. The reward is the share of even token ids, one update per batch; RLOO has a
reference and takes its KL off the rewards. PPO's reward comes from a second model of the same shape, with a
critic of that shape too, and it makes four updates per batch. Each run is a process of its own, the runs take turns,
the first two batches are left out. Ours says itself how its time is divided.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from alignment import (
    GAE,
    PPO,
    FixedKL,
    GroupRelativeAdvantage,
    KLPenalty,
    LeaveOneOutAdvantage,
    PolicyOptimization,
    PPOUpdates,
)
from alignment.rewards.base import Response, Reward
from benchmarks.training_against_peers import Constant
from datamodules.mixing.samplers import StepBatch
from datamodules.resumable import ResumableDataModule
from models import AdamW
from models.decoder import Decoder, DecoderConfig
from models.initialization import build_decoder
from strategies import TensorParallelStrategy

VOCABULARY, PROMPT, NEW, ANSWERS, GROUP, PPO_EPOCHS = 6400, 32, 64, 32, 4, 4
SHAPE = {"width": 512, "layers": 8, "heads": 8, "key_value_heads": 8, "feed_forward_width": 1376}
CONFIG = DecoderConfig(vocabulary_size=VOCABULARY, tied_embeddings=False, **SHAPE)
SCALAR = DecoderConfig(vocabulary_size=VOCABULARY, tied_embeddings=False, scalar_output=True, **SHAPE)
EOS, PAD, LEARNING_RATE = 2, 3, 1e-6
PRECISIONS = ("bf16-mixed", "32-true")
RUNS = ("grpo-ours", "grpo-trl", "rloo-ours", "rloo-trl", "ppo-ours")
OUTPUT = Path(__file__).with_suffix(".json")


def prompt(number: int) -> list[int]:
    """Random tokens, a function of the number."""
    return [int(token) for token in np.random.default_rng(number).integers(4, VOCABULARY, size=PROMPT)]


class Numbers:
    """A tokenizer of words that are numbers."""

    bos, eos, pad = None, EOS, PAD

    def decode(self, ids: Sequence[int]) -> str:
        """The numbers."""
        return " ".join(map(str, ids))

    def decode_continuation(self, ids: Sequence[int]) -> str:
        """The same."""
        return self.decode(ids)


class EvenShare(Reward):
    """Share of even token ids in a response."""

    def __call__(self, responses: Sequence[Response]) -> Tensor:
        return torch.tensor([sum(t % 2 == 0 for t in response.tokens) / len(response.tokens) for response in responses])


class ModelScore(Reward):
    """The scalar output of a model at a response's last token."""

    def __init__(self) -> None:
        self.decoder: Decoder | None = None

    def prepare(self, device: torch.device) -> None:
        """Make the model."""
        self.decoder = build_decoder(SCALAR, seed=1, device=device).requires_grad_(False)

    @torch.no_grad()
    def __call__(self, responses: Sequence[Response]) -> Tensor:
        assert self.decoder is not None
        rows = [[*response.prompt, *response.tokens] for response in responses]
        documents = torch.cat([torch.full((len(row),), number) for number, row in enumerate(rows)])[None]
        with torch.autocast("cpu", torch.bfloat16, enabled=torch.is_autocast_enabled("cpu")):
            hidden = self.decoder(torch.tensor([token for row in rows for token in row])[None], documents)[0]
        ends = torch.tensor([len(row) for row in rows]).cumsum(0) - 1
        return nn.functional.linear(hidden[ends].float(), self.decoder.output.weight.float()).squeeze(-1)


class Prompts(Dataset[dict[str, Any]]):
    """Batches of prompts."""

    def __getitem__(self, key: StepBatch) -> dict[str, Any]:
        prompts = [prompt(sample) for sample in key.samples]
        rows = [{"prompt": ""} for _ in prompts]
        return {"prompts": prompts, "rows": rows, "sample": torch.tensor(key.samples), "source": "prompts"}


class PromptNumbers(ResumableDataModule):
    """An endless stream of prompts."""

    def __init__(self, batch_size: int) -> None:
        super().__init__(batch_size, workers=0)
        self.source_names, self.tokenizer = ["prompts"], Numbers()

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Prompts."""
        return self.batch_loader(Prompts(), self.training_keys())


class Record(lightning.Callback):
    """Seconds of each batch of rollouts, and of what they were spent on."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.parts: list[dict[str, float]] = []

    def on_train_batch_start(self, *arguments: Any) -> None:
        self.start = time.perf_counter()

    def on_train_batch_end(self, trainer: Any, *arguments: Any) -> None:
        self.times.append(time.perf_counter() - self.start)
        names = ("generation", "scoring", "learning")
        self.parts.append({name: float(trainer.callback_metrics[f"train/seconds/{name}"]) for name in names})


def run_ours(task: str, steps: int, precision: str, folder: Path) -> dict[str, Any]:
    """Train by the project's own modules."""
    settings: dict[str, Any] = {
        "optimizer": AdamW(LEARNING_RATE, weight_decay=0.0), "schedule": Constant(0, 1.0), "decoder": CONFIG,
        "max_new_tokens": NEW,
    }  # fmt: skip
    if task == "grpo":
        module = PolicyOptimization(
            EvenShare(),
            GroupRelativeAdvantage(),
            optimization=PPOUpdates(epochs=1),
            group_size=GROUP,
            reference=None,
            **settings,
        )
    elif task == "rloo":
        kl = KLPenalty(FixedKL(0.05))
        module = PolicyOptimization(
            EvenShare(), LeaveOneOutAdvantage(), kl, optimization=PPOUpdates(epochs=1), group_size=GROUP, **settings
        )
    else:
        kl = KLPenalty(FixedKL(0.05))
        module = PPO(ModelScore(), GAE(), kl, optimization=PPOUpdates(epochs=PPO_EPOCHS), **settings)
    record = Record()
    trainer = lightning.Trainer(
        default_root_dir=folder, accelerator="cpu", devices=1, strategy=TensorParallelStrategy(), max_steps=steps,
        precision=precision, limit_val_batches=0, logger=False, enable_checkpointing=False, callbacks=[record],
        enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False, log_every_n_steps=1,
        check_val_every_n_epoch=None,
    )  # fmt: skip
    trainer.fit(module, datamodule=PromptNumbers(ANSWERS if task == "ppo" else ANSWERS // GROUP))
    parts = {name: statistics.median(part[name] for part in record.parts[2:]) for name in record.parts[0]}
    return {"times": record.times, "parts": parts}


def run_trl(task: str, steps: int, precision: str, folder: Path) -> dict[str, Any]:
    """Train by TRL's trainers."""
    from datasets import Dataset as Table
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

    words = {"<unk>": 0, "<s>": 1, "</s>": EOS, "<pad>": PAD} | {str(i): i for i in range(4, VOCABULARY)}
    inner = Tokenizer(WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="</s>", pad_token="<pad>", unk_token="<unk>", padding_side="left"
    )
    llama = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=CONFIG.width, intermediate_size=CONFIG.feed_forward_width,
        num_hidden_layers=CONFIG.layers, num_attention_heads=CONFIG.heads, tie_word_embeddings=False,
        num_key_value_heads=CONFIG.key_value_heads, bos_token_id=1, eos_token_id=EOS, pad_token_id=PAD,
    )  # fmt: skip
    times: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *arguments: Any, **keywords: Any) -> None:
            times.append(time.perf_counter())

    LlamaForCausalLM(llama).save_pretrained(folder / "model")
    model = LlamaForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    common: dict[str, Any] = {
        "output_dir": str(folder), "use_cpu": True, "bf16": precision == "bf16-mixed", "learning_rate": LEARNING_RATE,
        "per_device_train_batch_size": ANSWERS, "gradient_accumulation_steps": 1, "logging_steps": 1,
        "save_strategy": "no", "disable_tqdm": True, "gradient_checkpointing": False, "temperature": 1.0,
        "report_to": "none",
    }  # fmt: skip
    start = time.perf_counter()

    def even_share(completion_ids: list[list[int]], **keywords: Any) -> list[float]:
        return [sum(t % 2 == 0 for t in ids) / max(len(ids), 1) for ids in completion_ids]

    rows = Table.from_list([{"prompt": Numbers().decode(prompt(number))} for number in range(ANSWERS * steps)])
    settings, trainer_class = (GRPOConfig, GRPOTrainer) if task == "grpo" else (RLOOConfig, RLOOTrainer)
    arguments = settings(
        num_generations=GROUP, max_completion_length=NEW, max_steps=steps, beta=0.0 if task == "grpo" else 0.05,
        num_iterations=1, **common,
    )  # fmt: skip
    trainer: Any = trainer_class(
        model, reward_funcs=even_share, args=arguments, train_dataset=rows, processing_class=tokenizer,
        callbacks=[Clock()],
    )  # fmt: skip
    trainer.train()
    marks = [start, *times]
    return {"times": [after - before for before, after in pairwise(marks)]}


def main() -> None:
    """Run each in turn, several times, and record medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--precision", choices=PRECISIONS, default=PRECISIONS[0])
    parser.add_argument("--runs", choices=RUNS, nargs="*", default=list(RUNS))
    parser.add_argument("--run", choices=RUNS, help="one run, for the parent to start")
    arguments = parser.parse_args()
    if arguments.run:
        task, who = arguments.run.split("-")
        with tempfile.TemporaryDirectory() as folder:
            result = (run_ours if who == "ours" else run_trl)(task, arguments.steps, arguments.precision, Path(folder))
        result["peak_megabytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(result))
        return
    found: dict[str, list[dict[str, Any]]] = {}
    for run in tqdm(arguments.runs * arguments.repeats):
        command = [sys.executable, "-m", "benchmarks.alignment.rollouts_against_trl", "--run", run]
        command += ["--steps", str(arguments.steps), "--precision", arguments.precision]
        output = subprocess.run(command, check=True, capture_output=True, text=True, env=dict(os.environ)).stdout
        found.setdefault(run, []).append(json.loads(output.splitlines()[-1]))
    taken = {(run, arguments.precision) for run in found}
    records = json.loads(OUTPUT.read_text()) if OUTPUT.exists() else []
    records = [record for record in records if (record["run"], record["precision"]) not in taken]
    for run, results in found.items():
        seconds = statistics.median(value for result in results for value in result["times"][2:])
        records.append({
            "run": run, "precision": arguments.precision, "seconds_per_batch": round(seconds, 3),
            "episodes_per_second": round(ANSWERS / seconds, 2),
            "parts": results[0].get("parts"), "peak_megabytes": round(max(r["peak_megabytes"] for r in results)),
            "repeats": arguments.repeats, "steps": arguments.steps,
            "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, "
            f"{torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}",
        })  # fmt: skip
        print(json.dumps(records[-1]))
    OUTPUT.write_text(json.dumps(records, indent=1) + "\n")


if __name__ == "__main__":
    main()
