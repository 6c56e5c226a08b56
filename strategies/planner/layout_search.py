"""Layout search: the fastest parallel layout that fits, among all that the strategies would run.

Complete enumeration of a few thousand candidates, cheapest checks first, instead of a clever search: the user can
see why any layout is not the best. The strategies themselves refuse a candidate, so that a new rule there holds here at
once.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

from common.errors import InputError
from strategies.parallel.activation_checkpointing import ActivationCheckpointing
from strategies.parallel.mesh import MeshSizes
from strategies.parallel.schedules import SCHEDULES
from strategies.pipeline_parallel import PipelineParallelStrategy
from strategies.planner.hardware import Hardware
from strategies.planner.peak_memory import Memory, worst_rank
from strategies.planner.step_time import StepTime, least_seconds, step_time
from strategies.planner.training_setup import TrainingSetup
from strategies.tensor_parallel import TensorParallelStrategy

MODES: tuple[ActivationCheckpointing, ...] = ("none", "selective", "full")


@dataclass(frozen=True)
class Candidate:
    """Candidate layout with its memory and step time.

    Attributes:
        setup: the run in this layout.
        memory: of its worst rank.
        time: of a step; None where it does not fit.
    """

    setup: TrainingSetup
    memory: Memory
    time: StepTime | None

    @property
    def seconds(self) -> float:
        """Seconds of a step."""
        assert self.time is not None
        return self.time.total

    def name(self) -> str:
        """Layout in one line."""
        setup = self.setup
        parts = [str(setup.sizes), f"micro-batch {setup.rows // setup.microbatches_per_batch}", setup.checkpointing]
        if setup.sizes.pp > 1:
            parts.insert(1, f"{setup.schedule} x {setup.microbatches}")
        return ", ".join(parts + (["compiled"] if setup.compiled else []))


@dataclass(frozen=True)
class Found:
    """Result of a layout search.

    Attributes:
        best: fastest first.
        too_large: those that fit nowhere, smallest first.
        tried: number of layouts that the strategies accept.
        refused: number of layouts that they refuse, by reason.
        limit: bytes of a device.
    """

    best: list[Candidate]
    too_large: list[Candidate]
    tried: int
    refused: dict[str, int]
    limit: float


def refusal(setup: TrainingSetup) -> str | None:
    """Reason why the strategies refuse a layout; None where they run it.

    Args:
        setup: the run in this layout.
    """
    sizes = setup.sizes
    further: dict[str, Any] = {
        "tensor_parallel_size": sizes.tp,
        "data_parallel_shard_size": sizes.dp_shard,
        "data_parallel_replicate_size": sizes.dp_replicate,
        "context_parallel_size": sizes.cp,
        "activation_checkpointing": setup.checkpointing,
        "compile_backend": "inductor" if setup.compiled else None,
        "float8": setup.float8,
    }
    strategy: TensorParallelStrategy
    if sizes.pp > 1:
        strategy = PipelineParallelStrategy(
            sizes.pp, setup.schedule, setup.microbatches_per_batch, setup.stages_per_rank, **further
        )
    else:
        strategy = TensorParallelStrategy(**further)
    strategy.num_nodes, strategy.parallel_devices, strategy.cluster_environment = 1, [None] * sizes.world, None  # type: ignore[list-item]
    trainer = SimpleNamespace(
        lightning_module=SimpleNamespace(config=setup.config),
        datamodule=SimpleNamespace(batch_sizes=lambda: setup.batch_sizes, sequence_length=setup.sequence_length),
        accumulate_grad_batches=setup.accumulate,
    )
    try:
        strategy.preflight(trainer)
    except InputError as error:
        return str(error)
    return None


def candidates(setup: TrainingSetup, hardware: Hardware, devices: int) -> Iterator[TrainingSetup]:
    """Layouts of the same optimizer step on a number of devices.

    Tensor parallelism stays within a machine, whose link it needs. Micro-batches are powers of two of windows. Data are
    sharded over all ranks, within a machine with copies over machines (HSDP), or not at all. Smaller batches at first
    keep the windows of their steps too.

    Args:
        setup: the run; its windows per step are kept.
        hardware: gives the size of a machine.
        devices: their number.
    """
    shares = setup.accumulate * setup.sizes.data_parallel
    windows = setup.rows * shares
    every = math.gcd(*setup.batch_sizes) * shares
    powers = [2**i for i in range(devices.bit_length()) if devices % 2**i == 0]
    for tp, pp in itertools.product(powers, powers):
        if tp > hardware.gpus_per_node or devices % (tp * pp) or pp > setup.config.layers:
            continue
        if every % (dp := devices // (tp * pp)):
            continue
        for shard in sorted({dp, max(1, hardware.gpus_per_node // tp), 1}, reverse=True):
            if dp % shard or shard > dp:
                continue
            sizes = MeshSizes(pp, dp // shard, shard, 1, tp)
            # The last is the smallest that leaves every smaller size whole.
            for micro in sorted({1, 2, 4, 8, 16, windows // every}):
                count, rest = divmod(windows // dp, micro)
                # A pipeline cuts the batches itself, and its strategy says which it cannot cut.
                accumulate = 1 if pp > 1 else count
                if rest or every % (dp * accumulate):
                    continue
                warmup = tuple((size * shares // (dp * accumulate), steps) for size, steps in setup.warmup_batches)
                yield from _modes(replace(setup, warmup_batches=warmup), sizes, micro, count)


def _modes(setup: TrainingSetup, sizes: MeshSizes, micro: int, count: int) -> Iterator[TrainingSetup]:
    """Every schedule, checkpointing and compilation of a mesh."""
    compiled = [setup.compiled] if sizes.tp == 1 else [False]
    if sizes.pp == 1:
        for mode, compile_ in itertools.product(MODES, compiled):
            yield replace(
                setup,
                sizes=sizes,
                rows=micro,
                microbatches_per_batch=1,
                accumulate=count,
                checkpointing=mode,
                compiled=compile_,
                schedule="1f1b",
                stages_per_rank=1,
            )
        return
    choices = [(schedule, stages) for schedule in SCHEDULES.values() for stages in schedule.searched_stages_per_rank]
    for (schedule, stages), mode in itertools.product(choices, MODES):
        yield replace(
            setup, sizes=sizes, rows=micro * count, microbatches_per_batch=count, accumulate=1, checkpointing=mode,
            compiled=compiled[0] and not schedule.splits_backward, schedule=schedule.name, stages_per_rank=stages,
        )  # fmt: skip


def search(setup: TrainingSetup, hardware: Hardware, devices: int, limit: float | None = None, keep: int = 5) -> Found:
    """The fastest layouts.

    Args:
        setup: the run; its windows per step are kept.
        hardware: of every device.
        devices: their number.
        limit: bytes of a device; by default all it has.
        keep: layouts to return, and of those that do not fit.

    Raises:
        InputError: when no layout is accepted.
    """
    limit = hardware.memory if limit is None else limit
    refused: dict[str, int] = {}
    fitting, too_large, tried = [], [], 0
    for candidate in candidates(setup, hardware, devices):
        reason = refusal(candidate)
        if reason is not None:
            refused[reason] = refused.get(reason, 0) + 1
            continue
        tried += 1
        _, memory = worst_rank(candidate, hardware.overhead)
        if memory.total > limit:
            too_large.append(Candidate(candidate, memory, None))
        else:
            fitting.append(Candidate(candidate, memory, None))
    if not tried:
        among = " and all windows of batch_size_warmup" if setup.warmup_batches else ""
        reason = max(refused, key=lambda r: refused[r]) if refused else f"no layout's share divides both{among}"
        windows = setup.step_tokens // setup.sequence_length
        more = (
            f"; data parallelism alone would need {devices} windows, give fewer devices or a larger batch_size"
            if devices > windows
            else ""
        )
        raise InputError(
            f"devices={devices} with {windows} windows per step: no layout is accepted{more}; most often because: "
            f"{reason}"
        )
    # Slower in kernels alone than the last of those kept is slower in total: the schedule need not be replayed.
    bounds = sorted(((least_seconds(c.setup, hardware), i) for i, c in enumerate(fitting)))
    timed: list[Candidate] = []
    for bound, index in bounds:
        if len(timed) >= keep and bound > timed[keep - 1].seconds:
            break
        chosen = fitting[index]
        timed.append(replace(chosen, time=step_time(chosen.setup, hardware)))
        timed.sort(key=lambda c: (c.seconds, c.memory.total))
    too_large.sort(key=lambda c: c.memory.total)
    return Found(timed[:keep], too_large[:keep], tried, refused, limit)


def why_slower(best: Candidate, other: Candidate) -> str:
    """Largest reason why a layout is slower than the best one."""
    assert best.time is not None
    assert other.time is not None
    names = ("compute", "tensor", "data", "pipeline", "optimizer")
    more = {name: getattr(other.time, name) - getattr(best.time, name) for name in names}
    worst = max(more, key=lambda name: more[name])
    words = {
        "compute": "recomputes more" if other.setup.checkpointing != best.setup.checkpointing else "slower kernels",
        "tensor": "waits for tensor-parallel messages",
        "data": "waits for parameters and gradients",
        "pipeline": "idles in the pipeline",
        "optimizer": "updates more parameters per rank",
    }
    slower = other.seconds / best.seconds - 1
    if slower < 5e-4:
        return "as fast, needs more memory"
    return f"{slower:.1%} slower: {words[worst]} (+{more[worst]:.2f} s)"
