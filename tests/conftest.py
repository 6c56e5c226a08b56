"""Fixtures that many tests share: the corpus and its configuration, a finished run, a tokenizer.

What imports PyTorch or Lightning is imported where it is used: most tests of text need neither.
"""

import json
import os
from pathlib import Path
from typing import Any

from common.compute.cpu_threads import thread_settings

# Each worker's commands get its part of the cores.
os.environ.update(thread_settings(os.environ, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))))

import pytest
import yaml

from tests.helpers.corpus import Configure, sentences, tiny_configuration, write_corpus
from tests.helpers.distributed import share_fork_server


def pytest_configure(config: pytest.Config) -> None:
    """Start what the workers share, in the process that starts them, where tests are run that need it."""
    needed = "not distributed" not in config.option.markexpr
    if needed and getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput"):
        share_fork_server()


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Sums are bit-identical only for one number of threads."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def no_process_group() -> None:
    """An earlier test of this process may have trained, and a process alone stays in its group until it ends."""
    from strategies.tensor_parallel import leave_process_group

    leave_process_group()


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
