"""Decoder configuration: sizes and switches of the Llama, Qwen2, Qwen3, Mistral, Mixtral and SmolLM families.

A family is a set of values here, rotary scaling (RoPE scaling) for longer contexts among them, not a file of its own. A
switch costs a branch in a layer's constructor; a file per family would repeat the same defect in five places.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from common.errors import InputError
from models.lora import LoRA


@dataclass
class RotaryScaling:
    """Rotary position scaling (RoPE scaling): longer wavelengths than those of training.

    Args:
        kind: `linear` divides all frequencies (Chen et al. 2023); `llama3` divides those of wavelengths beyond the
            trained context, keeps short ones and interpolates in between (Llama 3.1); `yarn` does so by dimension, and
            scales attention's scores (Peng et al. 2023).
        factor: new context length over the trained one.
        low_frequency_factor: frequencies of wavelengths above original_positions / this are divided by the whole
            factor (`llama3`).
        high_frequency_factor: frequencies of wavelengths below original_positions / this are kept (`llama3`).
        original_positions: trained context in tokens (`llama3`, `yarn`).
        beta_fast: frequencies that turn more often than this in the trained context are kept (`yarn`; the paper's 32).
        beta_slow: frequencies that turn less often than this are divided by the whole factor (`yarn`; the paper's 1).
        attention_factor: factor of queries and of keys (`yarn`); null takes 0.1 ln(factor) + 1, the paper's eq. 22.
        truncate: whether the two bounds are rounded outward to whole dimensions (`yarn`; false in gpt-oss).

    Raises:
        InputError: for a factor that is not positive or bounds in the wrong order.
    """

    kind: Literal["linear", "llama3", "yarn"] = "llama3"
    factor: float = 8.0
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    original_positions: int = 8192
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None
    truncate: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.beta_slow < self.beta_fast:
            raise InputError(
                f"rope_scaling: beta_slow={self.beta_slow} must lie between 0 and beta_fast={self.beta_fast}"
            )
        if self.attention_factor is not None and (self.kind != "yarn" or not self.attention_factor > 0):
            raise InputError(
                f"rope_scaling: attention_factor={self.attention_factor} with kind={self.kind}: must be above 0, and "
                "is yarn's alone"
            )
        if not self.factor > 0 or self.original_positions < 1:
            raise InputError(
                f"rope_scaling: factor={self.factor}, original_positions={self.original_positions} must be above 0"
            )
        if not 0 < self.low_frequency_factor < self.high_frequency_factor:
            raise InputError(
                f"rope_scaling: low_frequency_factor={self.low_frequency_factor} must lie between 0 and "
                f"high_frequency_factor={self.high_frequency_factor}"
            )


@dataclass
class Experts:
    """Mixture of experts (MoE): a sparse mixture of feed-forward layers in each block.

    Args:
        num_experts: experts in a block.
        experts_per_token: active experts of a token (top-k).
        normalize: whether the active experts' weights sum to one (Mixtral); false keeps their softmax over all experts
            (Qwen3-MoE).
        balance_weight: weight of the load-balancing loss; 0.01 is Switch Transformer's.
        z_weight: weight of the router's squared log-normalizer; 0.001 is ST-MoE's.

    Raises:
        InputError: for more active experts than there are, or a negative weight.
    """

    num_experts: int = 8
    experts_per_token: int = 2
    normalize: bool = True
    balance_weight: float = 0.01
    z_weight: float = 0.001

    def __post_init__(self) -> None:
        if not 0 < self.experts_per_token <= self.num_experts:
            raise InputError(
                f"experts: experts_per_token={self.experts_per_token} must lie between 1 and "
                f"num_experts={self.num_experts}"
            )
        if self.balance_weight < 0 or self.z_weight < 0:
            raise InputError(
                f"experts: balance_weight={self.balance_weight}, z_weight={self.z_weight} must not be negative"
            )


@dataclass
class DecoderConfig:
    """Shape of a decoder.

    Args:
        vocabulary_size: token ids; the command line takes it from the data's tokenizer.
        width: model width (`hidden_size`).
        layers: number of blocks.
        heads: query heads.
        key_value_heads: key/value heads; must divide `heads` (grouped-query attention).
        feed_forward_width: inner width of the feed-forward layer or of each expert (`intermediate_size`); Llama takes
            about 8/3 of the width.
        head_width: width of one head (`head_dim`); width / heads by default.
        rope_theta: base of the rotary wavelengths (RoPE, Su et al. 2021).
        rope_scaling: scaling of the wavelengths for longer contexts than were trained.
        rope_pattern: whether the layers have rotary embeddings, repeated over the layers; null is all (SmolLM3 has none
            in every fourth layer: [true, true, true, false]; NoPE, Kazemnejad et al. 2023).
        query_key_value_bias: biases of the query, key and value projections (Qwen2).
        query_key_norm: RMSNorm of each head's queries and keys before the rotary embedding (Qwen3).
        sliding_window: keys that a token sees, itself included (Mistral); null sees all.
        window_pattern: windows of the layers in place of one `sliding_window`, repeated over the layers; null in it
            sees all ([4096, null] alternates as Gemma 2 does).
        norm_epsilon: epsilon of each RMSNorm.
        experts: mixture of experts in place of each feed-forward layer.
        embedding_scale: factor of the embeddings (Granite's `embedding_multiplier`; muP, Yang et al. 2022).
        attention_scale: factor of attention's scores (Granite's `attention_multiplier`); null is 1 / sqrt(head_width).
        residual_scale: factor of what attention and feed-forward layers add (Granite's `residual_multiplier`).
        logit_divisor: divisor of the logits (Granite's `logits_scaling`).
        tied_embeddings: share the input and output embedding matrix (Press & Wolf 2017), worth it in small models.
        initial_std: standard deviation of the initial weights (GPT-2's 0.02).
        scalar_output: one output per position instead of one per token id, for reward models and critics.
        lora: low-rank adapters of the blocks' matrices; all other parameters are then frozen.

    Raises:
        InputError: when a size is not positive or the heads do not divide.
    """

    vocabulary_size: int
    width: int = 256
    layers: int = 6
    heads: int = 4
    key_value_heads: int = 2
    feed_forward_width: int = 704
    head_width: int | None = None
    rope_theta: float = 10_000.0
    rope_scaling: RotaryScaling | None = None
    rope_pattern: list[bool] | None = None
    query_key_value_bias: bool = False
    query_key_norm: bool = False
    sliding_window: int | None = None
    window_pattern: list[int | None] | None = None
    norm_epsilon: float = 1e-5
    experts: Experts | None = None
    embedding_scale: float = 1.0
    attention_scale: float | None = None
    residual_scale: float = 1.0
    logit_divisor: float = 1.0
    tied_embeddings: bool = True
    initial_std: float = 0.02
    scalar_output: bool = False
    lora: LoRA | None = None

    def __post_init__(self) -> None:
        for name in ("vocabulary_size", "width", "layers", "heads", "key_value_heads", "feed_forward_width"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}: must be at least 1")
        if self.heads % self.key_value_heads:
            raise InputError(
                f"key_value_heads={self.key_value_heads} does not divide heads={self.heads}: "
                f"choose one of {[k for k in range(1, self.heads + 1) if self.heads % k == 0]}"
            )
        if self.head_width is None and self.width % self.heads:
            raise InputError(
                f"heads={self.heads} does not divide width={self.width}: change one of them or give head_width"
            )
        if self.scalar_output and self.tied_embeddings:
            raise InputError(
                "scalar_output with tied_embeddings=true: one row cannot be the embedding, set it to false"
            )
        if isinstance(self.lora, dict):
            self.lora = LoRA(**self.lora)
        if isinstance(self.experts, dict):
            self.experts = Experts(**self.experts)
        if isinstance(self.rope_scaling, dict):
            self.rope_scaling = RotaryScaling(**self.rope_scaling)
        if self.sliding_window is not None and self.sliding_window < 1:
            raise InputError(f"sliding_window={self.sliding_window}: must be at least 1, or null")
        if self.window_pattern is not None:
            if self.sliding_window is not None:
                raise InputError(
                    f"sliding_window={self.sliding_window} with window_pattern={self.window_pattern}: give one of them"
                )
            if not self.window_pattern or any(window is not None and window < 1 for window in self.window_pattern):
                raise InputError(
                    f"window_pattern={self.window_pattern}: must hold windows of at least 1 token, or null for all"
                )
        if self.rope_pattern is not None and not self.rope_pattern:
            raise InputError("rope_pattern=[]: must hold true or false of at least one layer, or null for all")
        self.head_width = self.width // self.heads if self.head_width is None else self.head_width
        if self.head_width < 1 or self.head_width % 2:
            raise InputError(
                f"head_width={self.head_width}: rotary embeddings rotate pairs, give an even head width above 0"
            )
        positive = ["rope_theta", "norm_epsilon", "initial_std", "embedding_scale", "residual_scale", "logit_divisor"]
        for name in positive if self.attention_scale is None else [*positive, "attention_scale"]:
            if not getattr(self, name) > 0:
                raise InputError(f"{name}={getattr(self, name)}: must be above 0")

    def window_of(self, layer: int) -> int | None:
        """Keys that a query of a layer sees, its own included; None is all of its document."""
        if self.window_pattern is None:
            return self.sliding_window
        return self.window_pattern[layer % len(self.window_pattern)]

    def has_scales(self) -> bool:
        """Whether embeddings, attention, residuals or logits have a factor of their own."""
        factors = (self.embedding_scale, self.residual_scale, self.logit_divisor)
        return self.attention_scale is not None or factors != (1, 1, 1)

    def has_rope(self, layer: int) -> bool:
        """Whether a layer has rotary embeddings."""
        return self.rope_pattern is None or self.rope_pattern[layer % len(self.rope_pattern)]

    def windows(self) -> dict[int | None, int]:
        """Number of layers by window."""
        return dict(Counter(self.window_of(layer) for layer in range(self.layers)))
