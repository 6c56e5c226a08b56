"""Device mesh of all ranks (pp, dp_replicate, dp_shard, cp, tp), with layouts checked before a process starts.

Five axes exist always, most of size 1: code that asks for an axis never has to ask first whether there is one. The
innermost, `tp`, talks most and so runs over neighboring ranks, the outermost, `pp`, talks least.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from common.errors import InputError

AXES = ("pp", "dp_replicate", "dp_shard", "cp", "tp")
"""Axes from the outermost to the innermost: pipeline, replicas, shards of parameters, context, tensor."""

ARGUMENTS = {
    "pp": "pipeline_parallel_size",
    "dp_replicate": "data_parallel_replicate_size",
    "dp_shard": "data_parallel_shard_size",
    "cp": "context_parallel_size",
    "tp": "tensor_parallel_size",
}
"""YAML name of each axis."""


@dataclass(frozen=True)
class MeshSizes:
    """Processes along each axis."""

    pp: int = 1
    dp_replicate: int = 1
    dp_shard: int = 1
    cp: int = 1
    tp: int = 1

    @property
    def world(self) -> int:
        """World size."""
        return self.pp * self.dp_replicate * self.dp_shard * self.cp * self.tp

    @property
    def data_parallel(self) -> int:
        """Data-parallel ranks: groups of processes that each see other samples."""
        return self.dp_replicate * self.dp_shard

    def data_parallel_rank(self, rank: int) -> int:
        """Data-parallel rank of a process."""
        return rank // (self.cp * self.tp) % self.data_parallel

    def __str__(self) -> str:
        larger = [f"{axis}={size}" for axis, size in asdict(self).items() if size > 1]
        return " x ".join(larger) or "one process"


def resolve_sizes(
    world: int, pp: int, dp_replicate: int, dp_shard: int | Literal["auto"], cp: int, tp: int
) -> MeshSizes:
    """Sizes whose product is the number of processes; `dp_shard="auto"` takes what the other axes leave.

    Raises:
        InputError: for a size below 1, a product that is not the number of processes, or context parallelism.
    """
    requested = {"pp": pp, "dp_replicate": dp_replicate, "dp_shard": dp_shard, "cp": cp, "tp": tp}
    for axis, size in requested.items():
        if size != "auto" and (not isinstance(size, int) or size < 1):
            raise InputError(f"{ARGUMENTS[axis]}={size}: must be at least 1")
    if cp > 1:
        raise InputError(
            f"context_parallel_size={cp}: not supported, torch's ring attention knows causal masks only and would let "
            "documents of a packed window see each other; set it to 1 and use tensor parallelism, whose sequence "
            "parallelism also divides activations by the sequence"
        )
    others = pp * dp_replicate * cp * tp
    if dp_shard == "auto":
        if world % others:
            raise InputError(
                f"{_product(requested)}: the product of all sizes, {others}, does not divide the {world} processes "
                f"(trainer.devices x trainer.num_nodes), change one of them"
            )
        dp_shard = world // others
    if others * dp_shard != world:
        raise InputError(
            f"{_product(requested)}: the product of all sizes, {others * dp_shard}, is not the {world} processes "
            "(trainer.devices x trainer.num_nodes), change one of them"
        )
    return MeshSizes(pp, dp_replicate, dp_shard, cp, tp)


def _product(sizes: dict[str, Any]) -> str:
    return " x ".join(f"{ARGUMENTS[axis]}={size}" for axis, size in sizes.items() if size not in (1, "auto")) or "sizes"


def check_divisible(config: Any, sequence_length: int | None, sizes: MeshSizes) -> None:
    """Refuse a decoder whose parts do not divide evenly over `tp`.

    Args:
        config: shape of the decoder, a `models.decoder.DecoderConfig`.
        sequence_length: tokens in a window, which sequence parallelism cuts; None when not known.
        sizes: the mesh.

    Raises:
        InputError: names the value, the axis and values that would do.
    """
    if sizes.tp > 1 and config.experts is not None:
        raise InputError(
            f"tensor_parallel_size={sizes.tp}: experts are not cut, spread them with data_parallel_shard_size"
        )
    divided = {
        name: getattr(config, name) for name in ("heads", "key_value_heads", "feed_forward_width", "vocabulary_size")
    }
    if sequence_length is not None:
        divided["sequence_length"] = sequence_length
    for name, value in divided.items():
        if value % sizes.tp:
            fits = [size for size in range(1, sizes.tp + 1) if value % size == 0]
            raise InputError(
                f"tensor_parallel_size={sizes.tp} does not divide {name}={value}: "
                f"choose one of {fits} or another {name}"
            )


def make_mesh(device_type: str, sizes: MeshSizes) -> DeviceMesh:
    """The mesh over all processes."""
    return init_device_mesh(device_type, tuple(asdict(sizes).values()), mesh_dim_names=AXES)
