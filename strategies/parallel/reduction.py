"""Reduction of a metric over ranks without a barrier.

Lightning meets all ranks at a barrier before it reduces a value, and NCCL's barrier holds the host until the device has
nothing left to do; an all-reduce meets them by itself. The price is none: the sums are the same to the bit.
"""

from typing import Any

import torch.distributed
from torch import Tensor
from torch.distributed import ReduceOp


def reduce_over_ranks(tensor: Tensor, group: Any, reduce_op: ReduceOp.RedOpType | str | None) -> Tensor:
    """The tensor reduced in place over the ranks of a group; itself where there is one rank.

    Args:
        tensor: this rank's value.
        group: process group; None is all ranks.
        reduce_op: `mean` or `avg`, or a name of `torch.distributed.ReduceOp` in any case.
    """
    if not torch.distributed.is_initialized() or torch.distributed.get_world_size(group) == 1:
        return tensor
    name = reduce_op.lower() if isinstance(reduce_op, str) else None
    divides = name in ("mean", "avg") and torch.distributed.get_backend(group) == "gloo"  # which has no mean
    if name is None:
        operation = ReduceOp.SUM if reduce_op is None else reduce_op
    else:
        operation = ReduceOp.SUM if divides else getattr(ReduceOp, {"mean": "AVG"}.get(name, name.upper()))
    torch.distributed.all_reduce(tensor, op=operation, group=group)
    if not divides:
        return tensor
    ranks = torch.distributed.get_world_size(group)
    return tensor.div_(ranks) if tensor.is_floating_point() else tensor.copy_(tensor / ranks)
