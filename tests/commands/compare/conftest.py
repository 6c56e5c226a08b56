"""Models that are compared, and what they are asked."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from models.initialization import build_decoder
from models.weights.single_file import write_safetensors
from models.weights.source import WeightSource


@pytest.fixture(scope="module")
def models(base_run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The base run; its weights moved a little, and a reward model of its shape."""
    folder = tmp_path_factory.mktemp("models")
    stored = WeightSource(base_run)
    config = stored.whole_config()
    generator = torch.Generator().manual_seed(0)
    for name in ("moved", "reward", "wider"):
        (folder / f"{name}.tokenizer").mkdir()
        (folder / f"{name}.tokenizer/tokenizer.model").write_bytes((base_run / "tokenizer.model").read_bytes())
    tensors = {}
    for name, parameter in build_decoder(config).named_parameters():
        value = stored.merged(name)
        tensors[f"decoder.{name}"] = value + 0.05 * torch.randn(parameter.shape, generator=generator)
    write_safetensors(tensors, asdict(config), folder / "moved.safetensors")
    scalar = replace(config, scalar_output=True, tied_embeddings=False)
    tensors = {f"decoder.{name}": p.detach() for name, p in build_decoder(scalar).named_parameters()}
    write_safetensors(tensors, asdict(scalar), folder / "reward.safetensors")
    wider = replace(config, vocabulary_size=config.vocabulary_size + 8)
    tensors = {f"decoder.{name}": p.detach() for name, p in build_decoder(wider).named_parameters()}
    write_safetensors(tensors, asdict(wider), folder / "wider.safetensors")
    return {
        "base": str(base_run),
        "wider": str(folder / "wider.safetensors"),
        "moved": str(folder / "moved.safetensors"),
        "reward": str(folder / "reward.safetensors"),
    }


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows: list[Any] = [{"prompt": f"Ba {number} kiro", "response": "x"} for number in range(12)]
    path = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    path.write_text("\n".join(map(json.dumps, [*rows, rows[0], {"nothing": 1}, {"prompt": "Ba " * 2000}])))
    return path
