"""A small corpus and configuration that go the whole way in seconds."""

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
Configure = Callable[..., Path]
"""Writes a configuration with changes given as dotted names, see the fixtures `configure` and `align`."""
TEXTS = [
    f"def function_{i}(x):\n    return x + {i * 37}  # line {i}\n\n" + "some prose, too. " * (i % 5) for i in range(300)
]


def sentences(seed: int, count: int) -> str:
    """Reproducible text of made-up words, different enough from seed to seed to survive deduplication."""
    generator = random.Random(seed)
    syllables = [a + b for a in "bdfgklmnprst" for b in ("a", "e", "i", "o", "u", "an", "er", "os")]
    words = ["".join(generator.choices(syllables, k=generator.randint(1, 3))) for _ in range(60)]
    return " ".join(
        " ".join(generator.choices(words, k=generator.randint(4, 9))).capitalize() + "." for _ in range(count)
    )


def write_corpus(folder: Path) -> None:
    """Two sources: `stories` as compressed JSON lines, `notes` as text files."""
    (folder / "stories").mkdir(parents=True)
    (folder / "notes").mkdir()
    for part in range(2):
        with gzip.open(folder / f"stories/part-{part}.jsonl.gz", "wt", encoding="utf-8") as file:
            file.writelines(json.dumps({"text": sentences(100 * part + i, 30)}) + "\n" for i in range(40))
    for i in range(30):
        (folder / f"notes/{i}.txt").write_text(sentences(1000 + i, 25), encoding="utf-8")


def tiny_configuration(folder: Path) -> dict[str, Any]:
    """The quickstart's configuration with a tiny model and the corpus of `write_corpus`."""
    configuration = yaml.safe_load((ROOT / "configs/quickstart.yaml").read_text(encoding="utf-8"))
    for name in ("logger+", "callbacks+"):
        del configuration["trainer"][name]

    def source(name: str) -> dict[str, Any]:
        reader = {"class_path": "datamodules.Files", "init_args": {"paths": [str(folder / "corpus" / name)]}}
        return {
            "reader": reader,
            "steps": [{"class_path": "datamodules.Length"}],
            "weight": 2 if name == "notes" else 1,
        }

    configuration["trainer"] |= {
        "default_root_dir": str(folder / "run"),
        "accelerator": "cpu",
        "precision": "32-true",
        "max_steps": 12,
        "accumulate_grad_batches": 2,
        "val_check_interval": 8,
        "log_every_n_steps": 1,
        "logger": [{"class_path": "callbacks.MetricsTable"}],
        "callbacks": [
            {"class_path": "callbacks.Throughput", "init_args": {"peak_flops_per_second": 1e11}},
            {"class_path": "callbacks.Samples", "init_args": {"prompts": ["Ba"], "max_new_tokens": 8}},
            {"class_path": "callbacks.Predictions"},
            {"class_path": "callbacks.Checkpoints", "init_args": {"every_steps": 4}},
            {"class_path": "callbacks.Report"},
        ],
    }
    configuration["model"]["init_args"]["decoder"] = {
        "width": 32, "layers": 2, "heads": 2, "key_value_heads": 1, "feed_forward_width": 64,
    }  # fmt: skip
    configuration["model"]["init_args"]["schedule"]["init_args"]["warmup_steps"] = 2
    configuration["data"]["init_args"] |= {
        "folder": str(folder / "data"),
        "sequence_length": 64,
        "batch_size": 2,
        "validation_windows": 8,
        "validation_fraction": 0.1,
        "tokenizer": {"vocabulary_size": 512},
        "sources": {"stories": source("stories"), "notes": source("notes")},
    }
    return configuration
