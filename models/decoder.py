"""Decoder-only transformer of the Llama family (Touvron et al. 2023): pre-norm blocks of attention and SwiGLU.

One plain class for every size and family: differences are switches of `DecoderConfig`, never subclasses.
Sub-modules follow the name contract the strategies rely on: `tok_embeddings`, `layers.<i>`, `norm`, `output`.
A switch costs a branch in a layer's constructor; a class per family would repeat every plan, formula and test.

Shape suffixes: B rows, T tokens, C model width.
"""

from typing import cast

import torch
from torch import Tensor, nn

from models.attention import Attention, AttentionPattern
from models.config import DecoderConfig
from models.head import OutputHead
from models.kv_cache import KVCache
from models.layers import RMSNorm, SwiGLU, compute_dtype
from models.lora import add_lora
from models.mixture_of_experts import SparseFeedForward


class DecoderBlock(nn.Module):
    """Pre-norm transformer block: x + attention(norm(x)), then x + feed_forward(norm(x))."""

    def __init__(self, config: DecoderConfig, layer: int = 0) -> None:
        super().__init__()
        self.scale = config.residual_scale
        self.attention_norm = RMSNorm.of(config, config.width)
        self.attention = Attention(config, layer)
        self.feed_forward_norm = RMSNorm.of(config, config.width)
        self.feed_forward = (
            SwiGLU(config.width, config.feed_forward_width) if config.experts is None else SparseFeedForward(config)
        )

    def forward(self, x_BTC: Tensor, pattern: AttentionPattern, cache: KVCache | None = None, layer: int = 0) -> Tensor:
        y_BTC = self.attention(self.attention_norm(x_BTC), pattern, cache, layer)
        x_BTC = x_BTC + (y_BTC if self.scale == 1 else y_BTC * self.scale)
        y_BTC = self.feed_forward(self.feed_forward_norm(x_BTC))
        return x_BTC + (y_BTC if self.scale == 1 else y_BTC * self.scale)


class Decoder(nn.Module):
    """Decoder up to the final norm; losses and sampling call the methods of `output`, a `models.head.OutputHead`.

    A pipeline stage is this class with sub-modules left out: without `tok_embeddings` it takes the hidden states of the
    stage before in place of tokens, without `norm` it ends at its last block.

    Args:
        config: shape of the decoder.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.tok_embeddings = nn.Embedding(config.vocabulary_size, config.width)
        self.layers = nn.ModuleDict({str(index): DecoderBlock(config, index) for index in range(config.layers)})
        self.norm = RMSNorm.of(config, config.width)
        self.output = OutputHead(config.width, 1 if config.scalar_output else config.vocabulary_size)
        if config.tied_embeddings:
            self.output.weight = self.tok_embeddings.weight
        if config.lora is not None:
            self.requires_grad_(False)
            add_lora(self.layers, config.lora)
            self.output.weight.requires_grad_(config.scalar_output)

    def forward(
        self,
        tokens_BT: Tensor,
        document_ids_BT: Tensor | None = None,
        cache: KVCache | None = None,
        branch_ids_BT: Tensor | None = None,
    ) -> Tensor:
        """Hidden states after the final norm, divided by `logit_divisor`.

        Args:
            tokens_BT: int64 token ids (hidden states where there is no embedding).
            document_ids_BT: integers, equal for neighbors of one document; None is one document per row.
            cache: KV cache that takes the keys and values of whole prompts, packed as documents; or, without
                `document_ids_BT`, of one token per slot, which sees what its slot holds.
            branch_ids_BT: 0 for a document's prompt, other integers for the responses that continue it; None is no
                branches. See `models.packed_batch`.

        Returns:
            [B, T, C] in the dtype of the computation.
        """
        dtype = compute_dtype(next(self.layers.parameters()))

        def pattern(layer: int) -> AttentionPattern:
            if document_ids_BT is not None:
                return AttentionPattern.of(document_ids_BT, self.config, dtype, branch_ids_BT, layer)
            if cache is not None:
                return AttentionPattern.decoding(cache, self.config, layer)
            return AttentionPattern.causal(tokens_BT, self.config, dtype, layer)

        # Layers with the same window share one pattern.
        by_window = {self.config.window_of(int(index)): int(index) for index in self.layers}
        patterns = {window: pattern(layer) for window, layer in by_window.items()}
        x_BTC = tokens_BT if self.tok_embeddings is None else self.tok_embeddings(tokens_BT)
        if self.tok_embeddings is not None and self.config.embedding_scale != 1:
            x_BTC = x_BTC * self.config.embedding_scale
        for index, block in self.layers.items():
            x_BTC = block(x_BTC, patterns[self.config.window_of(int(index))], cache, int(index))
        if self.norm is None:
            return x_BTC
        x_BTC = self.norm(x_BTC)
        # Logits are linear in the hidden states: divided here, every loss and sampler sees it.
        return x_BTC if self.config.logit_divisor == 1 else x_BTC / self.config.logit_divisor


def auxiliary_loss(decoder: Decoder) -> Tensor | None:
    """Load-balancing loss of the experts on the last batch, averaged over blocks; None without experts."""
    if decoder.config.experts is None:
        return None
    losses = [
        cast(Tensor, module.auxiliary_loss) for module in decoder.modules() if isinstance(module, SparseFeedForward)
    ]
    return torch.stack(losses).mean()
