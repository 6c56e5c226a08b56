"""Activation checkpointing (gradient checkpointing) and compilation of single blocks.

Both replace the block's `forward` in place. Wrapper modules would do the same and prefix every parameter's name, and
names are what checkpoints and initial weights go by; what is hooked onto the block (FSDP) stays outside of both.
"""

import functools
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from models.attention import keep_documents_eager

ActivationCheckpointing = Literal["none", "selective", "full"]
"""Which activations of a block the backward pass computes again: none; all but matrix products; all."""

_PRODUCTS = {getattr(torch.ops.aten, name).default for name in ("mm", "addmm", "bmm", "_scaled_mm")}


def _keep_products(context: Any, operation: Any, *arguments: Any, **keywords: Any) -> CheckpointPolicy:
    """Matrix products are kept, attention and elementwise operations are cheap to repeat."""
    return CheckpointPolicy.MUST_SAVE if operation in _PRODUCTS else CheckpointPolicy.PREFER_RECOMPUTE


def checkpoint_activations(block: nn.Module, mode: ActivationCheckpointing) -> None:
    """Make a block forget activations in the forward pass and compute them again in the backward."""
    if mode == "none":
        return
    options: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
    if mode == "selective":
        options["context_fn"] = functools.partial(create_selective_checkpoint_contexts, _keep_products)
    block.forward = functools.partial(checkpoint, block.forward, **options)


def compile_block(block: nn.Module, backend: str) -> None:
    """Compile a block's forward (and with it its backward) with `torch.compile`."""
    keep_documents_eager()
    block.forward = torch.compile(block.forward, backend=backend)
