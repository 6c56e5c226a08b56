"""Chunked and vocabulary-parallel cross-entropy, log-probabilities, entropies and KL.

The output projection and the loss run together over chunks of tokens, and the gradients of the cross-entropy are made
in the forward pass, while a chunk's logits are still in cache. That allocates the gradients early and needs a scalar
loss, but saves the [tokens, vocabulary] tensor, by far the largest of a small model's step.

An output matrix that is a DTensor sharded over its rows (vocabulary parallelism, `vocab parallel`) is recognized as
one: each rank then computes the logits of its own slice of the vocabulary, and ranks exchange two numbers per token.
Callers use the methods of `models.head.OutputHead`.

Shape suffixes: N tokens, C model width, V vocabulary (of this rank), R ranks.
"""

from typing import Any, NamedTuple

import torch
import torch.distributed
import torch.nn.functional as F
from torch import Tensor

from common.constants import IGNORE
from models.device import is_dtensor
from models.layers import compute_dtype

CHUNK = 1024
"""Tokens whose logits exist at once."""


class VocabularySlice(NamedTuple):
    """Slice of the vocabulary on this rank: rows of the output matrix from `first`; the others are with `group`."""

    first: int = 0
    group: torch.distributed.ProcessGroup | None = None

    def own(self, labels_N: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """Labels as rows of this slice (0 where they are outside or `IGNORE`), and whether they are inside."""
        rows = labels_N - self.first
        inside = (rows >= 0) & (rows < size) & (labels_N != IGNORE)
        return rows.where(inside, 0), inside

    def combine(self, logsumexp_N: Tensor, target_N: Tensor) -> tuple[Tensor, Tensor]:
        """Log-normalizer and target logit over the whole vocabulary from those of each slice."""
        if self.group is None:
            return logsumexp_N, target_N
        mine = torch.stack((logsumexp_N, target_N))
        all_ranks = [torch.empty_like(mine) for _ in range(self.group.size())]
        torch.distributed.all_gather(all_ranks, mine, group=self.group)
        logsumexps_RN, targets_RN = torch.stack(all_ranks, dim=1)
        return logsumexps_RN.logsumexp(0), targets_RN.sum(0)


def _vocabulary_slice(weight_VC: Tensor) -> tuple[Tensor, VocabularySlice]:
    """This rank's rows of the output matrix as a plain tensor, and their slice."""
    if not is_dtensor(weight_VC):
        return weight_VC, VocabularySlice()
    from torch.distributed.tensor import Shard

    mesh = weight_VC.device_mesh
    if mesh.mesh_dim_names != ("tp",) or tuple(weight_VC.placements) != (Shard(0),):
        raise RuntimeError(
            f"the output matrix is sharded as {weight_VC.placements} over {mesh.mesh_dim_names}: losses need its rows "
            "sharded over tp alone, unsharded over the other axes"
        )
    rows = weight_VC.to_local()
    return rows, VocabularySlice(mesh.get_local_rank() * rows.shape[0], mesh.get_group())


def _wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """Dtype of the softmax: half precision is widened to float32; float32 and float64 stay."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _wide(x: Tensor) -> Tensor:
    return x.to(_wide_dtype(x.dtype))


def _nonzero(count: Tensor) -> Tensor:
    """1 for a count of 0, whose sum is 0 too. A share of a step's count may be below 1."""
    return count.where(count > 0, 1)


def _rows_at_once(logits: Tensor) -> int:
    """Rows widened together: those that fit into a CPU's cache, or all of them on a GPU."""
    return max(1, 2**19 // logits.shape[1]) if logits.device.type == "cpu" else len(logits)


def _logits_to_gradient(
    logits_NV: Tensor, labels_N: Tensor, vocabulary: VocabularySlice, z_loss: float
) -> tuple[Tensor, Tensor]:
    """Losses [N] in the wide dtype and their parts z logsumexp^2; the logits are replaced by their gradient,
    softmax * (1 + 2 z logsumexp) - one_hot.
    """
    rows_N, inside_N = vocabulary.own(labels_N, logits_NV.shape[1])
    rows_N1 = rows_N[:, None]
    found_N = _wide(logits_NV.gather(-1, rows_N1)).squeeze(-1)
    logs_NV = logits_NV.log_softmax(-1, dtype=_wide_dtype(logits_NV.dtype))
    own_logsumexp_N = found_N - logs_NV.gather(-1, rows_N1).squeeze(-1)
    logsumexp_N, target_N = vocabulary.combine(own_logsumexp_N, found_N * inside_N)
    if vocabulary.group is not None:
        logs_NV += (own_logsumexp_N - logsumexp_N)[:, None]
    gradient_NV = logs_NV.exp_()
    if z_loss:
        gradient_NV *= 1 + 2 * z_loss * logsumexp_N[:, None]
    gradient_NV.scatter_add_(-1, rows_N1, -inside_N[:, None].to(gradient_NV.dtype))
    logits_NV.copy_(gradient_NV)
    z_N = z_loss * logsumexp_N.square()
    return logsumexp_N - target_N + z_N, z_N


def _scaled(values_NC: Tensor, factor: Tensor, chunk: int) -> Tensor:
    """Values times a wide scalar, which rounded to their own dtype would scale all of them wrongly."""
    if values_NC.dtype == factor.dtype:
        return values_NC * factor
    scaled_NC = torch.empty_like(values_NC)
    for values, into in zip(values_NC.split(chunk), scaled_NC.split(chunk), strict=True):
        into.copy_(_wide(values) * factor)
    return scaled_NC


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_NC: Tensor,
        weight_VC: Tensor,
        labels_N: Tensor,
        count: Tensor,
        z_loss: float,
        chunk: int,
        vocabulary: VocabularySlice,
    ) -> tuple[Tensor, Tensor]:
        # A custom Function does not see autocast by itself.
        dtype = compute_dtype(hidden_NC)
        hidden_NC, weight = hidden_NC.to(dtype), weight_VC.to(dtype)
        wide = _wide_dtype(dtype)
        weight_of_token_N = (labels_N != IGNORE) / _nonzero(count).to(wide)
        loss, z_part = (torch.zeros((), dtype=wide, device=hidden_NC.device) for _ in range(2))
        grad_hidden = torch.empty_like(hidden_NC)
        # A frozen matrix (LoRA) needs neither this third of the products nor [V, C] numbers.
        grad_weight = torch.zeros_like(weight_VC, dtype=wide) if ctx.needs_input_grad[1] else None
        parts = (x.split(chunk) for x in (hidden_NC, labels_N, weight_of_token_N, grad_hidden))
        for hidden, labels, weight_of_token, grad_out in zip(*parts, strict=True):
            gradient = hidden @ weight.T
            losses, z_parts = zip(
                *(
                    _logits_to_gradient(logits, some, vocabulary, z_loss)
                    for logits, some in zip(
                        *(x.split(_rows_at_once(gradient)) for x in (gradient, labels)), strict=True
                    )
                ),
                strict=True,
            )
            loss += (torch.cat(losses) * weight_of_token).sum()
            if z_loss:
                z_part += (torch.cat(z_parts) * weight_of_token).sum()
            # A token's weight multiplies its hidden state: a row of C numbers instead of one of V.
            torch.mm(gradient, weight, out=grad_out).mul_(weight_of_token[:, None])
            if grad_weight is not None:
                grad_weight += gradient.T @ (hidden * weight_of_token[:, None]).to(dtype)
        ctx.chunk = chunk
        ctx.save_for_backward(grad_hidden, None if grad_weight is None else grad_weight.to(weight_VC.dtype))
        ctx.mark_non_differentiable(z_part)
        return loss, z_part

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_weight = ctx.saved_tensors
        grad_loss, _ = grad_outputs
        scaled = None if grad_weight is None else grad_weight * grad_loss
        return _scaled(grad_hidden, grad_loss, ctx.chunk), scaled, None, None, None, None, None


def linear_cross_entropy_and_z_loss(
    hidden_NC: Tensor,
    weight_VC: Tensor,
    labels_N: Tensor,
    z_loss: float = 0.0,
    chunk: int = CHUNK,
    count: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Sum over valid labels of -log softmax(hidden weight^T)[label] + z_loss * logsumexp^2, divided by `count`.

    Args:
        hidden_NC: hidden states, any float dtype.
        weight_VC: output matrix; as a DTensor its rows are sharded over the mesh axis `tp`, and the gradient of
            `hidden_NC` is then this slice's term of the sum over slices.
        labels_N: int64 targets; `IGNORE` (-100) has no loss and no gradient.
        z_loss: weight of the squared log-normalizer (Chowdhery et al. 2022, section 5, take 1e-4); 0 is none.
        chunk: tokens whose logits exist at once; the result does not depend on it beyond rounding.
        count: divisor of the sum, a scalar; the number of valid labels by default. Micro-batches of one step divide by
            the count of all of them, so that their losses add up to the step's.

    Returns:
        Two scalars in float32 (float64 for float64 input), 0 when no label is valid: the loss, and the part of the
        z-loss in it, which has no gradient.
    """
    count = (labels_N != IGNORE).sum() if count is None else count
    if torch.is_grad_enabled() and (hidden_NC.requires_grad or weight_VC.requires_grad):
        rows, vocabulary = _vocabulary_slice(weight_VC)
        both: tuple[Tensor, Tensor] = _LinearCrossEntropy.apply(
            hidden_NC, rows, labels_N, count, z_loss, chunk, vocabulary
        )
        return both
    loss = _token_losses(hidden_NC, weight_VC, labels_N, z_loss, chunk).sum() / _nonzero(count)
    if not z_loss:
        return loss, torch.zeros_like(loss)
    plain = _token_losses(hidden_NC, weight_VC, labels_N, 0.0, chunk).sum() / _nonzero(count)
    return loss, (loss - plain).detach()


def linear_cross_entropy(
    hidden_NC: Tensor,
    weight_VC: Tensor,
    labels_N: Tensor,
    z_loss: float = 0.0,
    chunk: int = CHUNK,
    count: Tensor | None = None,
) -> Tensor:
    """The loss alone, see `linear_cross_entropy_and_z_loss`."""
    return linear_cross_entropy_and_z_loss(hidden_NC, weight_VC, labels_N, z_loss, chunk, count)[0]


class _TokenLogProbabilities(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_NC: Tensor, weight_VC: Tensor, labels_N: Tensor, chunk: int, vocabulary: VocabularySlice
    ) -> Tensor:
        dtype = compute_dtype(hidden_NC)
        hidden, weight = hidden_NC.to(dtype), weight_VC.to(dtype)
        logsumexp_N = torch.empty(len(labels_N), dtype=_wide_dtype(dtype), device=hidden.device)
        target_N = torch.empty_like(logsumexp_N)
        parts = (x.split(chunk) for x in (hidden, labels_N, logsumexp_N, target_N))
        for part, labels, logsumexp, target in zip(*parts, strict=True):
            logits = _wide(part @ weight.T)
            rows, inside = vocabulary.own(labels, len(weight))
            found = logits.gather(-1, rows[:, None]).squeeze(-1) * inside
            for into, value in zip((logsumexp, target), vocabulary.combine(logits.logsumexp(-1), found), strict=True):
                into.copy_(value)
        ctx.save_for_backward(hidden, weight, labels_N, logsumexp_N)
        ctx.dtypes, ctx.chunk, ctx.vocabulary = (hidden_NC.dtype, weight_VC.dtype), chunk, vocabulary
        return (target_N - logsumexp_N) * (labels_N != IGNORE)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, labels_N, logsumexp_N = ctx.saved_tensors
        grad_N = grad_outputs[0] * (labels_N != IGNORE)
        needs_weight = ctx.needs_input_grad[1]
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight, dtype=_wide_dtype(weight.dtype)) if needs_weight else None
        parts = (x.split(ctx.chunk) for x in (hidden, labels_N, logsumexp_N, grad_N, grad_hidden))
        for part, labels, logsumexp, grad, grad_out in zip(*parts, strict=True):
            rows, inside = ctx.vocabulary.own(labels, len(weight))
            # d log p[label] / d logits = one_hot - softmax, written over the logits themselves.
            gradient = _wide(part @ weight.T).sub_(logsumexp[:, None]).exp_().mul_(-grad[:, None])
            gradient.scatter_add_(-1, rows[:, None], (grad * inside)[:, None])
            narrow = gradient.to(weight.dtype)
            torch.mm(narrow, weight, out=grad_out)
            if grad_weight is not None:
                grad_weight += narrow.T @ part
        dtype_hidden, dtype_weight = ctx.dtypes
        return (
            grad_hidden.to(dtype_hidden),
            None if grad_weight is None else grad_weight.to(dtype_weight),
            None,
            None,
            None,
        )


def token_log_probabilities(hidden_NC: Tensor, weight_VC: Tensor, labels_N: Tensor, chunk: int = CHUNK) -> Tensor:
    """log softmax(hidden weight^T)[label] of each token, with its gradient.

    A token's gradient is known only when all log-probabilities are (a preference loss weighs whole responses), so
    logits are computed again in the backward pass: a fourth product with the output matrix, to never hold [N, V].

    Args:
        hidden_NC: hidden states, any float dtype.
        weight_VC: output matrix; as a DTensor its rows are sharded over the mesh axis `tp`, see `linear_cross_entropy`.
        labels_N: int64 targets; `IGNORE` (-100) gives 0 and no gradient.
        chunk: tokens whose logits exist at once.

    Returns:
        float32 [N] (float64 for float64 input).
    """
    if torch.is_grad_enabled() and (hidden_NC.requires_grad or weight_VC.requires_grad):
        rows, vocabulary = _vocabulary_slice(weight_VC)
        log_probabilities: Tensor = _TokenLogProbabilities.apply(hidden_NC, rows, labels_N, chunk, vocabulary)
        return log_probabilities
    return -_token_losses(hidden_NC, weight_VC, labels_N, 0.0, chunk)


class _TokenLogProbabilitiesAndEntropies(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_NC: Tensor, weight_VC: Tensor, labels_N: Tensor, chunk: int, vocabulary: VocabularySlice
    ) -> tuple[Tensor, Tensor]:
        dtype = compute_dtype(hidden_NC)
        hidden, weight = hidden_NC.to(dtype), weight_VC.to(dtype)
        logsumexp_N = torch.empty(len(labels_N), dtype=_wide_dtype(dtype), device=hidden.device)
        target_N, mean_N = torch.empty_like(logsumexp_N), torch.empty_like(logsumexp_N)
        parts = (x.split(chunk) for x in (hidden, labels_N, logsumexp_N, target_N, mean_N))
        for part, labels, logsumexp, target, mean in zip(*parts, strict=True):
            logits = _wide(part @ weight.T)
            rows, inside = vocabulary.own(labels, len(weight))
            found = logits.gather(-1, rows[:, None]).squeeze(-1) * inside
            for into, value in zip((logsumexp, target), vocabulary.combine(logits.logsumexp(-1), found), strict=True):
                into.copy_(value)
            own = ((logits - logsumexp[:, None]).exp_() * logits).sum(-1)
            mean.copy_(vocabulary.combine(own, own)[1])
        entropy_N = logsumexp_N - mean_N
        ctx.save_for_backward(hidden, weight, labels_N, logsumexp_N, entropy_N)
        ctx.dtypes, ctx.chunk, ctx.vocabulary = (hidden_NC.dtype, weight_VC.dtype), chunk, vocabulary
        return target_N - logsumexp_N, entropy_N

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, labels_N, logsumexp_N, entropy_N = ctx.saved_tensors
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight, dtype=_wide_dtype(weight.dtype)) if ctx.needs_input_grad[1] else None
        parts = (x.split(ctx.chunk) for x in (hidden, labels_N, logsumexp_N, entropy_N, *grad_outputs, grad_hidden))
        for part, labels, logsumexp, entropy, of_log, of_entropy, grad_out in zip(*parts, strict=True):
            rows, inside = ctx.vocabulary.own(labels, len(weight))
            # d log p[label] / d logits = one_hot - p, d entropy / d logits = -p (log p + entropy).
            log_p = _wide(part @ weight.T).sub_(logsumexp[:, None])
            gradient = log_p.exp()
            gradient *= log_p.add_(entropy[:, None]).mul_(-of_entropy[:, None]).sub_(of_log[:, None])
            gradient.scatter_add_(-1, rows[:, None], (of_log * inside)[:, None])
            narrow = gradient.to(weight.dtype)
            torch.mm(narrow, weight, out=grad_out)
            if grad_weight is not None:
                grad_weight += narrow.T @ part
        dtype_hidden, dtype_weight = ctx.dtypes
        grad_weight = None if grad_weight is None else grad_weight.to(dtype_weight)
        return grad_hidden.to(dtype_hidden), grad_weight, None, None, None


def token_log_probabilities_and_entropies(
    hidden_NC: Tensor, weight_VC: Tensor, labels_N: Tensor, chunk: int = CHUNK
) -> tuple[Tensor, Tensor]:
    """log softmax(hidden weight^T)[label] of each token and the entropy in nats of that distribution, with gradients.

    Args:
        hidden_NC, weight_VC, chunk: see `token_log_probabilities`.
        labels_N: int64 targets, all of them tokens.

    Returns:
        Two of float32 [N] (float64 for float64 input).
    """
    rows, vocabulary = _vocabulary_slice(weight_VC)
    both: tuple[Tensor, Tensor] = _TokenLogProbabilitiesAndEntropies.apply(hidden_NC, rows, labels_N, chunk, vocabulary)
    return both


@torch.no_grad()
def token_kl(
    hidden_NC: Tensor, weight_VC: Tensor, other_hidden_NC: Tensor, other_weight_VC: Tensor, chunk: int = CHUNK
) -> Tensor:
    """KL(p || q) in nats of the next-token distributions p = softmax(hidden weight^T) and q of the other model.

    Args:
        hidden_NC, weight_VC: hidden states and output matrix of p; the matrix may be sharded over `tp`, see
            `linear_cross_entropy`.
        other_hidden_NC, other_weight_VC: those of q, sharded alike.
        chunk: tokens whose logits exist at once.

    Returns:
        Float32 [N], exact: summed over the whole vocabulary.
    """
    weight, vocabulary = _vocabulary_slice(weight_VC)
    other_weight, _ = _vocabulary_slice(other_weight_VC)
    kls = []
    for hidden, other_hidden in zip(hidden_NC.split(chunk), other_hidden_NC.split(chunk), strict=True):
        logits = [_wide(F.linear(h, w.to(h.dtype))) for h, w in ((hidden, weight), (other_hidden, other_weight))]
        nothing = torch.zeros_like(logits[0][:, 0])
        log_p, log_q = (x - vocabulary.combine(x.logsumexp(-1), nothing)[0][:, None] for x in logits)
        here = (log_p.exp() * (log_p - log_q)).sum(-1)
        kls.append(vocabulary.combine(nothing, here)[1])
    return torch.cat(kls)


def _token_losses(hidden_NC: Tensor, weight_VC: Tensor, labels_N: Tensor, z_loss: float, chunk: int) -> Tensor:
    weight, vocabulary = _vocabulary_slice(weight_VC)
    losses = []
    for hidden, labels in zip(hidden_NC.split(chunk), labels_N.split(chunk), strict=True):
        logits = _wide(F.linear(hidden, weight.to(hidden.dtype)))
        rows, inside = vocabulary.own(labels, len(weight))
        target = logits.gather(-1, rows[:, None]).squeeze(-1) * inside
        logsumexp, target = vocabulary.combine(logits.logsumexp(-1), target)
        losses.append((logsumexp - target + z_loss * logsumexp.square()) * (labels != IGNORE))
    return torch.cat(losses)
