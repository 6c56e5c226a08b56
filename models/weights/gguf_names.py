"""GGUF conversion: metadata of the decoder's shape and tensor names, both ways.

A file's metadata is turned into a `config.json`, so that one table knows the families and their defaults
(`models.weights.hugging_face_keys`). Keys of the architecture that are not known are refused by name, as there.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from common.errors import InputError
from models.config import DecoderConfig, RotaryScaling
from models.layers import rotary_frequencies
from models.weights.hugging_face_names import from_hugging_face

FAMILIES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "qwen3moe": "qwen3_moe"}
"""`general.architecture` to `model_type`; Mistral's files say llama, Mixtral's llama with experts."""

ROTARY_FACTORS = "rope_freqs.weight"
"""Tensor of what each rotary frequency is divided by, where Llama 3's scaling was written."""

_TENSORS = {
    "tok_embeddings": "token_embd",
    "norm": "output_norm",
    "output": "output",
    "attention_norm": "attn_norm",
    "attention.wq": "attn_q",
    "attention.wk": "attn_k",
    "attention.wv": "attn_v",
    "attention.wo": "attn_output",
    "attention.q_norm": "attn_q_norm",
    "attention.k_norm": "attn_k_norm",
    "feed_forward_norm": "ffn_norm",
    "feed_forward.w1": "ffn_gate",
    "feed_forward.w2": "ffn_down",
    "feed_forward.w3": "ffn_up",
    "feed_forward.router": "ffn_gate_inp",
}
_READ = {
    "block_count", "context_length", "embedding_length", "feed_forward_length", "attention.head_count",
    "attention.head_count_kv", "attention.layer_norm_rms_epsilon", "attention.key_length", "attention.value_length",
    "attention.sliding_window", "vocab_size", "rope.dimension_count", "rope.freq_base", "rope.scaling.type",
    "rope.scaling.factor", "expert_count", "expert_used_count", "expert_feed_forward_length",
}  # fmt: skip
_WITHOUT_EFFECT = {"rope.scaling.finetuned", "rope.scaling.original_context_length", "tensor_data_layout"}
"""Keys that change nothing with linear scaling or none."""
_LLAMA3_FACTORS = (8.0, 32.0, 16.0, 4.0)
"""Factors of Llama 3's scaling to try (3.1: 8, 3.2: 32); the file holds what comes of them."""


def gguf_name(name: str, config: DecoderConfig) -> str:
    """Name in a GGUF file of a decoder's parameter; experts are stacked in both.

    Raises:
        InputError: for a parameter that these files have no name for.
    """
    layer, inside = "", name
    if name.startswith("layers."):
        _, layer, inside = name.split(".", 2)
    # Stacked experts are parameters and no modules.
    module, _, kind = (inside, "", "weight") if inside in _TENSORS else inside.rpartition(".")
    if module not in _TENSORS:
        raise InputError(f"{name} has no name in GGUF files: merge adapters first, or leave it out")
    stacked = config.experts is not None and module in ("feed_forward.w1", "feed_forward.w2", "feed_forward.w3")
    theirs = f"{_TENSORS[module]}{'_exps' if stacked else ''}.{kind}"
    return f"blk.{layer}.{theirs}" if layer else theirs


def is_interleaved(name: str, architecture: str) -> bool:
    """Whether a tensor's rows are in the order of pairs of neighbors, as llama.cpp's rotary embedding of Llama is."""
    return architecture == "llama" and name.endswith(("attention.wq.weight", "attention.wk.weight"))


def interleaved(weight: Tensor, head_width: int) -> Tensor:
    """Rows of each head from halves [0, D/2), [D/2, D) to pairs of neighbors; `halves` is the inverse."""
    return weight.unflatten(0, (-1, 2, head_width // 2)).transpose(1, 2).flatten(0, 2)


def halves(weight: Tensor, head_width: int) -> Tensor:
    """Rows of each head from pairs of neighbors to halves."""
    return weight.unflatten(0, (-1, head_width // 2, 2)).transpose(1, 2).flatten(0, 2)


def from_gguf(metadata: dict[str, Any], names: set[str], rotary_factors: Tensor | None) -> DecoderConfig:
    """Decoder configuration of a GGUF file.

    Args:
        metadata: of the file, by key.
        names: of its tensors.
        rotary_factors: `ROTARY_FACTORS` [D / 2], None where the file has none.

    Raises:
        InputError: for an unsupported architecture, or a key or value that would change what the decoder computes.
    """
    architecture = metadata.get("general.architecture")
    if architecture not in FAMILIES:
        raise InputError(f"general.architecture={architecture}: this decoder reads {', '.join(FAMILIES)} from GGUF")
    prefix = f"{architecture}."
    given = {key.removeprefix(prefix): value for key, value in metadata.items() if key.startswith(prefix)}
    for key in sorted(given.keys() - _READ - _WITHOUT_EFFECT):
        raise InputError(f"{prefix}{key}={given[key]}: a key that this decoder does not know")
    config = from_hugging_face(_described(architecture, given, names, _vocabulary(metadata, given)))
    if rotary_factors is not None:
        config.rope_scaling = _llama3_scaling(config, rotary_factors)
    return config


def _described(architecture: str, given: dict[str, Any], names: set[str], vocabulary: int) -> dict[str, Any]:
    """The `config.json` of a file's metadata."""
    heads = _number(architecture, given, "attention.head_count")
    width = _number(architecture, given, "embedding_length")
    head_width = given.get("attention.key_length", given.get("rope.dimension_count", width // heads))
    for key in ("attention.value_length", "rope.dimension_count"):
        if given.get(key, head_width) != head_width:
            raise InputError(f"{architecture}.{key}={given[key]}: this decoder supports the keys' {head_width}")
    if given.get("attention.sliding_window"):
        raise InputError(
            f"{architecture}.attention.sliding_window={given['attention.sliding_window']}: not read from GGUF"
        )
    family = "mixtral" if architecture == "llama" and given.get("expert_count") else FAMILIES[architecture]
    described = {
        "model_type": family,
        "vocab_size": vocabulary,
        "hidden_size": width,
        "num_hidden_layers": _number(architecture, given, "block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": _number(architecture, given, "attention.head_count_kv", heads),
        "head_dim": head_width,
        "intermediate_size": given.get("feed_forward_length"),
        "rms_norm_eps": given["attention.layer_norm_rms_epsilon"],
        "rope_theta": given.get("rope.freq_base", 10_000.0),
        "tie_word_embeddings": "output.weight" not in names,
        "max_position_embeddings": given.get("context_length"),
        "sliding_window": None,
    }
    scaling = given.get("rope.scaling.type", "none")
    if scaling == "linear":
        described["rope_scaling"] = {"rope_type": "linear", "factor": given["rope.scaling.factor"]}
    elif scaling != "none":
        raise InputError(f"{architecture}.rope.scaling.type={scaling}: this decoder supports linear, from GGUF")
    if given.get("expert_count"):
        described |= {"num_local_experts": given["expert_count"], "num_experts_per_tok": given["expert_used_count"]}
    if family == "qwen3_moe":
        described |= {"moe_intermediate_size": given["expert_feed_forward_length"], "norm_topk_prob": True}
    return described


def _number(architecture: str, given: dict[str, Any], key: str, default: int | None = None) -> int:
    """One number, also where a file gives it for each layer."""
    value = given.get(key, default)
    if isinstance(value, list):
        if len(set(value)) != 1:
            raise InputError(f"{architecture}.{key}={value}: this decoder has the same in all layers")
        value = value[0]
    if not isinstance(value, int):
        raise InputError(f"{architecture}.{key}={value}: must be a number")
    return value


def _vocabulary(metadata: dict[str, Any], given: dict[str, Any]) -> int:
    size = given.get("vocab_size", len(metadata.get("tokenizer.ggml.tokens", ())))
    if not size:
        raise InputError("the file says neither its vocab_size nor its tokens: it is not a whole model")
    return int(size)


def _llama3_scaling(config: DecoderConfig, factors: Tensor) -> RotaryScaling:
    """Scaling whose division of the frequencies is that of the file."""
    for factor in _LLAMA3_FACTORS:
        scaling = RotaryScaling("llama3", factor, 1.0, 4.0, 8192)
        wanted = rotary_factors(replace(config, rope_scaling=scaling))
        if factors.shape == wanted.shape and torch.allclose(wanted, factors.float(), rtol=1e-4):
            return scaling
    raise InputError(f"{ROTARY_FACTORS}: a scaling of the rotary embedding that is none of Llama 3's")


def rotary_factors(config: DecoderConfig) -> Tensor:
    """`ROTARY_FACTORS` of a decoder with Llama 3's scaling: float32 [D / 2]."""
    return rotary_frequencies(replace(config, rope_scaling=None)) / rotary_frequencies(config)


def to_gguf(config: DecoderConfig, positions: int) -> tuple[str, dict[str, float | int | str]]:
    """Architecture of a decoder, and its keys without the architecture's prefix.

    Args:
        config: configuration of the decoder, without adapters.
        positions: maximum context in tokens.

    Raises:
        InputError: for a shape that no architecture read here has.
    """
    experts = config.experts
    if config.sliding_window is not None or config.window_pattern is not None:
        raise InputError("GGUF files of these architectures hold no sliding windows: write a Hugging Face folder")
    if config.scalar_output:
        raise InputError("GGUF files hold no reward models: write a file of this project (.safetensors)")
    if config.query_key_norm and config.query_key_value_bias:
        raise InputError("query_key_norm with query_key_value_bias: no architecture of GGUF has both")
    if experts is not None and (config.query_key_value_bias or not experts.normalize):
        raise InputError("experts with biases, or whose weights are not normalized: no architecture of GGUF has them")
    architecture = "qwen2" if config.query_key_value_bias else "qwen3" if config.query_key_norm else "llama"
    if experts is not None and config.query_key_norm:
        architecture = "qwen3moe"
    if config.has_scales():
        raise InputError(
            "GGUF files of these architectures hold no scales of embeddings, attention, residuals or logits"
        )
    if config.rope_pattern is not None:
        raise InputError("GGUF files of these architectures have rotary embeddings in all layers (rope_pattern)")
    if config.rope_scaling is not None and config.rope_scaling.kind == "yarn":
        raise InputError("rope_scaling yarn: not written to GGUF, write a Hugging Face folder")
    if config.rope_scaling is not None and config.rope_scaling.kind == "llama3" and architecture != "llama":
        raise InputError(f"rope_scaling llama3 with {architecture}: no GGUF file holds it, write a Hugging Face folder")
    assert config.head_width is not None
    keys: dict[str, float | int | str] = {
        "block_count": config.layers,
        "context_length": positions,
        "embedding_length": config.width,
        "feed_forward_length": config.feed_forward_width,
        "attention.head_count": config.heads,
        "attention.head_count_kv": config.key_value_heads,
        "attention.layer_norm_rms_epsilon": float(config.norm_epsilon),
        "attention.key_length": config.head_width,
        "attention.value_length": config.head_width,
        "rope.dimension_count": config.head_width,
        "rope.freq_base": float(config.rope_theta),
        "vocab_size": config.vocabulary_size,
    }
    if config.rope_scaling is not None and config.rope_scaling.kind == "linear":
        keys |= {"rope.scaling.type": "linear", "rope.scaling.factor": float(config.rope_scaling.factor)}
    if experts is not None:
        keys |= {"expert_count": experts.num_experts, "expert_used_count": experts.experts_per_token}
        if architecture == "qwen3moe":
            keys["expert_feed_forward_length"] = config.feed_forward_width
    return architecture, keys
