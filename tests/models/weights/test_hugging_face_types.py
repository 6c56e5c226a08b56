"""Keys of a `config.json` of another type than theirs are refused by their names."""

from typing import Any

import pytest

from common.errors import InputError
from models.weights.hugging_face_names import from_hugging_face

LLAMA: dict[str, Any] = {
    "model_type": "llama", "vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5,
}  # fmt: skip
MOE = LLAMA | {
    "model_type": "qwen3_moe", "moe_intermediate_size": 24, "num_experts": 6, "num_experts_per_tok": 3, "head_dim": 8,
}  # fmt: skip
WHOLE = ["vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"]
OPTIONAL = ["num_key_value_heads", "head_dim", "max_position_embeddings"]


@pytest.mark.parametrize("value", [None, "512", 2.0, True, -32, 0, [4], float("nan")])
@pytest.mark.parametrize("key", [*WHOLE, *OPTIONAL])
def test_whole_numbers(key: str, value: Any) -> None:
    if key in OPTIONAL and value is None:
        assert from_hugging_face(LLAMA | {key: value}).width == 32
        return
    with pytest.raises(InputError, match=rf"^config\.json: {key}=.*: must be a whole number above 0"):
        from_hugging_face(LLAMA | {key: value})


@pytest.mark.parametrize("key", ["rms_norm_eps", "rope_theta", "initializer_range", "router_aux_loss_coef"])
@pytest.mark.parametrize("value", [None, "1e-5", True, [1], -1.0, float("inf"), float("nan")])
def test_numbers(key: str, value: Any) -> None:
    with pytest.raises(InputError, match=rf"^config\.json: {key}=.*: must be a number"):
        from_hugging_face(MOE | {key: value})


@pytest.mark.parametrize("key", ["tie_word_embeddings", "norm_topk_prob"])
@pytest.mark.parametrize("value", ["false", "true", None, 0, 1])
def test_booleans(key: str, value: Any) -> None:
    with pytest.raises(InputError, match=rf"^config\.json: {key}=.*: must be true or false"):
        from_hugging_face(MOE | {key: value})


@pytest.mark.parametrize("key", ["num_experts", "num_experts_per_tok", "moe_intermediate_size"])
def test_whole_numbers_of_experts(key: str) -> None:
    with pytest.raises(InputError, match=r"must be a whole number above 0"):
        from_hugging_face(MOE | {key: "6"})


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("rope_scaling", [1], "must be an object"),
        ("rope_scaling", "linear", "must be an object"),
        ("rope_scaling", {"type": "linear"}, "factor"),
        ("rope_scaling", {"type": "linear", "factor": "2"}, "factor"),
        ("rope_scaling", {"type": "linear", "factor": None}, "factor"),
        ("rope_parameters", {"rope_type": "default", "rope_theta": "1e4"}, "rope_theta"),
        ("rope_parameters", {"rope_type": ["default"]}, "rope_type"),
        ("layer_types", "full_attention", "must be a list"),
        ("layer_types", [["full_attention"]], "layer_types"),
        ("architectures", 3, "must be a list"),
        ("auto_map", 3, "must be an object"),
        ("sliding_window", "4", "sliding_window"),
    ],
)
def test_objects_and_lists(key: str, value: Any, said: str) -> None:
    with pytest.raises(InputError, match=said) as raised:
        from_hugging_face(LLAMA | {"model_type": "mistral", key: value})
    assert str(raised.value).startswith("config.json: ")


def test_a_null_theta_beside_rotary_parameters_that_have_one() -> None:
    given = {"rope_theta": None, "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}
    assert from_hugging_face(LLAMA | given).rope_theta == 500.0


@pytest.mark.parametrize("key", WHOLE)
def test_a_key_that_is_missing_is_named(key: str) -> None:
    with pytest.raises(InputError, match=rf"^config\.json: no {key}"):
        from_hugging_face({name: value for name, value in LLAMA.items() if name != key})
