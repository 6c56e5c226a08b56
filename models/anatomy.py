"""Anatomy of a decoder: one table of all its tensors, computed from a `DecoderConfig`.

Shape, tensor-parallel dimension, products per token and Hugging Face name of each tensor are written here once. The
tensor-parallel plan, the FLOPs, the planner, the stages of a pipeline and the checkpoint converter are computed from
this table, so that a new family changes one list. The modules themselves stay ordinary PyTorch and are not built from
the table; tests hold the two against each other.
"""

import math
from typing import Literal, NamedTuple

from models.config import DecoderConfig

TensorParallel = Literal["column", "row", "vocabulary", "sequence", "heads", "replicated"]
"""How tensor parallelism treats a tensor:

- `column`: cut by its output dimension; a product into a block (Megatron's column-parallel layer);
- `row`: cut by its input dimension; a product out of a block, followed by a sum over ranks;
- `vocabulary`: cut by token id, as the embedding and the output matrix are;
- `sequence`: whole on every rank, which applies it to its part of the sequence (norms of the residual stream);
- `heads`: whole on every rank, which applies it to its own heads (norms of queries and keys);
- `replicated`: whole on every rank, which all compute the same.
"""

CUT_DIMENSION: dict[TensorParallel, int | None] = {
    "column": 0, "row": 1, "vocabulary": 0, "sequence": None, "heads": None, "replicated": None,
}  # fmt: skip


class TensorSpec(NamedTuple):
    """One parameter of a decoder.

    Attributes:
        name: parameter name within a block (`attention.wq.weight`), or in the decoder for tensors outside of blocks.
        shape: sizes; a matrix is [outputs, inputs], experts are stacked [experts, outputs, inputs].
        hugging_face: name in a Hugging Face checkpoint, with `{layer}` and `{expert}` to fill in.
        tensor_parallel: how tensor parallelism treats it.
        is_product: a factor of a matrix product with a token's hidden state.
        is_cast: cast to bfloat16 under autocast, as the weights and biases of products are.
        uses_per_token: matrices of this tensor that multiply a token: 1, or the active experts.
    """

    name: str
    shape: tuple[int, ...]
    hugging_face: str
    tensor_parallel: TensorParallel = "replicated"
    is_product: bool = False
    is_cast: bool = False
    uses_per_token: int = 1

    @property
    def module(self) -> str:
        """Name of the module that holds the parameter, as `attention.wq`."""
        return self.name.rpartition(".")[0]

    @property
    def numel(self) -> int:
        """Numbers in the tensor."""
        return math.prod(self.shape)

    @property
    def outputs(self) -> int:
        """Width of a product's result, in numbers per token and use."""
        return self.shape[-2]

    @property
    def inputs(self) -> int:
        """Width of a product's input, in numbers per token and use."""
        return self.shape[-1]

    @property
    def multiplied_per_token(self) -> int:
        """Numbers of the tensor that are a factor of one token's matrix products; 2 FLOPs each."""
        return self.uses_per_token * self.outputs * self.inputs if self.is_product else 0

    def shape_on_rank(self, tensor_parallel_size: int) -> tuple[int, ...]:
        """Shape on each rank after tensor parallelism."""
        cut = CUT_DIMENSION[self.tensor_parallel]
        return tuple(size // tensor_parallel_size if i == cut else size for i, size in enumerate(self.shape))

    def numel_on_rank(self, tensor_parallel_size: int) -> int:
        """Numbers on each rank after tensor parallelism."""
        return math.prod(self.shape_on_rank(tensor_parallel_size))

    def numel_of_shard(self, tensor_parallel_size: int, shards: int, rank: int = 0) -> int:
        """Numbers on one of the ranks that share the tensor (FSDP2).

        Dimension 0 is cut in equal chunks, of which the last ones are smaller or empty.

        Args:
            tensor_parallel_size: ranks that cut the tensor first.
            shards: ranks that share what each of those holds.
            rank: index of the shard.
        """
        first, *rest = self.shape_on_rank(tensor_parallel_size)
        chunk = -(-first // shards)
        return max(0, min(chunk, first - rank * chunk)) * math.prod(rest)


def block_tensors(config: DecoderConfig) -> tuple[TensorSpec, ...]:
    """Tensors of one block, adapters left out; the same in every layer."""
    assert config.head_width is not None
    width, head_width = config.width, config.head_width
    queries, keys = config.heads * head_width, config.key_value_heads * head_width
    found = [
        _norm("attention_norm", width, "input_layernorm"),
        _product("attention.wq", (queries, width), "self_attn.q_proj", "column"),
        _product("attention.wk", (keys, width), "self_attn.k_proj", "column"),
        _product("attention.wv", (keys, width), "self_attn.v_proj", "column"),
        _product("attention.wo", (width, queries), "self_attn.o_proj", "row"),
        _norm("feed_forward_norm", width, "post_attention_layernorm"),
    ]
    if config.query_key_value_bias:
        found += [
            TensorSpec(f"attention.{ours}.bias", (size,), _in_layer(f"self_attn.{theirs}.bias"), "column", is_cast=True)
            for ours, theirs, size in (("wq", "q_proj", queries), ("wk", "k_proj", keys), ("wv", "v_proj", keys))
        ]
    if config.query_key_norm:
        found += [_norm(f"attention.{name}", head_width, f"self_attn.{name}", "heads") for name in ("q_norm", "k_norm")]
    return (*found, *(_feed_forward(config) if config.experts is None else _sparse_feed_forward(config)))


def embedding_tensors(config: DecoderConfig) -> tuple[TensorSpec, ...]:
    """Tensors in front of the blocks, which the first stage of a pipeline holds."""
    shape = (config.vocabulary_size, config.width)
    return (TensorSpec("tok_embeddings.weight", shape, "model.embed_tokens.weight", "vocabulary"),)


def head_tensors(config: DecoderConfig) -> tuple[TensorSpec, ...]:
    """Tensors behind the blocks, which the last stage of a pipeline holds.

    The output matrix is listed where it is tied too: it is a product there, while the embedding is a look-up.
    """
    # A matrix of one row cannot be cut: every rank computes the same score.
    outputs, kind = (1, "replicated") if config.scalar_output else (config.vocabulary_size, "vocabulary")
    return (
        TensorSpec("norm.weight", (config.width,), "model.norm.weight", "sequence"),
        TensorSpec("output.weight", (outputs, config.width), "lm_head.weight", kind, is_product=True),  # type: ignore[arg-type]
    )


def causal_pairs(length: int, window: int | None) -> int:
    """(query, key) pairs of a document of T tokens: T (T + 1) / 2, with a window of W < T tokens
    W (W + 1) / 2 + (T - W) W.

    Args:
        length: T.
        window: keys that a query sees, its own included; None is all.
    """
    width = min(length, window or length)
    return width * (width + 1) // 2 + (length - width) * width


def mean_causal_pairs(config: DecoderConfig, length: int) -> int:
    """`causal_pairs` averaged over the layers' windows, rounded where they differ."""
    total = sum(count * causal_pairs(length, window) for window, count in config.windows().items())
    return round(total / config.layers)


def _feed_forward(config: DecoderConfig) -> list[TensorSpec]:
    width, inner = config.width, config.feed_forward_width
    return [
        _product("feed_forward.w1", (inner, width), "mlp.gate_proj", "column"),
        _product("feed_forward.w2", (width, inner), "mlp.down_proj", "row"),
        _product("feed_forward.w3", (inner, width), "mlp.up_proj", "column"),
    ]


def _sparse_feed_forward(config: DecoderConfig) -> list[TensorSpec]:
    """Router and stacked experts, named as in Mixtral, or as in Qwen3-MoE where heads are normalized."""
    assert config.experts is not None
    width, inner, experts = config.width, config.feed_forward_width, config.experts
    router, matrices = "block_sparse_moe.gate", "block_sparse_moe.experts.{expert}.%s.weight"
    theirs = {"w1": "w1", "w2": "w2", "w3": "w3"}
    if config.query_key_norm:
        router, matrices = "mlp.gate", "mlp.experts.{expert}.%s.weight"
        theirs = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}
    shapes = {"w1": (inner, width), "w2": (width, inner), "w3": (inner, width)}
    return [
        _product("feed_forward.router", (experts.num_experts, width), router, "replicated"),
        *(
            TensorSpec(
                f"feed_forward.{name}", (experts.num_experts, *shape), _in_layer(matrices % theirs[name]),
                is_product=True, is_cast=True, uses_per_token=experts.experts_per_token,
            )
            for name, shape in shapes.items()
        ),
    ]  # fmt: skip


def _in_layer(name: str) -> str:
    return f"model.layers.{{layer}}.{name}"


def _norm(module: str, width: int, theirs: str, kind: TensorParallel = "sequence") -> TensorSpec:
    return TensorSpec(f"{module}.weight", (width,), _in_layer(f"{theirs}.weight"), kind)


def _product(module: str, shape: tuple[int, int], theirs: str, kind: TensorParallel) -> TensorSpec:
    name = _in_layer(f"{theirs}.weight")
    return TensorSpec(f"{module}.weight", shape, name, kind, is_product=True, is_cast=True)
