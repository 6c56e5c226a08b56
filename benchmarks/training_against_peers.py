"""Training tokens per second and peak memory beside transformers and litgpt, both compiled: same shape, same optimizer.

    pip install -e ".[bench]" && pip install --no-deps litgpt && python -m benchmarks.training_against_peers

A Llama of 8 layers x 512, batches of 8 x 512 random tokens, one document per row as the peers take it. Each run is a
process of its own and the runs take turns; the first steps, which compile, are left out. This project runs as its users
run it, through Lightning's Trainer; the peers get the shortest loop there is.
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
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning
import torch
from tqdm import tqdm

from datamodules import RandomTokens
from datamodules.random_tokens import RandomWindows
from models import AdamW, LanguageModel
from models.decoder import DecoderConfig
from models.optimizers.schedules import Schedule
from strategies import TensorParallelStrategy

SHAPE = {"width": 512, "layers": 8, "heads": 8, "key_value_heads": 8, "feed_forward_width": 1376}
BATCH, LENGTH, LEARNING_RATE, WARM = 8, 512, 1e-4, 3
RUNS = ("ours", "ours-compiled", "transformers", "transformers-compiled", "litgpt", "litgpt-compiled")
OUTPUT = Path(__file__).with_suffix(".json")


class Constant(Schedule):
    """One learning rate."""

    def after_warmup(self, progress: float) -> float:
        """Nothing changes."""
        return 1.0


class Clock(lightning.Callback):
    """When each batch began."""

    def __init__(self) -> None:
        self.marks: list[float] = []

    def on_train_batch_start(self, *arguments: Any) -> None:
        self.marks.append(time.perf_counter())

    def seconds(self) -> list[float]:
        """Of each step but the last."""
        return [after - before for before, after in pairwise(self.marks)]


def run_ours(vocabulary: int, precision: str, steps: int, compiled: bool) -> dict[str, Any]:
    """Train by the project's own modules."""
    model = LanguageModel(
        AdamW(LEARNING_RATE, weight_decay=0.0),
        Constant(0, 1.0),
        decoder=DecoderConfig(vocabulary_size=vocabulary, tied_embeddings=False, **SHAPE),
    )
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = lightning.Trainer(
            default_root_dir=folder, accelerator="cpu", devices=1, precision=precision, max_steps=steps + 1,
            strategy=TensorParallelStrategy(compile_backend="inductor" if compiled else None), limit_val_batches=0,
            logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            use_distributed_sampler=False, callbacks=[clock], check_val_every_n_epoch=None, log_every_n_steps=50,
        )  # fmt: skip
        trainer.fit(model, datamodule=RandomTokens(vocabulary, LENGTH, BATCH, boundaries=0))
    return {"times": clock.seconds(), "loss": float(trainer.callback_metrics["train/loss"])}


def run_peer(name: str, vocabulary: int, precision: str, steps: int, compiled: bool) -> dict[str, Any]:
    """Train a peer's model in a plain loop."""
    model, loss_of = {"transformers": transformers_llama, "litgpt": litgpt_llama}[name](vocabulary)
    forward = torch.compile(model) if compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    windows = RandomWindows(vocabulary, LENGTH, 0, 0)
    times, last = [], 0.0
    for step in range(steps):
        rows = [windows[step * BATCH + row] for row in range(BATCH)]
        tokens, labels = (torch.stack([torch.from_numpy(row[key]) for row in rows]) for key in ("tokens", "labels"))
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
            loss = loss_of(forward, tokens, labels)
        loss.backward()
        torch.nn.utils.get_total_norm(p.grad for p in model.parameters())  # which ours logs
        optimizer.step()
        optimizer.zero_grad()
        last = loss.item()
        times.append(time.perf_counter() - start)
    return {"times": times, "loss": last}


def transformers_llama(vocabulary: int) -> tuple[torch.nn.Module, Callable[..., torch.Tensor]]:
    """Hugging Face's Llama with its own loss."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=SHAPE["width"], intermediate_size=SHAPE["feed_forward_width"],
        num_hidden_layers=SHAPE["layers"], num_attention_heads=SHAPE["heads"], tie_word_embeddings=False,
        num_key_value_heads=SHAPE["key_value_heads"], max_position_embeddings=LENGTH, use_cache=False,
    )  # fmt: skip
    model = LlamaForCausalLM(config)

    def loss_of(forward: Any, tokens: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = forward(input_ids=tokens, labels=labels, shift_labels=labels).loss
        return loss

    return model, loss_of


def litgpt_llama(vocabulary: int) -> tuple[torch.nn.Module, Callable[..., torch.Tensor]]:
    """litgpt's GPT with its chunked loss, as its pretraining script calls it."""
    from litgpt import GPT, Config
    from litgpt.utils import chunked_cross_entropy

    config = Config(
        block_size=LENGTH, n_layer=SHAPE["layers"], n_embd=SHAPE["width"], n_head=SHAPE["heads"], bias=False,
        n_query_groups=SHAPE["key_value_heads"], vocab_size=vocabulary, padded_vocab_size=vocabulary,
        rotary_percentage=1.0, norm_class_name="RMSNorm", mlp_class_name="LLaMAMLP", parallel_residual=False,
        intermediate_size=SHAPE["feed_forward_width"],
    )  # fmt: skip

    def loss_of(forward: Any, tokens: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = chunked_cross_entropy(forward(tokens), labels)
        return loss

    return GPT(config), loss_of


def child(run: str, vocabulary: int, precision: str, steps: int) -> None:
    """One run, printed as JSON on the last line."""
    name, compiled = run.removesuffix("-compiled"), run.endswith("-compiled")
    if name == "ours":
        result = run_ours(vocabulary, precision, steps, compiled)
    else:
        result = run_peer(name, vocabulary, precision, steps, compiled)
    result["peak_megabytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(result))


def main() -> None:
    """Run each in turn, several times, and record medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", choices=["32-true", "bf16-mixed"], default="32-true")
    parser.add_argument("--vocabulary", type=int, nargs="*", default=[8192, 32768])
    parser.add_argument("--steps", type=int, default=9)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--runs", choices=RUNS, nargs="*", default=list(RUNS))
    parser.add_argument("--run", choices=RUNS, help="one run, for the parent to start")
    arguments = parser.parse_args()
    if arguments.run:
        child(arguments.run, arguments.vocabulary[0], arguments.precision, arguments.steps)
        return
    records = json.loads(OUTPUT.read_text()) if OUTPUT.exists() else []
    for vocabulary in arguments.vocabulary:
        found: dict[str, list[dict[str, Any]]] = {}
        for run in tqdm(arguments.runs * arguments.repeats, desc=f"vocabulary {vocabulary}, {arguments.precision}"):
            command = [sys.executable, "-m", "benchmarks.training_against_peers", "--run", run]
            command += ["--precision", arguments.precision, "--vocabulary", str(vocabulary)]
            command += ["--steps", str(arguments.steps)]
            output = subprocess.run(command, check=True, capture_output=True, text=True, env=dict(os.environ)).stdout
            found.setdefault(run, []).append(json.loads(output.splitlines()[-1]))
        for run, results in found.items():
            seconds = statistics.median(time for result in results for time in result["times"][WARM:])
            row = {
                "run": run, "vocabulary": vocabulary, "precision": arguments.precision,
                "tokens_per_second": round(BATCH * LENGTH / seconds), "seconds_per_step": round(seconds, 3),
                "peak_megabytes": round(max(result["peak_megabytes"] for result in results)),
                "loss": results[0]["loss"], "repeats": arguments.repeats, "steps": arguments.steps,
                "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, "
                f"{torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}",
            }  # fmt: skip
            same = (run, vocabulary, arguments.precision)
            records = [r for r in records if (r["run"], r["vocabulary"], r["precision"]) != same] + [row]
            OUTPUT.write_text(json.dumps(records, indent=1) + "\n")
            print(json.dumps(row))


if __name__ == "__main__":
    main()
