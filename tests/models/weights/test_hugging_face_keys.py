"""Each key of `config.json` is read, known to change nothing, or refused; absent keys have their family's values."""

import json
from typing import Any

import pytest
import torch
import transformers
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from common.errors import InputError
from models.config import DecoderConfig, Experts
from models.mixture_of_experts import SparseFeedForward
from models.weights.hugging_face_keys import ARCHITECTURES
from models.weights.hugging_face_names import from_hugging_face, to_hugging_face

SIZES: dict[str, Any] = {
    "vocab_size": 300, "hidden_size": 512, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 32,
    "moe_intermediate_size": 24,
}  # fmt: skip
"""What a file must say: a model of 32 heads, so that the families' key/value heads divide them."""
FULL, SLIDING = "full_attention", "sliding_attention"


def sizes(family: str) -> dict[str, Any]:
    """The smallest `config.json` of a family."""
    return {"model_type": family} | {k: v for k, v in SIZES.items() if k[:3] != "moe" or family == "qwen3_moe"}


def whole(given: dict[str, Any]) -> dict[str, Any]:
    """The same configuration with every key of transformers' class for its family, as it is written to a file."""
    config = transformers.AutoConfig.for_model(**given)
    return json.loads(config.to_json_string(use_diff=False)) | {"head_dim": getattr(config, "head_dim", None)}


@pytest.mark.peer
@pytest.mark.parametrize("family", ARCHITECTURES)
def test_every_absent_key_has_the_value_of_transformers_class(family: str) -> None:
    expected = from_hugging_face(whole(sizes(family)))
    assert from_hugging_face(sizes(family)) == expected
    written = whole(sizes(family))
    for key in written.keys() - {"model_type", *SIZES}:
        assert from_hugging_face({k: v for k, v in written.items() if k != key}) == expected, key


@pytest.mark.peer
def test_values_of_published_families() -> None:
    mistral, mixtral, qwen3, sparse = (
        from_hugging_face(sizes(family)) for family in ("mistral", "mixtral", "qwen3", "qwen3_moe")
    )
    assert (mistral.sliding_window, mistral.key_value_heads, mistral.rope_theta) == (4096, 8, 1e4)
    assert (mixtral.sliding_window, mixtral.key_value_heads, mixtral.rope_theta) == (None, 8, 1e6)
    assert (mixtral.norm_epsilon, qwen3.norm_epsilon, qwen3.head_width) == (1e-5, 1e-6, 128)
    assert sparse.experts is not None
    assert (sparse.key_value_heads, sparse.experts.num_experts, sparse.experts.experts_per_token) == (4, 128, 8)


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("llama", {"final_logit_softcapping": 30.0}, "final_logit_softcapping=30.0, a key of llama"),
        ("llama", {"residual_multiplier": 0.2}, "residual_multiplier=0.2, a key of llama"),
        ("granite", {"no_rope_layers": [1, 0]}, "no_rope_layers=.* a key of granite"),
        ("llama", {"no_rope_layers": [1, 0]}, "no_rope_layers=.* a key of llama"),
        ("smollm3", {"no_rope_layers": [1]}, r"no_rope_layers=\[1\], must hold 1 .* each of 2 layers"),
        ("smollm3", {"no_rope_layer_interval": 0}, "no_rope_layer_interval=0, must be at least 1"),
        ("llama", {"num_local_experts": 4}, "num_local_experts=4, a key of llama"),
        ("llama", {"is_causal": False}, "is_causal=False, this decoder supports True"),
        ("llama", {"attention_dropout": 0.1}, "attention_dropout=0.1, this decoder supports 0"),
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5, this decoder supports 1"),
        ("llama", {"rope_interleaved": True}, "rope_interleaved=True"),
        ("llama", {"layer_types": [FULL, SLIDING]}, "layer_types="),
        ("llama", {"architectures": ["LlamaForSequenceClassification"]}, "architectures="),
        ("llama", {"auto_map": {"AutoModelForCausalLM": "own.Model"}}, "auto_map="),
        ("mistral", {"layer_types": [FULL, SLIDING]}, "layer_types=.*sliding_window=4096 of mistral"),
        ("mistral", {"sliding_window": None, "layer_types": [SLIDING] * 2}, "layer_types=.*full_attention in all"),
        ("qwen3", {"layer_types": [FULL, SLIDING]}, "layer_types="),
        ("mixtral", {"router_jitter_noise": 0.1}, "router_jitter_noise=0.1"),
        ("qwen3_moe", {"num_experts": 4, "num_local_experts": 8}, "num_experts=4, num_local_experts=8"),
        (
            "llama",
            {"rope_parameters": {"rope_theta": 1e4}, "rope_scaling": {"rope_type": "yarn", "factor": 2.0}},
            "rope_scaling=.*yarn.*rope_parameters=",
        ),
        ("llama", {"rope_parameters": {FULL: {"rope_theta": 1e6}}}, "rope_parameters=.*all layers"),
        ("llama", {"rope_parameters": {"rope_theta": 1e4}, "rope_theta": 5e5}, "rope_theta=500000.0, rope_parameters"),
        ("llama", {"rope_scaling": {"rope_type": "linear", "factor": 2.0, "beta_fast": 8}}, "beta_fast=8"),
        ("llama", {"rope_scaling": {"rope_type": "linear", "type": "dynamic", "factor": 2.0}}, "dynamic"),
    ],
)
def test_what_is_not_read_is_refused_by_key_and_value(family: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        from_hugging_face(sizes(family) | changes)
    assert "\n" not in str(raised.value)


def test_keys_without_effect_are_read_over() -> None:
    expected = from_hugging_face(sizes("llama"))
    further = {
        "torch_dtype": "bfloat16", "use_cache": False, "id2label": {"0": "a"}, "pretraining_tp": 2, "unknown": None,
        "is_llama_config": True, "rope_interleaved": False, "architectures": ["LlamaForCausalLM"], "is_causal": True,
        "layer_types": [FULL] * 2, "auto_map": {"AutoTokenizer": ["own.Tokenizer", None]}, "rope_scaling": None,
        "rope_parameters": {"rope_theta": 1e4, "rope_type": "default"}, "rope_theta": 1e4, "temperature": 0.6,
    }  # fmt: skip
    assert from_hugging_face(sizes("llama") | further) == expected
    layers = {"layer_types": [SLIDING] * 2}
    assert from_hugging_face(sizes("mistral") | layers) == from_hugging_face(sizes("mistral"))


@pytest.mark.peer
@pytest.mark.parametrize("active", [1, 2, 3])
def test_the_weight_of_the_load_balancing_loss_means_the_same_on_both_sides(active: int) -> None:
    given = sizes("mixtral") | {"num_local_experts": 6, "num_experts_per_tok": active, "router_aux_loss_coef": 0.3}
    config = from_hugging_face(given)
    assert config.experts is not None
    assert config.experts.z_weight == 0.0
    torch.manual_seed(0)
    layer = SparseFeedForward(DecoderConfig(9, width=8, heads=1, key_value_heads=1, experts=config.experts))
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
        x = torch.randn(1, 40, 8)
        layer(x)
        theirs = load_balancing_loss_func((layer.router(x[0]),), 6, active)
    torch.testing.assert_close(layer.auxiliary_loss, 0.3 * theirs)
    assert to_hugging_face(config, 16, "float32", {})["router_aux_loss_coef"] == pytest.approx(0.3)


def test_the_weight_survives_a_round_trip() -> None:
    config = DecoderConfig(9, experts=Experts(4, 2, balance_weight=0.01, z_weight=0.0))
    assert from_hugging_face(to_hugging_face(config, 16, "float32", {})) == config
