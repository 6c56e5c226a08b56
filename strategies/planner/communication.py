"""Communication volume and time of each mesh axis: tensor-parallel, FSDP2, replicas and pipeline.

Volumes follow this project's strategies: parameters and gradients travel in float32 (no mixed-precision policy is given
to FSDP2), tensor parallelism gathers the norms' float32 outputs before autocast casts them, and what a row-parallel
product leaves is reduced in the product's own dtype. Times are those of rings: latency and volume over bandwidth.
"""

from dataclasses import dataclass
from typing import Literal

from strategies.planner.hardware import Hardware
from strategies.planner.parameter_counts import RankParameters, numel_on_rank
from strategies.planner.training_setup import TrainingSetup

Link = Literal["none", "link", "network"]
AXIS_ORDER = ("tp", "cp", "dp_shard", "dp_replicate", "pp")
"""From neighboring ranks outward, see `strategies.parallel.mesh.AXES`."""


@dataclass(frozen=True)
class Group:
    """Ranks along a mesh axis with the link between them.

    Attributes:
        size: number of ranks.
        link: link of the slowest hop.
        bandwidth: bytes per second and rank that a ring of them passes on.
        latency: seconds of a hop.
    """

    size: int
    link: Link
    bandwidth: float
    latency: float


def group_of(setup: TrainingSetup, hardware: Hardware, axis: str) -> Group:
    """The group of an axis: neighbors `stride` ranks apart, within a machine where size x stride fits into one.

    A ring through machines in which it has several ranks enters and leaves each by as many network cards, so that its
    bandwidth is theirs together, up to the link's.
    """
    stride = 1
    for inner in AXIS_ORDER[: AXIS_ORDER.index(axis)]:
        stride *= getattr(setup.sizes, inner)
    size = getattr(setup.sizes, axis)
    if size == 1:
        return Group(1, "none", float("inf"), 0.0)
    node = hardware.gpus_per_node
    link = hardware.link_bandwidth * hardware.link_share
    if size * stride <= node:
        return Group(size, "link", link, hardware.latency_link)
    inside = max(1, node // stride)
    network = hardware.network_bandwidth * hardware.network_share
    return Group(size, "network", min(link, inside * network), hardware.latency_network)


def gather_seconds(group: Group, volume: float) -> float:
    """Seconds of an all-gather or a reduce-scatter of `volume` bytes in all: (n - 1) / n x volume / bandwidth and a
    hop's latency for each doubling (Thakur et al. 2005, section 4; NCCL's trees and rings lie between).
    """
    if group.size == 1:
        return 0.0
    return (group.size - 1) / group.size * volume / group.bandwidth + group.latency * (group.size - 1).bit_length()


def reduce_seconds(group: Group, volume: float) -> float:
    """Seconds of an all-reduce: a reduce-scatter and an all-gather."""
    return 2 * gather_seconds(group, volume)


def tensor_bytes_of_block(setup: TrainingSetup) -> tuple[float, float]:
    """Bytes that all-gathers and reduce-scatters of a block carry in a micro-batch's forward and backward pass.

    Forward: two float32 gathers of [N, C], the norms' outputs, and two reduce-scatters of c-byte numbers. Backward the
    same volumes the other way round; recomputation repeats what lies before the products' results.
    """
    if setup.sizes.tp == 1:
        return 0.0, 0.0
    tokens, width, c = setup.microbatch_tokens, setup.config.width, setup.width_bytes
    forward = 2.0 * tokens * width * (4 + c)
    again = forward if setup.checkpointing != "none" else 0.0
    return forward, forward + again


def tensor_seconds_of_block(setup: TrainingSetup, hardware: Hardware) -> tuple[float, float]:
    """Seconds of those and of dispatch, forward and backward; nothing hides them: products wait for their input."""
    forward, backward = tensor_bytes_of_block(setup)
    if not forward:
        return 0.0, 0.0
    one = gather_seconds(group_of(setup, hardware, "tp"), forward / 4) * 4 + hardware.tensor_dispatch / 2
    return one, one * backward / forward


def hidden_bytes(setup: TrainingSetup) -> float:
    """Bytes that a stage sends to the next for a micro-batch: float32 hidden states, cut along the sequence."""
    return 4.0 * setup.microbatch_tokens * setup.config.width / setup.sizes.tp


def transfer_seconds(setup: TrainingSetup, hardware: Hardware) -> float:
    """Seconds from one stage's rank to the next's."""
    if setup.sizes.pp == 1:
        return 0.0
    group = group_of(setup, hardware, "pp")
    card = hardware.network_bandwidth * hardware.network_share
    bandwidth = min(group.bandwidth, card) if group.link == "network" else group.bandwidth
    return group.latency + hidden_bytes(setup) / bandwidth


@dataclass(frozen=True)
class DataParallel:
    """Bytes and seconds of what data-parallel ranks exchange in a step.

    Attributes:
        gathered: bytes of parameters that all-gathers carry.
        reduced: bytes of gradients reduce-scattered over shards; replicated: all-reduced over replicas.
        gather_block: seconds of one block's all-gather.
        gather_outside: seconds of that of what is in no block.
        reduce_block, reduce_outside: of their gradients, over both axes.
        gathers: all-gathers of each block in a step.
    """

    gathered: float
    reduced: float
    replicated: float
    gather_block: float
    gather_outside: float
    reduce_block: float
    reduce_outside: float
    gathers: int


def data_parallel(setup: TrainingSetup, hardware: Hardware, held: RankParameters) -> DataParallel:
    """FSDP2 as the strategies call it: without a pipeline a block is gathered for each forward and each backward pass,
    in a pipeline once per step; gradients are reduced once per step, after the last micro-batch.
    """
    shard, replicate = (group_of(setup, hardware, axis) for axis in ("dp_shard", "dp_replicate"))
    tp = setup.sizes.tp
    block = 4.0 * numel_on_rank(held.block, tp)
    outside = 4.0 * numel_on_rank(held.outside, tp)
    gathers = (1 if setup.sizes.pp > 1 else 2 * setup.microbatches) if shard.size > 1 else 0
    outside_gathers = (1 if setup.sizes.pp > 1 else setup.microbatches) if shard.size > 1 else 0

    def reduce(volume: float) -> float:
        return gather_seconds(shard, volume) + reduce_seconds(replicate, volume / shard.size)

    share = (shard.size - 1) / shard.size
    copies = 2 * (replicate.size - 1) / replicate.size / shard.size
    total = held.blocks * block + outside
    return DataParallel(
        gathered=share * (gathers * held.blocks * block + outside_gathers * outside),
        reduced=share * total,
        replicated=copies * total,
        gather_block=gather_seconds(shard, block),
        gather_outside=gather_seconds(shard, outside),
        reduce_block=reduce(block),
        reduce_outside=reduce(outside),
        gathers=gathers,
    )
