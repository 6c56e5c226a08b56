"""Hugging Face conversion: `config.json` and parameter names, both ways.

Rotary halves, grouped heads and the gated feed-forward layer have the layout of transformers, so that a tensor is
renamed and never permuted. A property that a family cannot express is refused rather than dropped, which excludes
shapes that no family has.
"""

import math
from dataclasses import asdict
from typing import Any

from common.errors import InputError
from models.anatomy import block_tensors, embedding_tensors, head_tensors
from models.config import DecoderConfig, Experts, RotaryScaling
from models.weights.hugging_face_keys import (
    ARCHITECTURES,
    SPARSE,
    WINDOWED,
    rotary_layers,
    rotary_parameters,
    with_defaults,
)

_SCALES = {
    "embedding_scale": "embedding_multiplier",
    "attention_scale": "attention_multiplier",
    "residual_scale": "residual_multiplier",
    "logit_divisor": "logits_scaling",
}


def hugging_face_names(name: str, config: DecoderConfig) -> list[str]:
    """Names in a Hugging Face checkpoint of a decoder's parameter: one, or one per expert.

    Args:
        name: parameter name in the decoder, as `layers.0.attention.wq.weight`.
        config: shape of the decoder.

    Raises:
        InputError: for a parameter, or a mixture of experts, that no family has.
    """
    outside = {tensor.name: tensor for tensor in (*embedding_tensors(config), *head_tensors(config))}
    if name in outside:
        return [outside[name].hugging_face]
    layers, _, inside = name.partition(".")
    layer, _, inside = inside.partition(".")
    tensor = {tensor.name: tensor for tensor in block_tensors(config)}.get(inside)
    if layers != "layers" or tensor is None:
        raise InputError(f"{name} has no name in Hugging Face checkpoints: merge adapters first, or leave it out")
    if config.experts is None or not inside.startswith("feed_forward."):
        return [tensor.hugging_face.format(layer=layer)]
    _family(config)  # The names of experts are those of a family, which not every combination of switches has.
    count = config.experts.num_experts if "{expert}" in tensor.hugging_face else 1
    return [tensor.hugging_face.format(layer=layer, expert=expert) for expert in range(count)]


def from_hugging_face(config: dict[str, Any]) -> DecoderConfig:
    """Decoder configuration of a `config.json`.

    Raises:
        InputError: for an unsupported family, or an unsupported property of one.
    """
    whole = with_defaults(config)
    family, heads = whole["model_type"], whole["num_attention_heads"]
    return DecoderConfig(
        vocabulary_size=whole["vocab_size"],
        width=whole["hidden_size"],
        layers=whole["num_hidden_layers"],
        heads=heads,
        key_value_heads=heads if whole["num_key_value_heads"] is None else whole["num_key_value_heads"],
        feed_forward_width=whole["moe_intermediate_size" if family == "qwen3_moe" else "intermediate_size"],
        head_width=whole["hidden_size"] // heads if whole["head_dim"] is None else whole["head_dim"],
        norm_epsilon=whole["rms_norm_eps"],
        tied_embeddings=whole["tie_word_embeddings"],
        initial_std=whole["initializer_range"],
        query_key_value_bias=family == "qwen2",
        query_key_norm=family in ("qwen3", "qwen3_moe"),
        sliding_window=whole["sliding_window"],
        rope_pattern=rotary_layers(whole),
        experts=_experts(whole) if family in SPARSE else None,
        **_scales(whole),
        **_rotary(rotary_parameters(config, whole), whole.get("max_position_embeddings")),
    )


def _scales(whole: dict[str, Any]) -> dict[str, Any]:
    """Scales of Granite; none of another family."""
    return {ours: float(whole[theirs]) for ours, theirs in _SCALES.items() if theirs in whole}


def _experts(whole: dict[str, Any]) -> Experts:
    """Mixture of experts; transformers' load-balancing loss is `experts_per_token` times ours, and has no z-loss."""
    active = whole["num_experts_per_tok"]
    return Experts(
        num_experts=whole["num_local_experts"],
        experts_per_token=active,
        normalize=whole["model_type"] == "mixtral" or whole["norm_topk_prob"],
        balance_weight=whole["router_aux_loss_coef"] * active,
        z_weight=0.0,
    )


def _rotary(given: dict[str, Any], positions: int | None) -> dict[str, Any]:
    scaling = None
    if given["rope_type"] == "linear":
        scaling = RotaryScaling("linear", float(given["factor"]))
    elif given["rope_type"] == "llama3":
        scaling = RotaryScaling(
            "llama3",
            float(given["factor"]),
            float(given["low_freq_factor"]),
            float(given["high_freq_factor"]),
            int(given["original_max_position_embeddings"]),
        )
    elif given["rope_type"] == "yarn":
        scaling = _yarn(given, positions)
    return {"rope_theta": float(given["rope_theta"]), "rope_scaling": scaling}


def _yarn(given: dict[str, Any], positions: int | None) -> RotaryScaling:
    original = given.get("original_max_position_embeddings", positions)
    if original is None:
        raise InputError("config.json: rope_type=yarn needs original_max_position_embeddings, the trained context")
    factor, attention = float(given["factor"]), given.get("attention_factor")
    if attention is None and given.get("mscale") and given.get("mscale_all_dim"):
        # DeepSeek's form of the same factor.
        above, below = (
            0.1 * given[key] * math.log(factor) + 1 if factor > 1 else 1.0 for key in ("mscale", "mscale_all_dim")
        )
        attention = above / below
    return RotaryScaling(
        "yarn",
        factor,
        original_positions=int(original),
        beta_fast=float(given.get("beta_fast", 32.0)),
        beta_slow=float(given.get("beta_slow", 1.0)),
        attention_factor=None if attention is None else float(attention),
        truncate=bool(given.get("truncate", True)),
    )


def to_hugging_face(
    config: DecoderConfig, positions: int, dtype: str, special: dict[str, int | None]
) -> dict[str, Any]:
    """`config.json` of the family that has this shape.

    Args:
        config: configuration of the decoder, without adapters.
        positions: maximum context in tokens.
        dtype: dtype of the tensors by name, such as `bfloat16`.
        special: `bos_token_id`, `eos_token_id` and `pad_token_id`; None where the tokenizer has none.

    Raises:
        InputError: for a shape that no family has.
    """
    family = _family(config)
    written: dict[str, Any] = {
        "architectures": [ARCHITECTURES[family]],
        "model_type": family,
        "vocab_size": config.vocabulary_size,
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.key_value_heads,
        "head_dim": config.head_width,
        "intermediate_size": config.feed_forward_width,
        "hidden_act": "silu",
        "max_position_embeddings": positions,
        "rms_norm_eps": config.norm_epsilon,
        "rope_theta": config.rope_theta,
        "initializer_range": config.initial_std,
        "tie_word_embeddings": config.tied_embeddings,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "use_cache": True,
        "torch_dtype": dtype,
        **special,
    }
    if family in WINDOWED:
        written["sliding_window"] = config.sliding_window
    if (experts := config.experts) is not None:
        # transformers' load-balancing loss is `experts_per_token` times ours.
        written |= {
            "num_experts_per_tok": experts.experts_per_token,
            "router_aux_loss_coef": experts.balance_weight / experts.experts_per_token,
        }
        if family == "mixtral":
            written["num_local_experts"] = experts.num_experts
        else:
            written |= {
                "num_experts": experts.num_experts,
                "norm_topk_prob": experts.normalize,
                "decoder_sparse_step": 1,
            }
            written |= {"moe_intermediate_size": config.feed_forward_width, "mlp_only_layers": []}
    if family == "smollm3":
        written["no_rope_layers"] = [int(config.has_rope(layer)) for layer in range(config.layers)]
    if family == "granite":
        assert config.head_width is not None
        written |= {theirs: getattr(config, ours) for ours, theirs in _SCALES.items()}
        if config.attention_scale is None:
            written["attention_multiplier"] = config.head_width**-0.5
    if family in ("llama", "smollm3", "granite"):
        written["mlp_bias"] = False
    elif family == "qwen2":
        written.pop("attention_bias")
    if (scaling := config.rope_scaling) is not None:
        written["rope_scaling"] = {"rope_type": scaling.kind, "factor": scaling.factor}
        if scaling.kind == "llama3":
            written["rope_scaling"] |= {
                "low_freq_factor": scaling.low_frequency_factor,
                "high_freq_factor": scaling.high_frequency_factor,
                "original_max_position_embeddings": scaling.original_positions,
            }
        elif scaling.kind == "yarn":
            written["rope_scaling"] |= {
                "original_max_position_embeddings": scaling.original_positions,
                "beta_fast": scaling.beta_fast,
                "beta_slow": scaling.beta_slow,
                "truncate": scaling.truncate,
            }
            if scaling.attention_factor is not None:
                written["rope_scaling"]["attention_factor"] = scaling.attention_factor
    return written


def _family(config: DecoderConfig) -> str:
    if config.scalar_output or config.lora is not None:
        raise InputError("Hugging Face has no name for this model: a scalar output and adapters stay in this project")
    if config.window_pattern is not None:
        raise InputError(f"no family of Hugging Face here has window_pattern={config.window_pattern}")
    switches = {
        "mistral": config.sliding_window is not None,
        "qwen2": config.query_key_value_bias,
        "qwen3": config.query_key_norm,
        "smollm3": config.rope_pattern is not None,
        "granite": config.has_scales(),
    }
    chosen = {family for family, on in switches.items() if on}
    if config.experts is not None:
        if chosen <= {"mistral"} and config.experts.normalize:
            return "mixtral"
        if chosen == {"qwen3"}:
            return "qwen3_moe"
        chosen.add("mixtral")
    if len(chosen) > 1:
        raise InputError(f"no family of Hugging Face joins what {' and '.join(sorted(chosen))} have: {asdict(config)}")
    return chosen.pop() if chosen else "llama"
