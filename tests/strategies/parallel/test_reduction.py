"""Reductions without a barrier give the bits of Lightning's, which has one."""

from typing import Any

import pytest
import torch
import torch.distributed
from lightning.fabric.utilities.distributed import _sync_ddp

from strategies.parallel.reduction import reduce_over_ranks
from tests.helpers.distributed import run_ranks

OPERATIONS = ("mean", "avg", "sum", "max")


def both() -> list[tuple[Any, Any, int]]:
    """Each reduction by Lightning and by this project, and the barriers there were so far in this project's."""
    torch.distributed.init_process_group("gloo")
    rank, found, barriers = torch.distributed.get_rank(), [], []
    generator = torch.Generator().manual_seed(rank)
    values = (torch.randn(5, generator=generator), torch.randn((), generator=generator), torch.arange(4) + rank)
    original = torch.distributed.barrier
    for operation in OPERATIONS:
        for value in values:
            theirs = _sync_ddp(value.clone(), reduce_op=operation)
            torch.distributed.barrier = lambda *_, **__: barriers.append(1)
            ours = reduce_over_ranks(value.clone(), None, operation)
            torch.distributed.barrier = original
            found.append((theirs.tolist(), ours.tolist(), len(barriers)))
    torch.distributed.destroy_process_group()
    return found


@pytest.mark.distributed
def test_two_ranks_reduce_to_the_same_bits_without_a_barrier() -> None:
    ranks = run_ranks(2, both)
    assert ranks[0] == ranks[1]
    assert len(ranks[0]) == 12
    for theirs, ours, barriers in ranks[0]:
        assert ours == theirs
        assert barriers == 0


def test_one_process_has_nothing_to_reduce() -> None:
    value = torch.tensor(3.0)
    assert reduce_over_ranks(value, None, "mean") is value
