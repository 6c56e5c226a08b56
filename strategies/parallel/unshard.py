"""Unsharding an FSDP2 model temporarily, for generation without collectives in each block.

Decoding takes a forward pass per token, and responses end at different times on different ranks. FSDP2's own forward
would have every rank wait for every other at each block of each token; here weights are gathered once, and a second set
of modules around the same tensors knows nothing of the others.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.distributed.fsdp import FSDPModule

from models.decoder import Decoder


@contextmanager
def unsharded(model: Decoder) -> Iterator[Decoder]:
    """The decoder with whole weights, as long as the context lasts; ranks enter and leave it together.

    Args:
        model: sharded by FSDP2 over data-parallel ranks, or not at all; not cut by tensor parallelism.
    """
    parts = [part for part in model.modules() if isinstance(part, FSDPModule)]
    if not parts:
        yield model
        return
    for part in parts:
        part.unshard()
    try:
        yield _around_the_same_weights(model)
    finally:
        for part in parts:
            part.reshard()


def _around_the_same_weights(model: Decoder) -> Decoder:
    with torch.device("meta"):
        twin = Decoder(model.config)
    theirs = dict(model.named_modules())
    for name, module in twin.named_modules():
        for key in module._parameters:
            module._parameters[key] = theirs[name]._parameters[key]
    return twin
