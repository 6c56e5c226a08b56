"""Parameter counts and FLOPs of a decoder, from its configuration.

Counted from the configuration by formula, so that a plan needs no model in memory; a test holds the formulas
against PyTorch's own counter. Attention is counted as it is computed, causal and within documents, not as the
full square of PaLM's convention (Chowdhery et al. 2022, appendix B), which flatters small models.
"""

from models.decoder import DecoderConfig


def matmul_parameters(config: DecoderConfig) -> int:
    """Parameters in a token's matrix products: all but vectors, the input embedding and inactive experts."""
    assert config.head_width is not None
    query_and_output = 2 * config.width * config.heads * config.head_width
    key_and_value = 2 * config.width * config.key_value_heads * config.head_width
    feed_forward = 3 * config.width * config.feed_forward_width
    if config.experts is not None:
        feed_forward = config.experts.experts_per_token * feed_forward + config.width * config.experts.num_experts
    blocks = config.layers * (query_and_output + key_and_value + feed_forward)
    return blocks + config.width * (1 if config.scalar_output else config.vocabulary_size)


def parameters(config: DecoderConfig) -> int:
    """Parameters in all; a tied embedding counts once."""
    assert config.head_width is not None
    vectors = (2 * config.layers + 1) * config.width
    if config.query_key_norm:
        vectors += 2 * config.layers * config.head_width
    if config.query_key_value_bias:
        vectors += config.layers * (config.heads + 2 * config.key_value_heads) * config.head_width
    input_embedding = 0 if config.tied_embeddings else config.width * config.vocabulary_size
    idle = 0
    if config.experts is not None:
        idle = (
            config.layers
            * (config.experts.num_experts - config.experts.experts_per_token)
            * 3
            * config.width
            * config.feed_forward_width
        )
    return matmul_parameters(config) + idle + vectors + input_embedding


def training_flops(config: DecoderConfig, tokens: int, attended_pairs: int) -> int:
    """FLOPs of one forward and backward pass.

    Args:
        config: shape of the decoder.
        tokens: tokens of the batch.
        attended_pairs: (query, key) pairs that attention computes, summed over rows; a causal document of
            length n has n (n + 1) / 2 (`models.attention.attended_pairs`).

    Returns:
        6 FLOPs per token and matmul parameter, 12 per pair and attention channel (2 products forward, 4 backward).
    """
    assert config.head_width is not None
    attention = 12 * config.layers * config.heads * config.head_width * attended_pairs
    return 6 * matmul_parameters(config) * tokens + attention


def palm_flops_per_token(config: DecoderConfig, sequence_length: int) -> float:
    """FLOPs of a token forward and backward in PaLM's convention, 6 N + 12 L H Q T (Chowdhery et al. 2022, appendix B).

    N leaves the input embedding out; attention counts as the full square of the window, twice what is computed. For
    comparison with published utilizations only.

    Args:
        config: shape of the decoder; L layers, H heads of width Q.
        sequence_length: T.
    """
    assert config.head_width is not None
    return 6.0 * matmul_parameters(config) + 12.0 * config.layers * config.heads * config.head_width * sequence_length
