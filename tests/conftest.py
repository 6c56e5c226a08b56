"""A small corpus and configuration that go the whole way in seconds."""

import gzip
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common.compute.cpu_threads import thread_settings

# Each worker's commands get its part of the cores.
os.environ.update(thread_settings(os.environ, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))))

import pytest
import torch
import yaml

from strategies.tensor_parallel import leave_process_group
from tests.helpers.distributed import share_fork_server

ROOT = Path(__file__).parent.parent


def pytest_configure(config: pytest.Config) -> None:
    """Start what the workers share, in the process that starts them."""
    if getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput"):
        share_fork_server()


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Sums are bit-identical only for one number of threads."""
    torch.set_num_threads(1)


@pytest.fixture
def no_process_group() -> None:
    """An earlier test of this process may have trained, and a process alone stays in its group until it ends."""
    leave_process_group()


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
    del configuration["trainer"]["callbacks+"]

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


Configure = Callable[..., Path]


@pytest.fixture(scope="session")
def corpus_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the corpus, shared by all tests, so that it is prepared once."""
    folder = tmp_path_factory.mktemp("tiny")
    write_corpus(folder / "corpus")
    return folder


@pytest.fixture
def configure(corpus_folder: Path, tmp_path: Path) -> Configure:
    """Writes the tiny configuration, with a run folder of the test's own and changes given as dotted names."""

    def write(**changes: Any) -> Path:
        configuration = tiny_configuration(corpus_folder)
        configuration["trainer"]["default_root_dir"] = str(tmp_path / "run")
        for name, value in changes.items():
            *parents, last = name.split("__")
            node = configuration
            for parent in parents:
                node = node[parent]
            node[last] = value
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(configuration), encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def base_run(corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished pretraining run."""
    from main import main

    folder = tmp_path_factory.mktemp("base")
    configuration = tiny_configuration(corpus_folder)
    configuration["model"]["init_args"]["decoder"]["key_value_heads"] = 2
    configuration["trainer"] |= {"default_root_dir": str(folder / "run"), "callbacks": [
        {"class_path": "callbacks.Checkpoints"}
    ]}  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(configuration))
    main(["fit", "--config", str(folder / "config.yaml")])
    return folder / "run"


@pytest.fixture(scope="session")
def hugging_face_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a byte-level tokenizer as GPT-2, Llama 3 and Qwen have it: no beginning of text, no padding."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([sentences(i, 20) for i in range(10)], trainer)
    folder = tmp_path_factory.mktemp("hugging-face-tokenizer")
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": {"content": "<|endoftext|>"}}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder
