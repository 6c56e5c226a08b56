"""Activation memory of a block: what autograd keeps for the backward pass, tensor by tensor.

A list of the tensors instead of a factor on s b h: the well-known factors (Korthikanti et al. 2022) are those of GELU,
LayerNorm, dropout and attention that holds its scores, none of which is here. They are below for comparison.

Per token, C width, F hidden width, H heads, K key/value heads, D head width, t tensor-parallel size, c bytes of a
product's numbers (2 under autocast, 4 without). The residual stream is float32 under autocast too: the embedding is.
"""

from models.anatomy import block_tensors
from models.config import DecoderConfig
from strategies.parallel.activation_checkpointing import ActivationCheckpointing
from strategies.planner.training_setup import TrainingSetup

RESIDUAL = 4
"""Bytes of a number of the residual stream and of the norms."""


def block_bytes(setup: TrainingSetup, mode: ActivationCheckpointing | None = None) -> float:
    """Bytes per token that a block keeps from its forward to its backward pass, on each rank of a tensor-parallel
    group.

    none: both norms' (input, rstd), attention's (q, k, v, y), the gated layer's four, and the inputs of the products,
    which autocast casts once for each product: 3 into attention, 2 into the gated layer. Full: the block's input.
    Selective: that and the results of the products (`strategies.parallel.activation_checkpointing`), with experts those
    of the router and of each active expert. Compiled: an estimate of what inductor's partitioner keeps: elementwise
    results are made again.

    Args:
        setup: the run.
        mode: other than the run's own.
    """
    mode = setup.checkpointing if mode is None else mode
    shape, t, c = setup.config, setup.sizes.tp, setup.width_bytes
    assert shape.head_width is not None
    block_input = RESIDUAL * shape.width / t
    if mode == "full":
        return block_input
    if mode == "selective":
        return block_input + c * product_outputs(setup)
    norms = residual_norms(shape) * norm_bytes(setup)
    attention = c * attention_width(shape) / t + (4 * shape.heads / t if setup.device == "cuda" else 0)
    if shape.query_key_norm:
        # Of each head, float32 or the product's dtype: input and, without a fused kernel, the normalized input.
        per_head = (c + (RESIDUAL if setup.device == "cpu" else 0)) * shape.head_width + 4
        attention += (shape.heads + shape.key_value_heads) / t * per_head
    into_attention, into_feed_forward = _inputs(setup)
    return norms + attention + into_attention + into_feed_forward + feed_forward_bytes(setup)


def residual_norms(config: DecoderConfig) -> int:
    """Norms of the residual stream in a block."""
    return sum(tensor.tensor_parallel == "sequence" for tensor in block_tensors(config))


def attention_width(config: DecoderConfig) -> int:
    """Numbers per token of queries, keys, values and attention's result."""
    found = [tensor for tensor in block_tensors(config) if tensor.is_product and tensor.module.startswith("attention.")]
    return sum(tensor.inputs if tensor.tensor_parallel == "row" else tensor.outputs for tensor in found)


def product_outputs(setup: TrainingSetup) -> float:
    """Numbers per token of the results of a block's products, on each rank of a tensor-parallel group.

    Results of row-parallel products are whole, before their sum over ranks is cut along the sequence.
    """
    return sum(
        tensor.uses_per_token * tensor.outputs / (setup.sizes.tp if tensor.tensor_parallel == "column" else 1)
        for tensor in block_tensors(setup.config)
        if tensor.is_product
    )


def _inputs(setup: TrainingSetup) -> tuple[float, float]:
    """Inputs of the products into attention and into the feed-forward layer, whole on every tensor-parallel rank."""
    width, c = setup.config.width, setup.width_bytes
    if not setup.mixed:
        return RESIDUAL * width, RESIDUAL * width
    if setup.compiled:
        return c * width, c * width
    return 3 * c * width, (2 if setup.config.experts is None else 1) * c * width


def norm_bytes(setup: TrainingSetup) -> float:
    """Bytes per token of an RMSNorm: its input and 1 / rms; on a CPU, where it is no fused kernel, x / rms too."""
    copies = 2 if setup.device == "cpu" and not setup.compiled else 1
    return (copies * RESIDUAL * setup.config.width + 4) / setup.sizes.tp


def feed_forward_bytes(setup: TrainingSetup) -> float:
    """Bytes per token of the gated layer: w1 x, silu of it, w3 x and the product of both, 4 c F; twice F compiled.

    With experts, of each active one: its copies of the input, those four and its output, once as computed and once
    weighted; and of the router four float32 numbers an expert.
    """
    shape, t, c = setup.config, setup.sizes.tp, setup.width_bytes
    gated = (2 if setup.compiled else 4) * c * shape.feed_forward_width / t
    if shape.experts is None:
        return gated
    copies = 2 * c if setup.mixed else RESIDUAL
    each = gated + (copies + c + RESIDUAL) * shape.width
    return shape.experts.experts_per_token * (each + 24) + 16 * shape.experts.num_experts


def head_bytes(setup: TrainingSetup) -> float:
    """Bytes per token that the last norm and the loss keep: the norm's, and the gradient of the hidden state (c C)."""
    return norm_bytes(setup) + setup.width_bytes * setup.config.width


def working_bytes(setup: TrainingSetup) -> float:
    """Bytes per token of a block's backward pass beyond what was kept: three gradients of the gated layer (3 c F / t)
    or of attention's four, whichever is larger, and two of the residual stream.
    """
    shape, t, c = setup.config, setup.sizes.tp, setup.width_bytes
    active = 1 if shape.experts is None else shape.experts.experts_per_token
    gated = 3 * c * shape.feed_forward_width * active / t
    attention = c * attention_width(shape) / t
    return max(gated, attention) + 2 * RESIDUAL * shape.width


def split_gradient_bytes(setup: TrainingSetup) -> float:
    """Bytes per token of a block that lie between its backward pass to the inputs and that to the weights, where a
    schedule does them apart: the gradients of every product's and every norm's result.
    """
    shape, t, c = setup.config, setup.sizes.tp, setup.width_bytes
    assert shape.head_width is not None
    norms = float(residual_norms(shape) * RESIDUAL * shape.width)
    if shape.query_key_norm:
        norms += c * (shape.heads + shape.key_value_heads) * shape.head_width / t
    return c * product_outputs(setup) + norms


# As published


def korthikanti_layer_bytes(
    sequence: int, batch: int, width: int, heads: int, tensor: int = 1, kind: str = "none"
) -> float:
    """Bytes of activations of a layer with GELU, LayerNorm, dropout and stored scores (Korthikanti et al. 2022,
    equations 1 to 6 and table 2), s b h times: none 34 + 5 a s / h; tensor 10 + 24 / t + 5 a s / (h t);
    sequence (34 + 5 a s / h) / t; selective 34 / t; full 2.

    Args:
        sequence: s, tokens. batch: b, windows. width: h. heads: a. tensor: t.
        kind: none, tensor, sequence (tensor and sequence parallelism), selective (with both) or full.
    """
    scores = 5 * heads * sequence / width
    factor = {
        "none": 34 + scores,
        "tensor": 10 + 24 / tensor + scores / tensor,
        "sequence": (34 + scores) / tensor,
        "selective": 34 / tensor,
        "full": 2.0,
    }[kind]
    return sequence * batch * width * factor
