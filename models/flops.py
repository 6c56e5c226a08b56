"""Parameter counts and FLOPs of a decoder, from its configuration; what MFU (model FLOPs utilization) is measured by.

Counted from the configuration by formula, so that a plan needs no model in memory; a test holds the formulas
against PyTorch's own counter. Attention is counted as it is computed, causal and within documents, not as the
full square of PaLM's convention (Chowdhery et al. 2022, appendix B), which flatters small models.
"""

from models.anatomy import block_tensors, embedding_tensors, head_tensors
from models.config import DecoderConfig


def matmul_parameters(config: DecoderConfig) -> int:
    """Parameters that multiply a token: all but vectors, the input embedding and inactive experts."""
    block = sum(tensor.multiplied_per_token for tensor in block_tensors(config))
    return config.layers * block + sum(tensor.multiplied_per_token for tensor in head_tensors(config))


def parameters(config: DecoderConfig) -> int:
    """All parameters; a tied embedding counts once."""
    blocks = config.layers * sum(tensor.numel for tensor in block_tensors(config))
    embedding = 0 if config.tied_embeddings else sum(tensor.numel for tensor in embedding_tensors(config))
    return blocks + embedding + sum(tensor.numel for tensor in head_tensors(config))


def training_flops(config: DecoderConfig, tokens: int, attended_pairs: int) -> int:
    """FLOPs of one forward and backward pass.

    Args:
        config: shape of the decoder.
        tokens: tokens of the batch.
        attended_pairs: (query, key) pairs that attention computes in a layer, summed over rows and averaged over
            layers where their windows differ (`models.attention.mean_attended_pairs`); a causal document of length n
            has n (n + 1) / 2.

    Returns:
        6 FLOPs per token and trained matmul parameter, 4 per frozen one (LoRA), which has no gradient of its own, and
        12 per pair and attention channel (2 products forward, 4 backward).
    """
    assert config.head_width is not None
    attention = 12 * config.layers * config.heads * config.head_width * attended_pairs
    multiplied = matmul_parameters(config)
    if config.lora is None:
        return 6 * multiplied * tokens + attention
    trained = adapter_parameters(config)
    if config.scalar_output:  # a head of its own, which is learned
        trained += sum(tensor.multiplied_per_token for tensor in head_tensors(config))
        multiplied -= trained - adapter_parameters(config)
    return (4 * multiplied + 6 * trained) * tokens + attention


def adapter_parameters(config: DecoderConfig) -> int:
    """Parameters of the LoRA adapters: rank times inputs and outputs of each adapted matrix; 0 without adapters."""
    if (lora := config.lora) is None:
        return 0
    adapted = [t for t in block_tensors(config) if t.is_product and t.module.rpartition(".")[2] in lora.targets]
    return config.layers * sum(lora.rank * (tensor.outputs + tensor.inputs) for tensor in adapted)


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
