"""Output head: logits, cross-entropy, log-probabilities, entropies and KL of the next token.

The one place that turns hidden states into anything over the vocabulary: a bias, a scale or a soft-cap of the logits
is added here and in `models.losses.chunked_losses`, and no caller changes. The methods read the weight beside
`forward`, so that logits exist a chunk of tokens at a time; the price is that a strategy cannot replace `forward`
alone, but spreads the weight (a DTensor sharded over its rows), which the losses understand.

Shape suffixes: N tokens, C model width, V vocabulary.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.device import is_dtensor
from models.losses.chunked_losses import (
    CHUNK,
    linear_cross_entropy,
    linear_cross_entropy_and_z_loss,
    token_kl,
    token_log_probabilities,
    token_log_probabilities_and_entropies,
)


class OutputHead(nn.Linear):
    """Linear projection of hidden states to logits (`lm_head`), or to one score per token, without bias.

    Args:
        width: model width C.
        outputs: vocabulary size V; 1 for the score of a reward model or the value of a critic.
    """

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__(width, outputs, bias=False)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits in float32, [..., V], whole: for sampling, where few tokens are computed at once."""
        logits: Tensor = self(hidden)
        return logits.float()

    def scores(self, hidden: Tensor) -> Tensor:
        """The one output of a reward model or a critic, float32 [...]."""
        # One row is replicated over `tp`, never sharded.
        weight = self.weight.to_local() if is_dtensor(self.weight) else self.weight
        # Not in bfloat16, whose scores are equal where responses are not, though all before it may be.
        with torch.autocast(hidden.device.type, enabled=False):
            dtype = torch.promote_types(hidden.dtype, torch.float32)
            return F.linear(hidden.to(dtype), weight.to(dtype)).squeeze(-1).float()

    def cross_entropy(
        self, hidden_NC: Tensor, labels_N: Tensor, z_loss: float = 0.0, count: Tensor | None = None, chunk: int = CHUNK
    ) -> Tensor:
        """Cross-entropy of the labels, a scalar, with its gradient made in the forward pass.

        Args:
            hidden_NC: hidden states, any float dtype.
            labels_N: int64 targets; `IGNORE` (-100) has no loss and no gradient.
            z_loss: weight of the squared log-normalizer (Chowdhery et al. 2022, section 5, take 1e-4); 0 is none.
            count: divisor of the sum, a scalar; the number of valid labels by default. A step of several micro-batches
                gives the count of all of them, so that their losses add up to the step's.
            chunk: tokens whose logits exist at once; the result does not depend on it beyond rounding.

        Returns:
            Float32 [] (float64 for float64 input); 0 without a valid label.
        """
        return linear_cross_entropy(hidden_NC, self.weight, labels_N, z_loss, chunk, count)

    def cross_entropy_and_z_loss(
        self, hidden_NC: Tensor, labels_N: Tensor, z_loss: float, count: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The loss of `cross_entropy`, and the part of the z-loss in it, without gradient."""
        return linear_cross_entropy_and_z_loss(hidden_NC, self.weight, labels_N, z_loss, count=count)

    def log_probabilities(self, hidden_NC: Tensor, labels_N: Tensor, chunk: int = CHUNK) -> Tensor:
        """log softmax(logits)[label] of every token in nats, with its gradient.

        Args:
            hidden_NC: hidden states; divided by the sampling's temperature where that is not 1.
            labels_N: int64 targets; `IGNORE` (-100) gives 0 and no gradient.
            chunk: tokens whose logits exist at once.

        Returns:
            Float32 [N] (float64 for float64 input).
        """
        return token_log_probabilities(hidden_NC, self.weight, labels_N, chunk)

    def log_probabilities_and_entropies(
        self, hidden_NC: Tensor, labels_N: Tensor, chunk: int = CHUNK
    ) -> tuple[Tensor, Tensor]:
        """log softmax(logits)[label] and the entropy of that distribution in nats, both with their gradients.

        Args:
            hidden_NC: see `log_probabilities`.
            labels_N: int64 targets, all of them tokens.
            chunk: tokens whose logits exist at once.

        Returns:
            Two of float32 [N] (float64 for float64 input).
        """
        return token_log_probabilities_and_entropies(hidden_NC, self.weight, labels_N, chunk)

    @torch.no_grad()
    def kl(self, hidden_NC: Tensor, other: "OutputHead", other_hidden_NC: Tensor, chunk: int = CHUNK) -> Tensor:
        """KL(p || q) of the next token in nats, exact: summed over the whole vocabulary. No gradient.

        Args:
            hidden_NC: hidden states of p, the model of this head.
            other: head of q; it may be on another device and is copied here then.
            other_hidden_NC: hidden states of q at the same tokens.
            chunk: tokens whose logits exist at once.

        Returns:
            Float32 [N] (float64 for float64 input).
        """
        device = hidden_NC.device
        return token_kl(hidden_NC, self.weight, other_hidden_NC.to(device), other.weight.to(device), chunk)
