"""Sparse mixture of experts (MoE), dropless, with top-k routing.

Each token reaches all of its experts whatever their load, so that a token's output never depends on the others in its
batch; the price is products of unequal size, one expert after the other. Load balancing is a loss over each row of
tokens (DeepSeek-V2, Liu et al. 2024, section 2.2.3) rather than over a batch, which would make it depend on the
micro-batch size.

Shape suffixes: N tokens, E experts, K active ones, C model width, F hidden width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.config import DecoderConfig


class SparseFeedForward(nn.Module):
    """Mixture of SwiGLU experts of which a router chooses a few per token (Mixtral, Jiang et al. 2024, eq. 1).

    Args:
        config: shape of the decoder, with `experts`.

    Attributes:
        auxiliary_loss: load-balancing and z-loss of the last batch, a scalar with its gradient.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        assert config.experts is not None
        self.experts, count = config.experts, config.experts.num_experts
        self.router = nn.Linear(config.width, count, bias=False)
        self.w1 = nn.Parameter(torch.empty(count, config.feed_forward_width, config.width))
        self.w2 = nn.Parameter(torch.empty(count, config.width, config.feed_forward_width))
        self.w3 = nn.Parameter(torch.empty(count, config.feed_forward_width, config.width))
        self.auxiliary_loss: Tensor | None = None

    def forward(self, x_BTC: Tensor) -> Tensor:
        x_NC = x_BTC.flatten(0, 1)
        logits_NE = self.router(x_NC)
        # The choice of experts must not depend on the rounding of bfloat16 probabilities.
        logits_NE = logits_NE.to(torch.promote_types(logits_NE.dtype, torch.float32))
        probabilities_NE = logits_NE.softmax(-1)
        weights_NK, chosen_NK = probabilities_NE.topk(self.experts.experts_per_token, dim=-1)
        if self.experts.normalize:
            weights_NK = weights_NK / weights_NK.sum(-1, keepdim=True)
        auxiliary = self._auxiliary(logits_NE, probabilities_NE, chosen_NK, len(x_BTC))
        if torch.compiler.is_compiling() or torch._C._current_graph_task_id() == -1:
            # Not where a backward pass computes the block again: its graph would hold all activations until the next.
            self.auxiliary_loss = auxiliary
        return self._compute(x_NC, weights_NK.to(x_NC.dtype), chosen_NK).view_as(x_BTC)

    def _compute(self, x_NC: Tensor, weights_NK: Tensor, chosen_NK: Tensor) -> Tensor:
        """Tokens sorted by expert, so that each expert computes one matrix of them."""
        order = chosen_NK.flatten().argsort(stable=True)
        tokens = order // self.experts.experts_per_token
        counts = chosen_NK.flatten().bincount(minlength=self.experts.num_experts).tolist()
        outputs = [
            F.linear(F.silu(F.linear(part, w1)) * F.linear(part, w3), w2)
            for part, w1, w2, w3 in zip(x_NC[tokens].split(counts), self.w1, self.w2, self.w3, strict=True)
        ]
        weighted = torch.cat(outputs) * weights_NK.flatten()[order, None]
        return torch.zeros_like(x_NC).index_add(0, tokens, weighted.to(x_NC.dtype))

    def _auxiliary(self, logits_NE: Tensor, probabilities_NE: Tensor, chosen_NK: Tensor, rows: int) -> Tensor:
        """Load-balancing loss and router z-loss (Zoph et al. 2022, eq. 5).

        By row, E * sum over experts of (share of the row's tokens) * (mean probability in the row), 1 where all are
        equal (Fedus et al. 2021, eq. 4).
        """
        mean_BE = probabilities_NE.unflatten(0, (rows, -1)).mean(1)
        got_NE = torch.zeros_like(probabilities_NE).scatter_(1, chosen_NK, 1.0 / self.experts.experts_per_token)
        share_BE = got_NE.unflatten(0, (rows, -1)).mean(1)
        balance = self.experts.num_experts * (share_BE * mean_BE).sum(-1).mean()
        return self.experts.balance_weight * balance + self.experts.z_weight * logits_NE.logsumexp(-1).square().mean()
