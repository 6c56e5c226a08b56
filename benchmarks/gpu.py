"""One GPU, one call: model FLOP utilization, peak memory and generated tokens per second, beside transformers.

    python -m benchmarks.gpu            # under ten minutes on an H100 or H200; --toy runs everything small on a CPU

Two shapes: a whole model of 1.1 B parameters (TinyLlama's) at sequence 4096, and four layers as an 8 B Llama has them.
This project trains through Lightning's Trainer with compiled blocks, in bf16-mixed and with 8-bit products; the peer is
transformers' Llama, compiled, in the shortest loop there is. FLOPs are counted by `models.flops` for all of them:
attention as it is computed, causal. Each run is a process of its own; one that fails is recorded with its last line.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import lightning
import torch
from tqdm import tqdm

from benchmarks.training_against_peers import Constant
from datamodules import RandomTokens
from datamodules.random_tokens import RandomWindows
from models import AdamW, LanguageModel
from models.decoder import DecoderConfig
from models.device import measured_matmul_peak
from models.flops import parameters, training_flops
from models.inference.generation import generate
from models.initialization import build_decoder
from strategies import TensorParallelStrategy

OUTPUT = Path(__file__).with_suffix(".json")
DATASHEET = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "B200": 2250e12}
"""Dense bf16 FLOP/s of the vendor's data sheets (SXM)."""
PROGRAM = [sys.executable, "-m", "benchmarks.gpu"]
SHAPES: dict[str, dict[str, Any]] = {
    "1.1b": {
        "vocabulary_size": 32000, "width": 2048, "layers": 22, "heads": 32, "key_value_heads": 4,
        "feed_forward_width": 5632, "tied_embeddings": False,
    },
    "8b-layers": {
        "vocabulary_size": 32000, "width": 4096, "layers": 4, "heads": 32, "key_value_heads": 8,
        "feed_forward_width": 14336, "tied_embeddings": False,
    },
    "toy": {
        "vocabulary_size": 512, "width": 64, "layers": 2, "heads": 4, "key_value_heads": 2, "feed_forward_width": 128,
        "tied_embeddings": False,
    },
}  # fmt: skip
TRAINING = ("ours", "ours-selective", "ours-float8", "transformers")
GENERATION = ("generate-ours", "generate-ours-graphs", "generate-transformers")


def sizes(shape: str) -> dict[str, int]:
    """Sequence, batch, steps; prompts and new tokens of generation."""
    if shape == "toy":
        return {"length": 32, "batch": 2, "steps": 4, "prompts": 2, "prompt": 4, "new": 4}
    return {"length": 4096, "batch": 4 if shape == "1.1b" else 2, "steps": 14, "prompts": 32, "prompt": 64, "new": 128}


def backend(device: torch.device) -> str:
    """Of compilation; generating code for a toy would take longer than running it."""
    return "inductor" if device.type == "cuda" else "aot_eager"


def now(device: torch.device) -> float:
    """Seconds, once the device has done all it was given: a loop that waits for nothing runs ahead of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class Span(lightning.Callback):
    """Mean seconds of a step, the first half left out: it compiles."""

    def __init__(self, steps: int, device: torch.device) -> None:
        self.first, self.steps, self.device = steps // 2, steps, device
        self.begin = self.seconds = 0.0

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == self.first:
            self.begin = now(self.device)

    def on_train_end(self, *arguments: Any) -> None:
        self.seconds = (now(self.device) - self.begin) / (self.steps - self.first)


def llama(config: DecoderConfig, length: int, device: torch.device) -> Any:
    """transformers' model of the same shape."""
    from transformers import LlamaConfig, LlamaForCausalLM

    with device:
        return LlamaForCausalLM(
            LlamaConfig(
                vocab_size=config.vocabulary_size,
                hidden_size=config.width,
                intermediate_size=config.feed_forward_width,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                tie_word_embeddings=False,
                num_key_value_heads=config.key_value_heads,
                max_position_embeddings=length,
            )
        )


def train_ours(run: str, config: DecoderConfig, device: torch.device, size: dict[str, int]) -> float:
    """Seconds of a step under the Trainer."""
    span = Span(size["steps"], device)
    strategy = TensorParallelStrategy(
        compile_backend=backend(device),
        float8=run == "ours-float8",
        activation_checkpointing="selective" if run == "ours-selective" else "none",
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = lightning.Trainer(
            default_root_dir=folder, accelerator=device.type, devices=1, precision="bf16-mixed",
            max_steps=size["steps"], strategy=strategy, limit_val_batches=0, logger=False, log_every_n_steps=100,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            use_distributed_sampler=False, callbacks=[span], check_val_every_n_epoch=None,
        )  # fmt: skip
        data = RandomTokens(config.vocabulary_size, size["length"], size["batch"], boundaries=0)
        trainer.fit(LanguageModel(AdamW(1e-4), Constant(0, 1.0), decoder=config), datamodule=data)
    return span.seconds


def train_transformers(config: DecoderConfig, device: torch.device, size: dict[str, int]) -> float:
    """Seconds of a step in a plain loop."""
    model = llama(config, size["length"], device)
    forward = torch.compile(model, backend=backend(device))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    windows = RandomWindows(config.vocabulary_size, size["length"], 0, 0)
    rows = [windows[number] for number in range(size["batch"])]
    tokens, labels = (
        torch.stack([torch.from_numpy(row[key]) for row in rows]).to(device) for key in ("tokens", "labels")
    )
    span = Span(size["steps"], device)
    for step in range(size["steps"]):
        span.on_train_batch_start(None, None, None, step)
        with torch.autocast(device.type, torch.bfloat16):
            loss = forward(input_ids=tokens, labels=labels, shift_labels=labels, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    span.on_train_end()
    return span.seconds


def seconds_of_generation(run: str, config: DecoderConfig, device: torch.device, size: dict[str, int]) -> float:
    """Of the second generation."""
    generator = torch.Generator().manual_seed(0)
    prompts = torch.randint(config.vocabulary_size, (size["prompts"], size["prompt"]), generator=generator)
    if run == "generate-transformers":
        model = llama(config, size["prompt"] + size["new"], device).to(torch.bfloat16).eval()
        ids = prompts.to(device)
        options = {"max_new_tokens": size["new"], "min_new_tokens": size["new"], "do_sample": True, "pad_token_id": 0}
        calls = [lambda: model.generate(ids, attention_mask=torch.ones_like(ids), top_k=0, **options)] * 2
    else:
        decoder = build_decoder(config, device=device).to(torch.bfloat16).eval()
        graphs = run == "generate-ours-graphs"
        calls = [lambda: generate(decoder, prompts.tolist(), max_new_tokens=size["new"], cuda_graphs=graphs)] * 2
    elapsed = 0.0
    for call in calls:
        start = now(device)
        call()
        elapsed = now(device) - start
    return elapsed


def child(run: str, shape: str) -> dict[str, Any]:
    """One run."""
    device = torch.device("cpu" if shape == "toy" else "cuda")
    config, size = DecoderConfig(**SHAPES[shape]), sizes(shape)
    if run in GENERATION:
        elapsed = seconds_of_generation(run, config, device, size)
        result: dict[str, Any] = {"tokens_per_second": round(size["prompts"] * size["new"] / elapsed)}
    else:
        seconds = (
            train_transformers(config, device, size) if run == "transformers" else train_ours(run, config, device, size)
        )
        tokens = size["batch"] * size["length"]
        flops = training_flops(config, tokens, size["batch"] * size["length"] * (size["length"] + 1) // 2)
        name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
        sheet = next((peak for key, peak in DATASHEET.items() if key in name), None)
        measured = measured_matmul_peak(device, torch.bfloat16, 1.0 if device.type == "cuda" else 0.05)
        result = {
            "tokens_per_second": round(tokens / seconds),
            "flops_utilization": round(flops / seconds / sheet, 4) if sheet else None,
            "of_measured_peak": round(flops / seconds / measured, 4),
        }
    if device.type == "cuda":
        result |= {"peak_gigabytes": round(torch.cuda.max_memory_allocated() / 1e9, 2)}
        result |= {"device": torch.cuda.get_device_name()}
    return {"run": run, "shape": shape, "parameters": parameters(config), **size, **result}


def main() -> None:
    """Each run in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toy", action="store_true", help="everything small, on a CPU, recording nothing")
    parser.add_argument("--shapes", choices=list(SHAPES), nargs="*", default=["1.1b", "8b-layers"])
    parser.add_argument("--runs", choices=TRAINING + GENERATION, nargs="*", default=list(TRAINING + GENERATION))
    parser.add_argument("--limit", type=int, default=150, help="seconds a run may take")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--run", choices=TRAINING + GENERATION, help="one run, for the parent to start")
    arguments = parser.parse_args()
    if arguments.run:
        print(json.dumps(child(arguments.run, arguments.shapes[0])))
        return
    records = []
    for shape in ["toy"] if arguments.toy else arguments.shapes:
        for run in tqdm(arguments.runs, desc=shape):
            if run in GENERATION and shape == "8b-layers":
                continue
            command = [*PROGRAM, "--run", run, "--shapes", shape]
            try:
                done = subprocess.run(
                    command, capture_output=True, text=True, env=dict(os.environ), timeout=arguments.limit
                )
                last = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()[-1]
            except subprocess.TimeoutExpired:
                done, last = None, f"longer than {arguments.limit} s"
            failed = done is None or done.returncode != 0
            records.append({"run": run, "shape": shape, "failed": last} if failed else json.loads(last))
            print(json.dumps(records[-1]), flush=True)
            if not arguments.toy:
                arguments.output.write_text(json.dumps(records, indent=1) + "\n")


if __name__ == "__main__":
    main()
