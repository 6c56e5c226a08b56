"""Keys of a Hugging Face `config.json`: read, without effect, or refused; and the defaults of absent keys by family.

A key that is not known is refused by its name rather than ignored, because a model that is read without it computes
something else and no error says so. The price is a line here for each new key that changes nothing.
"""

import json
import math
from typing import Any

from common.errors import InputError

ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "mixtral": "MixtralForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "smollm3": "SmolLM3ForCausalLM",
    "granite": "GraniteForCausalLM",
}
SPARSE = ("mixtral", "qwen3_moe")
"""Families with a mixture of experts."""
WINDOWED = ("mistral", "mixtral")
"""Families whose `sliding_window` is that of every layer."""

DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"num_key_value_heads": 8, "sliding_window": 4096},
    "qwen2": {"num_key_value_heads": 32},
    "qwen3": {"num_key_value_heads": 32, "head_dim": 128},
    "mixtral": {
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1e6,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
    },
    "qwen3_moe": {"num_key_value_heads": 4, "num_local_experts": 128, "num_experts_per_tok": 8},
    "smollm3": {
        "num_key_value_heads": 4,
        "rope_theta": 2e6,
        "tie_word_embeddings": True,
        "no_rope_layers": None,
        "no_rope_layer_interval": 4,
    },
    "granite": {
        "embedding_multiplier": 1.0,
        "attention_multiplier": 1.0,
        "residual_multiplier": 1.0,
        "logits_scaling": 1.0,
    },
}
"""What a family takes for absent keys (transformers' configuration classes), where it is not `COMMON_DEFAULTS`."""
COMMON_DEFAULTS: dict[str, Any] = {
    "rms_norm_eps": 1e-6,
    "rope_theta": 10_000.0,
    "tie_word_embeddings": False,
    "initializer_range": 0.02,
    "router_aux_loss_coef": 0.001,
    "norm_topk_prob": False,
    "sliding_window": None,
    "num_key_value_heads": None,
    "head_dim": None,
}

_READ = {
    "model_type", "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "head_dim", "intermediate_size", "rms_norm_eps", "tie_word_embeddings", "initializer_range", "rope_theta",
    "rope_scaling", "rope_parameters", "max_position_embeddings", "layer_types", "architectures", "auto_map",
}  # fmt: skip
OWN_KEYS = {
    "smollm3": {"no_rope_layers", "no_rope_layer_interval"},
    "granite": {"embedding_multiplier", "attention_multiplier", "residual_multiplier", "logits_scaling"},
}
"""Keys that one family alone has."""
_READ_OF_EXPERTS = {"num_local_experts", "num_experts", "num_experts_per_tok", "router_aux_loss_coef"}
_WITHOUT_EFFECT = {
    # Identity, versions and dtypes of the file.
    "transformers_version", "torch_dtype", "dtype", "_name_or_path", "_commit_hash", "_attn_implementation",
    "_attn_implementation_autoset", "attn_implementation", "_experts_implementation", "_flash_attn_2_enabled",
    "transformers.js_config", "unsloth_version", "unsloth_fixed", "model_name", "is_llama_config",
    # Tokens and sampling, which the tokenizer and the configuration of generation decide.
    "bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "sep_token_id", "decoder_start_token_id",
    "tokenizer_class", "chat_template", "prefix", "bad_words_ids", "begin_suppress_tokens", "suppress_tokens",
    "diversity_penalty", "do_sample", "early_stopping", "encoder_no_repeat_ngram_size", "forced_bos_token_id",
    "forced_eos_token_id", "exponential_decay_length_penalty", "length_penalty", "max_length", "min_length",
    "no_repeat_ngram_size", "num_beam_groups", "num_beams", "num_return_sequences", "output_scores",
    "remove_invalid_values", "repetition_penalty", "return_dict_in_generate", "temperature", "top_k", "top_p",
    "typical_p", "use_cache",
    # What transformers returns, heads that are not there, and other ways to compute the same.
    "output_hidden_states", "output_attentions", "output_router_logits", "return_dict", "torchscript",
    "chunk_size_feed_forward", "id2label", "label2id", "problem_type", "num_labels", "finetuning_task",
    "task_specific_params", "tf_legacy_loss", "use_bfloat16", "pretraining_tp", "is_decoder", "max_sequence_length",
    "cross_attention_hidden_size", "tie_encoder_decoder",
}  # fmt: skip
_REQUIRED: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu",),
    "is_causal": (True,),
    "attention_dropout": (0, None),
    "router_jitter_noise": (0, None),
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "use_sliding_window": (False,),
    "decoder_sparse_step": (1,),
    "mlp_only_layers": ([], None),
    "quantization_config": (None,),
    "partial_rotary_factor": (1, None),
    "rope_interleaved": (False,),
    "use_mrope": (False,),
    "is_encoder_decoder": (False,),
    "add_cross_attention": (False,),
    "pruned_heads": ({}, None),
}
"""Values of the decoder for what it has no switch for; an absent key has the first."""
_NEEDED = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
_WHOLE = (*_NEEDED, "num_local_experts", "num_experts_per_tok", "moe_intermediate_size")
_WHOLE_OR_NULL = ("num_key_value_heads", "head_dim", "sliding_window", "max_position_embeddings")
_NUMBERS = ("rms_norm_eps", "initializer_range", "router_aux_loss_coef")
_BOOLEANS = ("tie_word_embeddings", "norm_topk_prob")
_OBJECTS, _LISTS = ("rope_parameters", "rope_scaling", "auto_map"), ("layer_types", "architectures")
_ROTARY = {
    "default": set[str](),
    "linear": {"factor"},
    "llama3": {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"},
    "yarn": {
        "factor", "original_max_position_embeddings", "beta_fast", "beta_slow", "attention_factor", "mscale",
        "mscale_all_dim", "truncate",
    },
}  # fmt: skip
_OPTIONAL_OF_YARN = _ROTARY["yarn"] - {"factor"}
"""Numbers of yarn that have defaults."""
_ROTARY_OF_BATCH = ("dynamic", "longrope", "su")
"""Scaling whose frequencies transformers chooses by the longest row of a batch."""


def with_defaults(config: dict[str, Any]) -> dict[str, Any]:
    """A `config.json` with its family's values for absent keys.

    Args:
        config: content of the file.

    Raises:
        InputError: for an unsupported family, or a key that would change what the decoder computes.
    """
    family = config.get("model_type")
    if not isinstance(family, str) or family not in ARCHITECTURES:
        raise InputError(f"model_type={family}: this decoder supports {', '.join(ARCHITECTURES)}")
    _refuse_unread(config, family)
    whole = COMMON_DEFAULTS | DEFAULTS[family] | config
    if family in SPARSE and "num_experts" in config:
        if config.get("num_local_experts", config["num_experts"]) != config["num_experts"]:
            raise _refused(config, "num_experts", f"num_local_experts={config['num_local_experts']} is another number")
        whole["num_local_experts"] = config["num_experts"]
    if family not in WINDOWED:
        whole["sliding_window"] = None
    _refuse_types(whole, family)
    _refuse_layer_types(whole)
    return whole


def _refuse_types(whole: dict[str, Any], family: str) -> None:
    """Refuse values of another type than their key's: text may be truth or a number elsewhere, here it is a mistake."""
    for key in _NEEDED if family != "qwen3_moe" else (*_NEEDED[:-1], "moe_intermediate_size"):
        if key not in whole:
            raise InputError(f"config.json: no {key}, which every {family} has")
    for key, value in whole.items():
        if key in _WHOLE or (key in _WHOLE_OR_NULL and value is not None):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise _mistaken(key, value, "a whole number above 0")
        elif key in _NUMBERS:
            _refuse_no_number(key, value)
        elif key in _BOOLEANS and not isinstance(value, bool):
            raise _mistaken(key, value, "true or false")


def _refuse_no_number(key: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise _mistaken(key, value, "a number, not below 0")


def _mistaken(key: str, value: Any, kind: str) -> InputError:
    return InputError(f"config.json: {key}={json.dumps(value):.200}: must be {kind}")


def rotary_parameters(config: dict[str, Any], whole: dict[str, Any]) -> dict[str, Any]:
    """`rope_type`, `rope_theta` and the numbers of that type; transformers 5 has them in `rope_parameters`.

    Args:
        config: content of the file.
        whole: the same with defaults, see `with_defaults`.

    Raises:
        InputError: for scaling that this decoder has not, or two entries that disagree.
    """
    places = [key for key in ("rope_parameters", "rope_scaling") if config.get(key)]
    if len(places) == 2 and config[places[0]] != config[places[1]]:
        raise _refused(config, "rope_scaling", f"rope_parameters={config['rope_parameters']} says something else")
    place = places[0] if places else "rope_parameters"
    given = {key: value for key, value in (config.get(place) or {}).items() if value is not None}
    if any(isinstance(value, dict) for value in given.values()):
        raise _refused(config, place, "this decoder has the same rotary embedding in all layers")
    kind = given.get("rope_type", given.get("type", "default"))
    if kind in _ROTARY_OF_BATCH:
        raise InputError(
            f"config.json: rope_type={kind}, frequencies depend on the longest row of a batch: a packed document or "
            f"a key in a cache, would mean something else beside a longer one; supported are {', '.join(_ROTARY)}"
        )
    if not isinstance(kind, str) or kind not in _ROTARY or given.get("type", kind) != kind:
        raise InputError(f"config.json: rope_type={kind}, this decoder supports {', '.join(_ROTARY)} ({place}={given})")
    if given.get("partial_rotary_factor", 1) != 1:
        raise _refused(given, "partial_rotary_factor", "this decoder rotates whole heads")
    for key in sorted(_ROTARY[kind] - given.keys() - (_OPTIONAL_OF_YARN if kind == "yarn" else set())):
        raise InputError(f"config.json: {place} has no {key}, which rope_type={kind} needs")
    for key in sorted((_ROTARY[kind] | {"rope_theta"}) & given.keys() - {"truncate"}):
        _refuse_no_number(key, given[key])
    unread = given.keys() - {"rope_type", "type", "rope_theta", "partial_rotary_factor"} - _ROTARY[kind]
    for key in sorted(unread):
        raise _refused(given, key, f"rope_type={kind} does not have it")
    if config.get("rope_theta") is None and "rope_theta" in given:
        return given | {"rope_type": kind}
    _refuse_no_number("rope_theta", whole["rope_theta"])
    if whole["rope_theta"] != given.get("rope_theta", whole["rope_theta"]):
        raise _refused(config, "rope_theta", f"{place} has rope_theta={given['rope_theta']}")
    return {"rope_theta": whole["rope_theta"]} | given | {"rope_type": kind}


def rotary_layers(whole: dict[str, Any]) -> list[bool] | None:
    """Whether each layer has rotary embeddings; None where all have.

    Args:
        whole: a `config.json` with defaults, see `with_defaults`.

    Raises:
        InputError: for fewer entries than layers, or an interval below 1.
    """
    if whole["model_type"] != "smollm3":
        return None
    layers, given, interval = (whole[key] for key in ("num_hidden_layers", "no_rope_layers", "no_rope_layer_interval"))
    if given is None:
        if interval < 1:
            raise _refused(whole, "no_rope_layer_interval", "must be at least 1")
        given = [(layer + 1) % interval != 0 for layer in range(layers)]
    if len(given) < layers or any(value not in (0, 1) for value in given):
        raise _refused(whole, "no_rope_layers", f"must hold 1 (rotary) or 0 for each of {layers} layers")
    return [bool(value) for value in given[:layers]]


def _refuse_unread(config: dict[str, Any], family: str) -> None:
    for keys, type_, kind in ((_OBJECTS, dict, "an object"), (_LISTS, list, "a list")):
        for key in keys:
            if not isinstance(config.get(key) or type_(), type_):
                raise _mistaken(key, config[key], kind)
    read = _READ | _WITHOUT_EFFECT
    if family in SPARSE:
        read |= _READ_OF_EXPERTS
    if family in WINDOWED:
        read |= {"sliding_window"}
    else:  # `use_sliding_window` is false, and these say nothing without it.
        read |= {"sliding_window", "max_window_layers"}
    if family == "qwen3_moe":
        read |= {"norm_topk_prob", "moe_intermediate_size"}
    read |= OWN_KEYS.get(family, set())
    if family == "qwen2":
        read |= {"attention_bias"}  # this family always has them
    for key, value in config.items():
        if key in read:
            continue
        if key in _REQUIRED:
            if value not in _REQUIRED[key]:
                raise _refused(config, key, f"this decoder supports {_REQUIRED[key][0]}")
        elif value is not None:
            raise _refused(
                config, key, f"a key of {family} that this decoder does not know; delete it if it changes nothing"
            )
    for name in config.get("architectures") or []:
        if "For" in name and not name.endswith("ForCausalLM"):
            raise _refused(config, "architectures", f"this decoder is a {ARCHITECTURES[family]}")
    if any(name.startswith("AutoModel") for name in config.get("auto_map") or {}):
        raise _refused(config, "auto_map", "a model with code of its own may compute anything")


def _refuse_layer_types(whole: dict[str, Any]) -> None:
    """Refuse layers of several kinds: these families have one window for all layers or none."""
    kind = "full_attention" if whole["sliding_window"] is None else "sliding_attention"
    if any(each != kind for each in whole.get("layer_types") or ()):
        raise _refused(
            whole,
            "layer_types",
            f"sliding_window={whole['sliding_window']} of {whole['model_type']} means {kind} in all",
        )


def _refused(config: dict[str, Any], key: str, reason: str) -> InputError:
    value = str(config[key])
    return InputError(f"config.json: {key}={value if len(value) < 200 else value[:200] + '...'}, {reason}")
