"""Shares of this CPU's peak rates that kernels and messages reach: the `measured` part of configs/hardware/cpu.yaml.

    python -m benchmarks.cpu_shares

One thread a process, float32, the shapes of the decoder of 31 million parameters that `benchmarks.plan_verify` trains.
Products and attention alone, then a whole block, whose remainder is what only reads and writes, and the update of the
optimizer; all-gathers and reduce-scatters between two processes over gloo, and what DTensor's dispatch adds to a block.
Medians of several repeats; shares are of the best square product found just before and of the bandwidths in the file.
Result: cpu_shares.json.
"""

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor.parallel import parallelize_module
from torch.nn import functional

from commands.plan.setup import setup_of
from models.attention import AttentionPattern, attend
from models.decoder import DecoderBlock
from models.device import measured_matmul_peak
from models.optimizers.adamw import AdamW
from strategies.parallel.tensor_parallel_plan import block_plan
from strategies.planner.step_time import block_flops, block_traffic
from tests.helpers.distributed import run_ranks
from tests.helpers.planner import CPU, configuration

REPEATS = 30
RESULT = Path(__file__).with_suffix(".json")


def seconds(function: Callable[[], object], repeats: int = REPEATS) -> float:
    """Median, after three runs that warm up."""
    times = []
    for _ in range(repeats + 3):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times[3:])


def forward_and_backward(function: Callable[..., Tensor], *inputs: Tensor) -> Callable[[], object]:
    """Of a result whose gradient is itself."""

    def run() -> object:
        result = function(*inputs)
        return torch.autograd.grad(result, inputs, result)

    return run


def compute_shares() -> dict[str, float]:
    """Of products, attention, and what reads and writes."""
    torch.set_num_threads(1)
    setup = setup_of(configuration(Path(), 1, "strategies.TensorParallelStrategy", {}), CPU)
    shape, tokens = setup.config, setup.microbatch_tokens
    assert shape.head_width is not None
    peak = measured_matmul_peak(torch.device("cpu"), torch.float32)
    flops, attention_flops = block_flops(setup)
    keys = shape.key_value_heads * shape.head_width
    sizes = [(shape.width, shape.width), (shape.width, keys), (shape.width, keys), (shape.width, shape.width)]
    sizes += [(shape.width, shape.feed_forward_width)] * 2 + [(shape.feed_forward_width, shape.width)]
    products = sum(
        seconds(
            forward_and_backward(
                functional.linear, torch.randn(tokens, a, requires_grad=True), torch.randn(b, a, requires_grad=True)
            )
        )
        for a, b in sizes
    )
    rows = tokens // setup.sequence_length
    queries, key, value = (
        torch.randn(rows, setup.sequence_length, heads, shape.head_width, requires_grad=True)
        for heads in (shape.heads, shape.key_value_heads, shape.key_value_heads)
    )
    attention = seconds(forward_and_backward(attend, queries, key, value))
    block = DecoderBlock(shape)
    x = torch.randn(rows, setup.sequence_length, shape.width, requires_grad=True)
    layout = AttentionPattern.causal(x[..., 0].long(), shape, torch.float32)
    whole = seconds(forward_and_backward(lambda x, *_: block(x, layout), x, *block.parameters()))
    optimizer = AdamW().build((str(i), p) for i, p in enumerate(block.parameters()))
    for parameter in block.parameters():
        parameter.grad = torch.randn_like(parameter)

    def update() -> None:
        torch.nn.utils.clip_grad_norm_(block.parameters(), 1.0)
        optimizer.step()

    numbers = sum(parameter.numel() for parameter in block.parameters())
    moved = 3 * block_traffic(setup) + 40 * numbers
    return {
        "matmul_share": 3 * flops / products / peak,
        "attention_share": 3.5 * attention_flops / attention / peak,
        "memory_share": moved / (whole - products - attention + seconds(update)) / CPU.memory_bandwidth,
    }


def messages() -> tuple[float, float]:
    """Seconds of a small all-gather, and bytes a second of gathers and reductions of a block's size in both
    directions, as `strategies.planner.communication` counts them.
    """
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    world = torch.distributed.get_world_size()

    def gather(part: Tensor, whole: Tensor) -> None:
        torch.distributed.all_gather_into_tensor(whole, part)

    small, large = (torch.randn(n) for n in (64, 2**19))
    latency = seconds(lambda: gather(small, torch.empty(world * len(small))), 200)
    into = torch.empty(world * len(large))
    times = [
        seconds(lambda: gather(large, into)),
        seconds(lambda: torch.distributed.reduce_scatter_tensor(large, into)),
    ]
    return latency, statistics.mean(len(large) * 4 / (duration - latency) for duration in times)


def dispatch() -> float:
    """Seconds that a tensor-parallel block takes longer than a plain one where there is next to nothing to compute, two
    tokens, without the eight exchanges of its forward and backward pass.
    """
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    shape = setup_of(configuration(Path(), 1, "strategies.TensorParallelStrategy", {}), CPU).config
    layout = AttentionPattern.causal(torch.zeros(1, 2, dtype=torch.long), shape, torch.float32)
    small = torch.randn(1, 1, shape.width)

    def block_seconds(block: nn.Module, tokens: int) -> float:
        x = torch.randn(1, tokens, shape.width, requires_grad=True)
        return seconds(lambda: block(x, layout).sum().backward(), 100)

    plain = block_seconds(DecoderBlock(shape), 2)
    cut = parallelize_module(DecoderBlock(shape), init_device_mesh("cpu", (2,)), block_plan(shape))
    whole = torch.empty(2, 1, shape.width)
    exchange = seconds(lambda: torch.distributed.all_gather_into_tensor(whole, small), 200)
    return block_seconds(cut, 1) - plain - 8 * exchange


def main() -> None:
    """Measure, print and record."""
    found = compute_shares()
    (latency, bandwidth), *_ = run_ranks(2, messages)
    found["tensor_dispatch"] = max(run_ranks(2, dispatch))
    found |= {"link_share": bandwidth / CPU.link_bandwidth, "latency_link": latency}
    rounded = {name: float(f"{value:.2g}") for name, value in found.items()}
    print(json.dumps(rounded, indent=1))
    RESULT.write_text(json.dumps(rounded, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
