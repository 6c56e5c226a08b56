"""Sweep of small decoders: validation bits per byte reached in the quickstart's training time.

    python benchmarks/quickstart_sweep.py --seconds 150 --only 96x4-v2k 128x4-v2k 128x4-v4k 192x4-v4k 192x6-v4k

All candidates are first timed for a few steps, one after the other on a quiet machine, to learn their seconds per
step; then each trains for as many steps as fit into the budget, by `python main.py fit` with the quickstart's own
configuration. Fixing the step counts first means that a busy machine slows a candidate without shortening it. Results
are written as they come and finished candidates are not run again.
"""

import argparse
import csv
import json
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from models.decoder import DecoderConfig  # noqa: E402
from models.flops import parameters  # noqa: E402
from models.initialization import build_decoder  # noqa: E402
from models.optimizers.adamw import AdamW  # noqa: E402

SHAPES: dict[str, dict[str, int]] = {
    "96x4": {"width": 96, "layers": 4, "heads": 4, "key_value_heads": 2, "feed_forward_width": 256},
    "128x4": {"width": 128, "layers": 4, "heads": 4, "key_value_heads": 2, "feed_forward_width": 352},
    "128x6": {"width": 128, "layers": 6, "heads": 4, "key_value_heads": 2, "feed_forward_width": 352},
    "192x4": {"width": 192, "layers": 4, "heads": 6, "key_value_heads": 2, "feed_forward_width": 512},
    "192x6": {"width": 192, "layers": 6, "heads": 6, "key_value_heads": 2, "feed_forward_width": 512},
    "256x4": {"width": 256, "layers": 4, "heads": 4, "key_value_heads": 2, "feed_forward_width": 704},
}
VOCABULARIES = {"v1k": 1024, "v2k": 2048, "v4k": 4096}
CANDIDATES = {
    f"{shape}-{vocabulary}": DecoderConfig(vocabulary_size=size, tied_embeddings=False, **SHAPES[shape])
    for shape in SHAPES
    for vocabulary, size in VOCABULARIES.items()
}


def seconds_per_step(config: DecoderConfig, sequence_length: int, windows: int, micro_batch: int) -> float:
    """Median seconds of an optimizer step over `windows` windows of random tokens, in documents of about 500 tokens."""
    decoder = build_decoder(config)
    optimizer = AdamW().build(decoder.named_parameters())
    tokens = torch.randint(config.vocabulary_size, (micro_batch, sequence_length + 1))
    documents = (torch.rand(micro_batch, sequence_length) < 1 / 500).long().cumsum(1)
    times = []
    for _ in range(6):
        start = time.perf_counter()
        for _ in range(windows // micro_batch):
            hidden = decoder(tokens[:, :-1], documents).flatten(0, 1)
            decoder.output.cross_entropy(hidden, tokens[:, 1:].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter() - start)
    return sorted(times[1:])[2]


def train(name: str, config: DecoderConfig, steps: int, arguments: argparse.Namespace) -> float:
    """Final validation bits per byte of a candidate trained by the command line."""
    length = f"{arguments.steps or arguments.seconds:.0f}"
    run = Path("runs/sweep") / f"{name}-lr{arguments.learning_rate}-w{arguments.windows}-{length}"
    shutil.rmtree(ROOT / run, ignore_errors=True)
    shape = SHAPES[name.split("-")[0]]
    overrides = {
        "trainer.default_root_dir": run,
        "trainer.max_steps": steps,
        "trainer.val_check_interval": steps * arguments.windows // arguments.micro_batch,
        "trainer.accumulate_grad_batches": arguments.windows // arguments.micro_batch,
        "trainer.enable_progress_bar": "false",
        "trainer.logger": '{"class_path": "callbacks.MetricsTable"}',
        "trainer.callbacks": '{"class_path": "callbacks.Checkpoints"}',
        "data.init_args.tokenizer.vocabulary_size": config.vocabulary_size,
        "data.init_args.sequence_length": arguments.sequence_length,
        "data.init_args.batch_size": arguments.micro_batch,
        "model.init_args.optimizer.init_args.learning_rate": arguments.learning_rate,
        "model.init_args.decoder.tied_embeddings": str(config.tied_embeddings).lower(),
        **{f"model.init_args.decoder.{key}": value for key, value in shape.items()},
    }
    command = [sys.executable, "main.py", "fit", "--config", "configs/quickstart.yaml"]
    command += [f"--{key}={value}" for key, value in overrides.items()]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    with (ROOT / run / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["name"] == "validation/bits_per_byte/all"]
    return float(rows[-1]["value"])


def main() -> None:
    """Run the candidates that the output does not hold yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300, help="training time of each candidate")
    parser.add_argument("--steps", type=int, help="optimizer steps instead of seconds, to compare across noisy hours")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--only", nargs="*", choices=sorted(CANDIDATES), default=["128x4-v2k"], help="candidates")
    parser.add_argument("--sequence-length", type=int, default=512)
    parser.add_argument("--windows", type=int, default=8, help="windows in an optimizer step")
    parser.add_argument("--micro-batch", type=int, default=4)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    arguments = parser.parse_args()
    settings = {k: v for k, v in vars(arguments).items() if k not in ("output", "only") and v is not None}
    results = json.loads(arguments.output.read_text()) if arguments.output.exists() else []
    done = {row["name"] for row in results if row["settings"] == settings}
    names = [name for name in arguments.only if name not in done]
    sizes = (arguments.sequence_length, arguments.windows, arguments.micro_batch)
    timed = {name: seconds_per_step(CANDIDATES[name], *sizes) for name in tqdm(names, desc="timing")}
    for name in tqdm(names, desc="training"):
        config, step = CANDIDATES[name], timed[name]
        steps = arguments.steps or int(arguments.seconds / step)
        row = {
            "name": name,
            "parameters": parameters(config),
            "tied": config.tied_embeddings,
            "seconds_per_step": round(step, 4),
            "steps": steps,
            "tokens": steps * arguments.windows * arguments.sequence_length,
            "bits_per_byte": round(train(name, config, steps, arguments), 4),
            "settings": settings,
            "machine": f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, "
            f"{torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}, float32",
        }
        results.append(row)
        arguments.output.write_text(json.dumps(results, indent=1) + "\n")
        print(row)


if __name__ == "__main__":
    main()
