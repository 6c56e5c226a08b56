"""Peak memory and time of a training step by activation checkpointing mode.

    python -m benchmarks.activation_memory

A Llama of 8 layers x 512, vocabulary 8192, one micro-batch of 8 x 1024 tokens, each mode in a process of its own. What
weights, gradients and optimizer state take is known by formula (16 bytes per parameter); the rest of the peak, above
the process before it had a model, is activations and what a step needs for itself.
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
from pathlib import Path
from typing import Any, get_args

import lightning
import torch
from tqdm import tqdm

from benchmarks.training_against_peers import Clock, Constant
from datamodules import RandomTokens
from models import AdamW, LanguageModel
from models.decoder import DecoderConfig
from models.flops import parameters
from strategies import TensorParallelStrategy
from strategies.parallel.activation_checkpointing import ActivationCheckpointing

VOCABULARY, BATCH, LENGTH = 8192, 8, 1024
SHAPE = {"width": 512, "layers": 8, "heads": 8, "key_value_heads": 8, "feed_forward_width": 1376}
OUTPUT = Path(__file__).with_suffix(".json")


def measure(mode: str, precision: str, steps: int) -> dict[str, Any]:
    """Train a few steps in this process."""
    config = DecoderConfig(vocabulary_size=VOCABULARY, tied_embeddings=False, **SHAPE)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = lightning.Trainer(
            default_root_dir=folder, accelerator="cpu", devices=1, precision=precision, max_steps=steps,
            strategy=TensorParallelStrategy(activation_checkpointing=mode), limit_val_batches=0, logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            use_distributed_sampler=False, callbacks=[clock], check_val_every_n_epoch=None,
        )  # fmt: skip
        model = LanguageModel(AdamW(1e-4), Constant(0, 1.0), decoder=config)
        trainer.fit(model, datamodule=RandomTokens(VOCABULARY, LENGTH, BATCH, boundaries=0))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {
        "mode": mode,
        "precision": precision,
        "peak_megabytes": round(peak / 1024),
        "of_it_weights_gradients_optimizer": round(16 * parameters(config) / 2**20),
        "seconds_per_step": round(statistics.median(clock.seconds()[1:]), 3),
        "loss": float(trainer.callback_metrics["train/loss"]),
    }


def main() -> None:
    """Each mode in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", choices=["32-true", "bf16-mixed"], default="bf16-mixed")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--mode", choices=get_args(ActivationCheckpointing), help="one, for the parent to start")
    arguments = parser.parse_args()
    if arguments.mode:
        print(json.dumps(measure(arguments.mode, arguments.precision, arguments.steps)))
        return
    records = []
    for mode in tqdm(get_args(ActivationCheckpointing)):
        command = [sys.executable, "-m", "benchmarks.activation_memory", "--mode", mode]
        command += ["--precision", arguments.precision, "--steps", str(arguments.steps)]
        output = subprocess.run(command, check=True, capture_output=True, text=True, env=dict(os.environ)).stdout
        machine = f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
        records.append(json.loads(output.splitlines()[-1]) | {"machine": machine})
        print(json.dumps(records[-1]))
    OUTPUT.write_text(json.dumps(records, indent=1) + "\n")


if __name__ == "__main__":
    main()
