"""The table of a decoder's tensors against the modules, the tensor-parallel plan and itself."""

from typing import Any

import pytest
import torch
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, SequenceParallel

from common.errors import InputError
from models.anatomy import block_tensors, causal_pairs, embedding_tensors, head_tensors, mean_causal_pairs
from models.attention import attended_pairs, mean_attended_pairs
from models.config import DecoderConfig, Experts
from models.decoder import Decoder
from models.flops import parameters
from models.initialization import build_decoder
from models.weights.hugging_face_names import hugging_face_names
from strategies.parallel.pipeline_stages import layer_costs
from strategies.parallel.tensor_parallel_plan import block_plan

SHAPES: dict[str, dict[str, Any]] = {
    "llama": {},
    "untied": {"tied_embeddings": False},
    "wide heads": {"head_width": 24},
    "qwen2": {"query_key_value_bias": True},
    "qwen3": {"query_key_norm": True},
    "mixtral": {"experts": Experts(4, 2)},
    "qwen3_moe": {"experts": Experts(4, 3, False), "query_key_norm": True},
    "reward model": {"scalar_output": True, "tied_embeddings": False},
    "smollm3": {"rope_pattern": [True, False]},
    "granite": {"embedding_scale": 12.0, "attention_scale": 0.1, "residual_scale": 0.2, "logit_divisor": 8.0},
    "alternating windows": {"window_pattern": [5, None]},
}


def shape(name: str) -> DecoderConfig:
    return DecoderConfig(
        **{"vocabulary_size": 96, "width": 32, "layers": 3, "heads": 4, "key_value_heads": 2, "feed_forward_width": 48}
        | SHAPES[name]
    )


@pytest.mark.parametrize("name", SHAPES)
def test_the_table_lists_the_parameters_of_the_modules(name: str) -> None:
    config = shape(name)
    with torch.device("meta"):
        decoder = Decoder(config)
    outside = [*embedding_tensors(config), *head_tensors(config)]
    listed = {tensor.name: tensor.shape for tensor in outside} | {
        f"layers.{layer}.{tensor.name}": tensor.shape
        for layer in range(config.layers)
        for tensor in block_tensors(config)
    }
    built = decoder.named_parameters(remove_duplicate=False)
    assert {name: tuple(parameter.shape) for name, parameter in built} == listed
    assert parameters(config) == sum(parameter.numel() for parameter in decoder.parameters())


@pytest.mark.parametrize("name", SHAPES)
def test_products_are_what_modules_multiply_a_token_with(name: str) -> None:
    """Linear layers and stacked experts, and nothing else."""
    config = shape(name)
    with torch.device("meta"):
        block = Decoder(config).layers["0"]
    linear = {f"{name}.weight" for name, module in block.named_modules() if isinstance(module, torch.nn.Linear)}
    stacked = {name for name, parameter in block.named_parameters() if parameter.ndim == 3}
    assert {tensor.name for tensor in block_tensors(config) if tensor.is_product} == linear | stacked
    active = 1 if config.experts is None else config.experts.experts_per_token
    assert all(tensor.uses_per_token == (active if len(tensor.shape) == 3 else 1) for tensor in block_tensors(config))


@pytest.mark.parametrize("name", [name for name in SHAPES if "reward" not in name])
def test_every_tensor_has_hugging_face_names_of_its_own(name: str) -> None:
    config = shape(name)
    with torch.device("meta"):
        names = [name for name, _ in Decoder(config).named_parameters()]
    found = [theirs for name in names for theirs in hugging_face_names(name, config)]
    experts = 0 if config.experts is None else 3 * config.layers * (config.experts.num_experts - 1)
    assert len(found) == len(set(found)) == len(names) + experts
    assert not any("{" in theirs for theirs in found)


def test_the_tensor_parallel_plan_follows_the_table() -> None:
    config = DecoderConfig(vocabulary_size=96, query_key_norm=True, query_key_value_bias=True)
    plan = block_plan(config)
    kinds = {"column": ColwiseParallel, "row": RowwiseParallel, "sequence": SequenceParallel, "heads": SequenceParallel}
    for tensor in block_tensors(config):
        assert isinstance(plan[tensor.module], kinds[tensor.tensor_parallel])
        cut = {"column": 0, "row": 1}.get(tensor.tensor_parallel)
        local = tensor.shape_on_rank(2)
        assert [a // b for a, b in zip(tensor.shape, local, strict=True)] == [
            2 if i == cut else 1 for i in range(len(tensor.shape))
        ]
    assert "attention.q_norm" not in block_plan(DecoderConfig(vocabulary_size=96))


@pytest.mark.parametrize("window", [None, 1, 3, 7, 20])
def test_causal_pairs_equal_those_that_attention_counts(window: int | None) -> None:
    documents = torch.zeros(1, 7, dtype=torch.int64)
    assert causal_pairs(7, window) == attended_pairs(documents, window=window)


def test_windows_of_layers_repeat_their_pattern() -> None:
    config = DecoderConfig(vocabulary_size=9, layers=5, window_pattern=[4, 4, None])
    assert [config.window_of(layer) for layer in range(5)] == [4, 4, None, 4, 4]
    assert config.windows() == {4: 4, None: 1}
    assert DecoderConfig(vocabulary_size=9, layers=5, sliding_window=3).windows() == {3: 5}
    mean = (4 * causal_pairs(16, 4) + causal_pairs(16, None)) / 5
    assert mean_causal_pairs(config, 16) == round(mean)
    assert mean_attended_pairs(config, torch.zeros(2, 16, dtype=torch.int64)) == pytest.approx(2 * mean)


def test_layers_with_a_window_cost_a_pipeline_less() -> None:
    config = DecoderConfig(vocabulary_size=9, layers=2, window_pattern=[4, None])
    _, windowed, full, _ = layer_costs(config, 64)
    assert config.head_width is not None
    pairs = causal_pairs(64, None) - causal_pairs(64, 4)
    assert full - windowed == pytest.approx(4 * config.heads * config.head_width * pairs / 64)


@torch.no_grad()
def test_a_token_beyond_every_window_changes_only_decoders_with_a_layer_that_sees_it() -> None:
    tokens = torch.randint(96, (1, 24), generator=torch.Generator().manual_seed(0))
    changed = tokens.clone()
    changed[0, 0] = (tokens[0, 0] + 1) % 96
    for pattern, is_seen in (([3, 3], False), ([3, None], True), ([None, 3], True)):
        config = DecoderConfig(
            vocabulary_size=96, width=32, layers=2, heads=4, key_value_heads=2, feed_forward_width=48,
            window_pattern=pattern, initial_std=0.5,
        )  # fmt: skip
        decoder = build_decoder(config)
        for documents in (None, torch.zeros_like(tokens)):
            before, after = decoder(tokens, documents)[0, -1], decoder(changed, documents)[0, -1]
            assert torch.equal(before, after) is not is_seen


@torch.no_grad()
def test_one_window_for_all_is_a_pattern_of_one() -> None:
    tokens = torch.randint(66, (2, 24), generator=torch.Generator().manual_seed(0))
    documents = torch.arange(24).expand(2, -1) // 9
    for given in (None, documents):
        one, pattern = (
            build_decoder(DecoderConfig(vocabulary_size=66, layers=2, **windows))(tokens, given)
            for windows in ({"sliding_window": 5}, {"window_pattern": [5]})
        )
        assert torch.equal(one, pattern)


@pytest.mark.parametrize(
    ("windows", "message"),
    [
        ({"window_pattern": []}, r"window_pattern=\[\]: must hold windows"),
        ({"window_pattern": [4, 0]}, r"window_pattern=\[4, 0\]: must hold windows of at least 1"),
        ({"window_pattern": [4, None], "sliding_window": 4}, "sliding_window=4 with window_pattern"),
    ],
)
def test_patterns_that_cannot_be_are_refused(windows: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        DecoderConfig(vocabulary_size=9, **windows)
