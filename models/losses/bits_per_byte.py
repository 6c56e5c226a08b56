"""Bits per byte, a metric of language models that does not depend on the tokenizer.

The loss per token is not comparable between vocabularies; the price is that data has to say how many bytes of text each
token is worth.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class BitsPerByte(Metric):
    """Bits per byte: negative log-likelihood in bits over the bytes of predicted text, summed over all ranks.

    Tokens without text (control tokens, padding) count neither bits nor bytes.
    """

    higher_is_better = False
    full_state_update = False
    nats: Tensor
    bytes: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("nats", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("bytes", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def _apply(self, fn: Callable[..., Any], *arguments: Any, **keywords: Any) -> "BitsPerByte":
        """Move, but stay in float64: a model converted to bfloat16 converts its metrics with it."""
        super()._apply(fn, *arguments, **keywords)
        self.nats, self.bytes = self.nats.double(), self.bytes.long()
        self._defaults = {"nats": torch.zeros_like(self.nats), "bytes": torch.zeros_like(self.bytes)}
        return self

    def update(self, nats_N: Tensor, bytes_N: Tensor) -> None:
        """Add tokens.

        Args:
            nats_N: negative log-likelihood of each token in nats.
            bytes_N: bytes of text of each token, 0 for control tokens.
        """
        self.nats += (nats_N * (bytes_N > 0)).sum(dtype=torch.float64)
        self.bytes += bytes_N.sum(dtype=torch.int64)

    def compute(self) -> Tensor:
        """Bits per byte; NaN without text."""
        return (self.nats / self.bytes / math.log(2)).float()
