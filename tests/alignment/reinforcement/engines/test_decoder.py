"""The decoder's rollout engine: weights narrowed once, and refusals."""

import re
import tomllib

import pytest
import torch

from alignment import DecoderEngine, VLLMEngine
from alignment.reinforcement.engines.decoder import weights_cast_once
from common.errors import InputError
from tests.helpers.corpus import ROOT


def test_narrowed_weights_are_forgotten_after_decoding() -> None:
    """What autocast keeps while decoding must not be learned with: it is stale after a step, and has no gradient."""
    layer = torch.nn.Linear(4, 4, bias=False)
    x = torch.ones(1, 4)
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=True):
        with torch.inference_mode(), weights_cast_once("cpu"):
            before = layer(x).clone()
        with torch.no_grad():
            layer.weight.zero_()
        after = layer(x)
    assert before.abs().max() > 0
    assert after.abs().max() == 0
    after.sum().backward()
    assert layer.weight.grad is not None


def test_engines_that_cannot_work_are_refused() -> None:
    with pytest.raises(InputError, match=r"engine\.slots=0"):
        DecoderEngine(0)
    with pytest.raises(InputError, match="vllm is not installed") as refusal:
        VLLMEngine("folder")
    extra = re.search(r"pip install -e \.\[(\w+)\]", str(refusal.value))
    assert extra is not None
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert any(line.startswith("vllm") for line in project["optional-dependencies"][extra[1]])
