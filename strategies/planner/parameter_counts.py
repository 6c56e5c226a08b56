"""How many numbers of the model each rank holds, tensor by tensor, since shards are padded tensor by tensor.

The list repeats what the modules build and `strategies.parallel.tensor_parallel_plan` cuts; `fit --dry-run` and a test
hold it against them.
"""

import functools
import math
from typing import NamedTuple

from models.config import DecoderConfig
from strategies.parallel.pipeline_stages import layer_costs, split_layers
from strategies.parallel.schedules import SCHEDULES
from strategies.planner.training_setup import TrainingSetup


class Cut(NamedTuple):
    """A parameter: its shape, the dimension that tensor parallelism cuts (None: a copy each), and whether it is cast
    to bfloat16 under autocast, as every factor of a block's product is.
    """

    shape: tuple[int, ...]
    dimension: int | None = None
    is_cast: bool = False

    def on_a_rank(self, tp: int) -> tuple[int, ...]:
        """Its shape after tensor parallelism."""
        return tuple(size // tp if i == self.dimension else size for i, size in enumerate(self.shape))

    def whole(self, tp: int) -> int:
        """Numbers on a rank before sharding."""
        return math.prod(self.on_a_rank(tp))

    def shard(self, tp: int, shards: int, rank: int = 0) -> int:
        """Numbers on one of `shards` ranks: dimension 0 in equal chunks, the last ones smaller or empty (FSDP2)."""
        first, *rest = self.on_a_rank(tp)
        chunk = -(-first // shards)
        return max(0, min(chunk, first - rank * chunk)) * math.prod(rest)


def block_parameters(config: DecoderConfig) -> list[Cut]:
    """Of one block."""
    assert config.head_width is not None
    queries, keys = config.heads * config.head_width, config.key_value_heads * config.head_width
    width, hidden = config.width, config.feed_forward_width
    found = [
        Cut((width,)),
        Cut((queries, width), 0, True),
        Cut((keys, width), 0, True),
        Cut((keys, width), 0, True),
        Cut((width, queries), 1, True),
        Cut((width,)),
    ]
    if config.query_key_value_bias:
        found += [Cut((queries,), 0, True), Cut((keys,), 0, True), Cut((keys,), 0, True)]
    if config.query_key_norm:
        found += [Cut((config.head_width,))] * 2
    if config.experts is None:
        return [*found, Cut((hidden, width), 0, True), Cut((width, hidden), 1, True), Cut((hidden, width), 0, True)]
    count = config.experts.num_experts
    experts = [Cut((count, hidden, width), None, True), Cut((count, width, hidden), None, True)]
    return [*found, Cut((count, width), None, True), *experts, experts[0]]


def embedding_parameters(config: DecoderConfig) -> list[Cut]:
    """The matrix of the first stage."""
    return [Cut((config.vocabulary_size, config.width), 0)]


def head_parameters(config: DecoderConfig, tied_here: bool) -> list[Cut]:
    """The last norm and the output matrix, which is the embedding itself where both are on one rank."""
    norm = Cut((config.width,))
    return [norm] if tied_here else [norm, Cut((config.vocabulary_size, config.width), 0)]


class RankParameters(NamedTuple):
    """What a rank holds: blocks of each of its stages, and whether it has the embedding and the head.

    Attributes:
        stages: number of blocks by stage.
        embedding, head: parameters outside of blocks.
        block: of one block.
    """

    stages: dict[int, int]
    embedding: list[Cut]
    head: list[Cut]
    block: list[Cut]

    @property
    def blocks(self) -> int:
        """Blocks of all stages."""
        return sum(self.stages.values())

    @property
    def outside(self) -> list[Cut]:
        """What is in no block."""
        return self.embedding + self.head

    def whole(self, tp: int) -> int:
        """Numbers before sharding."""
        return self.blocks * sum(p.whole(tp) for p in self.block) + sum(p.whole(tp) for p in self.outside)

    def shard(self, tp: int, shards: int, rank: int = 0) -> int:
        """Numbers on one of the ranks that share them."""
        block = sum(p.shard(tp, shards, rank) for p in self.block)
        return self.blocks * block + sum(p.shard(tp, shards, rank) for p in self.outside)


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
    """What a rank of the pipeline holds.

    Args:
        setup: the run.
        pp_rank: along the pipeline.
    """
    layers = layers_of_stages(setup)
    pp = setup.sizes.pp
    mine = {s: layers[s] for s in range(setup.stages) if SCHEDULES[setup.schedule].owner(s, pp) == pp_rank}
    first, last = 0 in mine, setup.stages - 1 in mine
    # A pipeline keeps two copies of a tied matrix, also where both ends of a V are on one rank.
    one_matrix = setup.config.tied_embeddings and pp == 1
    return RankParameters(
        mine,
        embedding_parameters(setup.config) if first else [],
        head_parameters(setup.config, one_matrix) if last else [],
        block_parameters(setup.config),
    )
