"""Tokens generated per second beside transformers' `generate`: same weights' shape, same prompts, same sampling.

    python -m benchmarks.generation_against_transformers

A Llama of 8 layers x 512, vocabulary 8192, 32 prompts of 64 tokens, 128 new tokens each, drawn at temperature 1. Each
run is a process of its own and the runs take turns; the first generation of each is left out.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

VOCABULARY, BATCH, PROMPT, NEW = 8192, 32, 64, 128
SHAPE = {"width": 512, "layers": 8, "heads": 8, "key_value_heads": 8, "feed_forward_width": 1376}
RUNS = ("ours", "transformers")
OUTPUT = Path(__file__).with_suffix(".json")


def times(who: str, precision: str, repeats: int) -> list[float]:
    """Seconds of each generation after the first."""
    dtype = {"32-true": torch.float32, "bf16-true": torch.bfloat16}[precision]
    prompts = torch.randint(VOCABULARY, (BATCH, PROMPT), generator=torch.Generator().manual_seed(0))
    if who == "ours":
        from models.decoder import DecoderConfig
        from models.inference.generation import generate
        from models.initialization import build_decoder

        decoder = build_decoder(DecoderConfig(vocabulary_size=VOCABULARY, tied_embeddings=False, **SHAPE)).to(dtype)

        def run() -> int:
            results = generate(decoder.eval(), prompts.tolist(), max_new_tokens=NEW)
            return sum(len(result.tokens) for result in results)

    else:
        from transformers import LlamaConfig, LlamaForCausalLM

        config = LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=SHAPE["width"], intermediate_size=SHAPE["feed_forward_width"],
            num_hidden_layers=SHAPE["layers"], num_attention_heads=SHAPE["heads"], tie_word_embeddings=False,
            num_key_value_heads=SHAPE["key_value_heads"], max_position_embeddings=PROMPT + NEW,
        )  # fmt: skip
        model: Any = LlamaForCausalLM(config).to(dtype).eval()
        options = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": True, "top_k": 0, "pad_token_id": 0}

        def run() -> int:
            whole = model.generate(prompts, attention_mask=torch.ones_like(prompts), **options)
            return int((whole.shape[1] - PROMPT) * BATCH)

    found = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        assert run() == NEW * BATCH
        found.append(time.perf_counter() - start)
    return found[1:]


def main() -> None:
    """Run each in turn, several times, and record medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", choices=["32-true", "bf16-true"], nargs="*", default=["bf16-true", "32-true"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--run", choices=RUNS, help="one run, for the parent to start")
    arguments = parser.parse_args()
    if arguments.run:
        print(json.dumps(times(arguments.run, arguments.precision[0], 1)))
        return
    records = []
    for precision in arguments.precision:
        found: dict[str, list[float]] = {}
        for run in tqdm(RUNS * arguments.repeats, desc=precision):
            command = [sys.executable, "-m", "benchmarks.generation_against_transformers", "--run", run]
            command += ["--precision", precision]
            output = subprocess.run(command, check=True, capture_output=True, text=True, env=dict(os.environ)).stdout
            found.setdefault(run, []).extend(json.loads(output.splitlines()[-1]))
        for run, seconds in found.items():
            median = statistics.median(seconds)
            records.append({
                "run": run, "precision": precision, "tokens_per_second": round(BATCH * NEW / median),
                "seconds": [round(value, 3) for value in seconds],
                "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, "
                f"{torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}",
            })  # fmt: skip
            print(json.dumps(records[-1]))
    OUTPUT.write_text(json.dumps(records, indent=1) + "\n")


if __name__ == "__main__":
    main()
