"""Hardware description: a machine's datasheet rates and the share of them that programs reach.

Two numbers for everything, because a plan made of datasheets alone promises half the days it will take. The shares are
of a program's kernels, not of a whole training run: idle time and exposed communication are counted apart.
"""

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import yaml

from common.errors import InputError

MAY_BE_ZERO = {
    "float8_flops", "overhead", "latency_link", "latency_network", "tensor_dispatch", "price", "restart_seconds",
}  # fmt: skip
"""No 8-bit units, or nothing to wait or pay for; by all others something is divided."""


PARTS = ("datasheet", "measured", "operation", "sources")
"""Of a file, beside `name` and `device`."""


@dataclass(frozen=True)
class Hardware:
    """Hardware of one kind of machine; rates are per device and second, in one direction.

    Attributes:
        name: as people call it.
        device: `cuda` or `cpu`.
        memory: bytes.
        overhead: bytes that a process needs beside tensors: context, communication, fragmentation.
        gpus_per_node: devices that the fast link joins.
        bf16_flops, float32_flops, float8_flops: dense matrix products of the datasheet; float8 is 0 for none.
        memory_bandwidth: bytes.
        link_bandwidth: bytes to the others of a machine.
        network_bandwidth: bytes to other machines.
        latency_link, latency_network: seconds of a message of no bytes.
        host_bandwidth: bytes copied from a device into its host's memory, all devices of a machine at once, into pages
            that are not pinned, as an asynchronous checkpoint does it.
        storage_bandwidth: bytes that a device's share of a checkpoint is written with.
        matmul_share, attention_share, memory_share, link_share, network_share: of these rates that are reached.
        tensor_dispatch: seconds of DTensor's Python in a tensor-parallel block's forward and backward pass; 0 where a
            device's kernels hide it, as long as they take longer.
        mtbf_hours: of one device, its host and its share of the network: hours between interruptions of a run.
        price: of a device for an hour, in any currency.
        restart_seconds: from an interruption to the next step.
        sources: of all of it, by name.
    """

    name: str
    device: Literal["cuda", "cpu"]
    memory: float
    overhead: float
    gpus_per_node: int
    bf16_flops: float
    float32_flops: float
    float8_flops: float
    memory_bandwidth: float
    link_bandwidth: float
    network_bandwidth: float
    latency_link: float
    latency_network: float
    host_bandwidth: float
    storage_bandwidth: float
    matmul_share: float
    attention_share: float
    memory_share: float
    link_share: float
    network_share: float
    tensor_dispatch: float
    mtbf_hours: float
    price: float
    restart_seconds: float
    sources: dict[str, str]

    def __post_init__(self) -> None:
        if self.device not in ("cuda", "cpu"):
            raise InputError(f"hardware {self.name}: device={self.device} must be cuda or cpu")
        for field in fields(self):
            if field.type not in (int, float):
                continue
            value, name = getattr(self, field.name), f"hardware {self.name}: {field.name}"
            if not isinstance(value, int | float) or isinstance(value, bool):
                raise InputError(f"{name}={value!r} must be a number")
            if not math.isfinite(value):
                raise InputError(f"{name}={value} must be a finite number")
            if field.type is int and not isinstance(value, int):
                raise InputError(f"{name}={value} must be a whole number without a point")
            if not value >= 0:
                raise InputError(f"{name}={value} must not be negative")
            if not value and field.name not in MAY_BE_ZERO:
                raise InputError(f"{name}={value} must be above 0: a plan divides by it")
            if field.name.endswith("_share") and value > 1:
                raise InputError(f"{name}={value} must lie in (0, 1]")

    def peak(self, mixed: bool, float8: bool = False) -> float:
        """FLOP/s of the datasheet that utilization is measured against."""
        if float8 and not self.float8_flops:
            raise InputError(f"float8=true: {self.name} multiplies no 8-bit numbers, set it to false")
        return self.float8_flops if float8 else self.bf16_flops if mixed else self.float32_flops


def read_hardware(path: Path, **changes: Any) -> Hardware:
    """Hardware read from a file of configs/hardware.

    Args:
        path: YAML with `datasheet`, `measured`, `operation` and `sources`.
        changes: values other than the file's; None leaves them.

    Raises:
        InputError: when there is no such file, or it says too little or too much.
    """
    if not path.is_file():
        known = sorted(file.stem for file in path.parent.glob("*.yaml"))
        raise InputError(f"hardware={path}: no such file, take one of {', '.join(known) or 'configs/hardware'}")
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"hardware={path}: {' '.join(str(error).split())}") from error
    for part in PARTS:
        if not isinstance(found, dict) or not isinstance(found.get(part), dict):
            raise InputError(f"hardware={path}: it has no {part}, copy a file of configs/hardware and change that")
    values = {key: value for key, value in found.items() if key not in PARTS} | {"sources": found["sources"]}
    for part in PARTS[:-1]:
        values |= {key: _number(value) for key, value in found[part].items()}
    wanted = {field.name for field in fields(Hardware)}
    if missing := ", ".join(sorted(wanted - values.keys())):
        raise InputError(f"hardware={path}: no {missing} in it, add it as the files of configs/hardware have it")
    if unknown := ", ".join(sorted(str(key) for key in values.keys() - wanted)):
        raise InputError(f"hardware={path}: {unknown} is nothing that a plan reads, take it out")
    return Hardware(**values | {key: value for key, value in changes.items() if value is not None})


def _number(value: Any) -> Any:
    """YAML takes 1e9 for text; other text is refused with the name of its key."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
