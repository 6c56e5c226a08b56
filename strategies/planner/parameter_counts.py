"""Parameters per rank, counted tensor by tensor, since FSDP2 pads shards tensor by tensor.

The tensors are those of `models.anatomy`; nothing is built, so that a plan for thousands of GPUs costs milliseconds.
`fit --dry-run` and a test hold the counts against modules cut by the strategies.
"""

import functools
from collections.abc import Iterable
from typing import NamedTuple

from models.anatomy import TensorSpec, block_tensors, embedding_tensors, head_tensors
from strategies.parallel.pipeline_stages import layer_costs, split_layers
from strategies.parallel.schedules import SCHEDULES
from strategies.planner.training_setup import TrainingSetup


def numel_on_rank(tensors: Iterable[TensorSpec], tp: int) -> int:
    """Numbers of some tensors on each rank of a tensor-parallel group, before sharding."""
    return sum(tensor.numel_on_rank(tp) for tensor in tensors)


class RankParameters(NamedTuple):
    """Parameters of a rank: blocks of each of its stages, and the embedding and the head where it has them.

    Attributes:
        stages: number of blocks by stage.
        embedding, head: parameters outside of blocks.
        block: of one block.
    """

    stages: dict[int, int]
    embedding: tuple[TensorSpec, ...]
    head: tuple[TensorSpec, ...]
    block: tuple[TensorSpec, ...]

    @property
    def blocks(self) -> int:
        """Blocks of all stages."""
        return sum(self.stages.values())

    @property
    def outside(self) -> tuple[TensorSpec, ...]:
        """Tensors outside of blocks."""
        return self.embedding + self.head

    def whole(self, tp: int) -> int:
        """Numbers before sharding."""
        return self.blocks * numel_on_rank(self.block, tp) + numel_on_rank(self.outside, tp)

    def shard(self, tp: int, shards: int, rank: int = 0) -> int:
        """Numbers on one of the ranks that share them."""
        block = sum(tensor.numel_of_shard(tp, shards, rank) for tensor in self.block)
        return self.blocks * block + sum(tensor.numel_of_shard(tp, shards, rank) for tensor in self.outside)


def layers_of_stages(setup: TrainingSetup) -> list[int]:
    """Blocks in each stage, as the strategy cuts them."""
    if setup.stages == 1:
        return [setup.config.layers]
    return list(_split(tuple(layer_costs(setup.config, setup.sequence_length)), setup.stages))


@functools.lru_cache(maxsize=1024)
def _split(costs: tuple[float, ...], stages: int) -> tuple[int, ...]:
    """A search asks for the same few cuts again and again."""
    return tuple(len(part) for part in split_layers(list(costs), stages))


def rank_parameters(setup: TrainingSetup, pp_rank: int = 0) -> RankParameters:
    """Parameters of a rank of the pipeline.

    Args:
        setup: the run.
        pp_rank: along the pipeline.
    """
    layers = layers_of_stages(setup)
    pp = setup.sizes.pp
    mine = {s: layers[s] for s in range(setup.stages) if SCHEDULES[setup.schedule].owner(s, pp) == pp_rank}
    first, last = 0 in mine, setup.stages - 1 in mine
    # A pipeline keeps two copies of a tied matrix, also where both ends of a V are on one rank.
    head = head_tensors(setup.config)
    if setup.config.tied_embeddings and pp == 1:
        head = tuple(tensor for tensor in head if tensor.name != "output.weight")
    return RankParameters(
        mine,
        embedding_tensors(setup.config) if first else (),
        head if last else (),
        block_tensors(setup.config),
    )
