"""Next-token cross-entropy that never holds the logits of a whole batch.

The output projection and the loss run together over chunks of tokens, and the gradients are made in the forward
pass, while a chunk's logits are still in cache. That spends the backward's memory for gradients early and needs
a scalar loss, but saves the [tokens, vocabulary] tensor, by far the largest of a small model's step.

Shape suffixes: N tokens, C model width, V vocabulary.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE = -100
"""Label of a position that has no loss (PyTorch's own default)."""


def _compute_dtype(hidden: Tensor) -> torch.dtype:
    """Dtype of the matrix products: autocast's inside autocast, which a custom Function does not see by itself."""
    device = hidden.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype


def _wide(x: Tensor) -> Tensor:
    """Half precision is widened to float32 for the softmax; float32 and float64 stay."""
    return x if x.dtype == torch.float64 else x.float()


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_NC: Tensor, weight_VC: Tensor, labels_N: Tensor, z_loss: float, chunk: int) -> Tensor:
        dtype = _compute_dtype(hidden_NC)
        hidden_NC, weight = hidden_NC.to(dtype), weight_VC.to(dtype)
        valid_N = labels_N != IGNORE
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        scale = 1.0 / valid_N.sum().clamp(min=1).to(wide)
        loss = torch.zeros((), dtype=wide, device=hidden_NC.device)
        grad_hidden = torch.empty_like(hidden_NC)
        grad_weight = torch.zeros_like(weight_VC, dtype=wide)
        for hidden, labels, valid, grad_out in zip(
            hidden_NC.split(chunk), labels_N.split(chunk), valid_N.split(chunk), grad_hidden.split(chunk), strict=True
        ):
            logits = _wide(hidden @ weight.T)
            logsumexp = logits.logsumexp(-1)
            target = labels.where(valid, 0)[:, None]
            per_token = logsumexp - logits.gather(-1, target).squeeze(-1) + z_loss * logsumexp.square()
            weight_of_token = valid * scale
            loss += (per_token * weight_of_token).sum()
            # d loss / d logits = softmax * (1 + 2 z logsumexp) - one_hot, written over the logits themselves.
            gradient = logits.sub_(logsumexp[:, None]).exp_()
            gradient *= ((1 + 2 * z_loss * logsumexp) * weight_of_token)[:, None]
            gradient.scatter_add_(-1, target, -weight_of_token[:, None].to(gradient.dtype))
            gradient = gradient.to(dtype)
            torch.mm(gradient, weight, out=grad_out)
            grad_weight += gradient.T @ hidden
        ctx.save_for_backward(grad_hidden, grad_weight.to(weight_VC.dtype))
        return loss

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_weight = ctx.saved_tensors
        (grad_loss,) = grad_outputs
        return grad_hidden * grad_loss.to(grad_hidden.dtype), grad_weight * grad_loss, None, None, None


def linear_cross_entropy(
    hidden_NC: Tensor, weight_VC: Tensor, labels_N: Tensor, z_loss: float = 0.0, chunk: int = 1024
) -> Tensor:
    """Mean over valid labels of -log softmax(hidden weight^T)[label] + z_loss * logsumexp^2.

    Args:
        hidden_NC: hidden states, any float dtype.
        weight_VC: output matrix.
        labels_N: int64 targets; `IGNORE` (-100) has no loss and no gradient.
        z_loss: weight of the squared log-normaliser (Chowdhery et al. 2022, section 5, take 1e-4); 0 is none.
        chunk: tokens whose logits are held at once; the result does not depend on it beyond rounding.

    Returns:
        Scalar in float32 (float64 for float64 input); 0 when no label is valid.
    """
    if torch.is_grad_enabled() and (hidden_NC.requires_grad or weight_VC.requires_grad):
        loss: Tensor = _LinearCrossEntropy.apply(hidden_NC, weight_VC, labels_N, z_loss, chunk)
        return loss
    parts = [
        _token_loss(hidden, weight_VC, labels, z_loss)
        for hidden, labels in zip(hidden_NC.split(chunk), labels_N.split(chunk), strict=True)
    ]
    return torch.cat(parts).sum() / (labels_N != IGNORE).sum().clamp(min=1)


@torch.no_grad()
def token_negative_log_likelihood(hidden_NC: Tensor, weight_VC: Tensor, labels_N: Tensor, chunk: int = 1024) -> Tensor:
    """-log softmax(hidden weight^T)[label] of every token in nats, float32 [N]; 0 where the label is `IGNORE`."""
    pairs = zip(hidden_NC.split(chunk), labels_N.split(chunk), strict=True)
    return torch.cat([_token_loss(hidden, weight_VC, labels, 0.0) for hidden, labels in pairs])


def _token_loss(hidden: Tensor, weight: Tensor, labels: Tensor, z_loss: float) -> Tensor:
    logits = _wide(F.linear(hidden, weight.to(hidden.dtype)))
    loss = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none")
    return loss + z_loss * logits.logsumexp(-1).square() * (labels != IGNORE) if z_loss else loss
