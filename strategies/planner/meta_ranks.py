"""Dry run of all ranks: each rank's part of a model, built by the strategies on the meta device.

A process group that only pretends (torch's `fake` backend) has as many ranks as share a stage's parameters; the code
that cuts, prunes and shards is that of training, so that what it makes can be held against the plan's formulas. Ranks
that differ in nothing but their number are built once: each pipeline rank, with its largest and its smallest shard.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from models.decoder import Decoder
from strategies.parallel.mesh import make_mesh
from strategies.pipeline_parallel import PipelineParallelStrategy
from strategies.planner.parameter_counts import rank_parameters
from strategies.planner.training_setup import TrainingSetup
from strategies.tensor_parallel import TensorParallelStrategy


@dataclass(frozen=True)
class View:
    """A rank as built and as planned.

    Attributes:
        pp_rank, shard_rank: where it is.
        blocks: numbers of its blocks, in order.
        built: numbers of parameters that it holds; planned: by formula.
    """

    pp_rank: int
    shard_rank: int
    blocks: tuple[int, ...]
    built: int
    planned: int


class _Module(nn.Module):
    """As much of a LightningModule as the strategies ask of one that holds a decoder."""

    def __init__(self, decoder: Decoder, sequence_length: int) -> None:
        super().__init__()
        self.decoder = decoder
        # Not a sub-module.
        self.__dict__["trainer"] = SimpleNamespace(datamodule=SimpleNamespace(sequence_length=sequence_length))

    def materialize(self, part: nn.Module, device: torch.device) -> None:
        """Nothing is allocated."""


def views(setup: TrainingSetup) -> Iterator[View]:
    """Every rank of the pipeline with its largest shards; then, with one block per stage, those with the smallest.

    Args:
        setup: the run, in a layout that the strategies accept.

    Raises:
        RuntimeError: within a process group, which this would replace.
    """
    if torch.distributed.is_initialized():
        raise RuntimeError("views of ranks make process groups of their own: not within one")
    sizes = setup.sizes
    seen: set[tuple[int, bool, bool]] = set()
    for shard_rank in sorted({0, sizes.dp_shard - 1}):
        with _pretended(sizes.dp_shard * sizes.tp, shard_rank * sizes.tp):
            # Replicas are all alike; the pipeline gets its rank from here.
            mesh = make_mesh("cpu", replace(sizes, pp=1, dp_replicate=1))
            for pp_rank in range(sizes.pp):
                # Blocks are all alike: once every rank has been seen whole, one of them shows how it is shared.
                short = setup if shard_rank == 0 else replace(setup, config=replace(setup.config, layers=setup.stages))
                held = rank_parameters(short, pp_rank)
                kind = (shard_rank, bool(held.embedding), bool(held.head))
                if shard_rank == 0 or kind not in seen:
                    yield _view(short, mesh, pp_rank, shard_rank)
                seen.add(kind)


@contextmanager
def _pretended(world: int, rank: int) -> Iterator[None]:
    torch.distributed.init_process_group("fake", store=FakeStore(), rank=rank, world_size=world)
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()


def _view(setup: TrainingSetup, mesh: DeviceMesh, pp_rank: int, shard_rank: int) -> View:
    with torch.device("meta"):
        decoder = Decoder(setup.config)
    strategy = _strategy(setup, mesh, pp_rank)
    strategy._lightning_module = _Module(decoder, setup.sequence_length)  # type: ignore[assignment]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Parallelize plan key")
        strategy.parallelize(decoder)
    held = rank_parameters(setup, pp_rank)
    built = sum(_local(parameter) for parameter in decoder.parameters())
    return View(
        pp_rank,
        shard_rank,
        tuple(int(name) for name in decoder.layers),
        built,
        held.shard(setup.sizes.tp, setup.sizes.dp_shard, shard_rank),
    )


def _local(parameter: nn.Parameter) -> int:
    return parameter.to_local().numel() if isinstance(parameter, DTensor) else parameter.numel()


def _strategy(setup: TrainingSetup, mesh: DeviceMesh, pp_rank: int) -> TensorParallelStrategy:
    """Strategy at a given rank of the pipeline; its mesh has the axes that share a stage."""
    further: dict[str, Any] = {
        "tensor_parallel_size": setup.sizes.tp,
        "activation_checkpointing": setup.checkpointing,
        "float8": setup.float8,
    }

    class Placed(PipelineParallelStrategy if setup.sizes.pp > 1 else TensorParallelStrategy):  # type: ignore[misc]
        root_device = torch.device("cpu")

        @property
        def my_stages(self) -> list[int]:
            return [stage for stage in range(self.stages) if self.owner(stage) == pp_rank]

    strategy: Any
    if setup.sizes.pp > 1:
        strategy = Placed(
            setup.sizes.pp, setup.schedule, setup.microbatches_per_batch, setup.stages_per_rank, **further
        )
    else:
        strategy = Placed(**further)
    strategy.sizes = setup.sizes
    strategy._device_mesh = mesh
    return strategy
