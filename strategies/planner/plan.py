"""Plan of one run: memory, step time, days, failures and price together."""

from dataclasses import asdict, dataclass
from typing import Any

from models.flops import matmul_parameters, palm_flops_per_token, parameters
from strategies.planner.hardware import Hardware
from strategies.planner.parameter_counts import rank_parameters
from strategies.planner.peak_memory import Memory, worst_rank
from strategies.planner.reliability import Reliability, Saving, reliability
from strategies.planner.step_time import StepTime, model_flops_of_step, step_time
from strategies.planner.training_setup import TrainingSetup

STATE_BYTES = 12
"""Of a parameter in a checkpoint: weight and two moments, float32."""


@dataclass(frozen=True)
class Plan:
    """Plan of a run: memory, time and price.

    Attributes:
        parameters: all; active: those that compute a token, input embedding and idle experts left out.
        flops_6nd: 6 N D of the whole run, N the active ones.
        flops: with attention, causal, of the whole run.
        rank: the worst one along the pipeline; memory: its bytes; limit: those of a device.
        time: of a step.
        tokens_per_second: of one device.
        utilization: model FLOP/s over the datasheet's; utilization_palm: in PaLM's convention.
        hours: of training; reliability: what is lost to failures.
        device_hours: of all devices, failures included; cost: at the hardware's price.
        every_steps: between checkpoints; None where the run says nothing and the advised interval is priced.
        saving: what a checkpoint costs.
    """

    parameters: int
    active: int
    flops_6nd: float
    flops: float
    rank: int
    memory: Memory
    limit: float
    time: StepTime
    tokens_per_second: float
    utilization: float
    utilization_palm: float
    hours: float
    reliability: Reliability
    device_hours: float
    cost: float
    every_steps: int | None
    saving: Saving

    @property
    def fits(self) -> bool:
        """Whether the worst rank's memory is enough."""
        return self.memory.total <= self.limit

    @property
    def days(self) -> float:
        """Of the whole run, failures included."""
        return self.hours / (1 - self.reliability.lost_share) / 24

    @property
    def advised_days(self) -> float:
        """Of the whole run, were it saved at the advised interval."""
        return self.hours / (1 - self.reliability.advised_share) / 24

    def as_json(self) -> dict[str, Any]:
        """Everything, for programs; bytes, seconds, hours, FLOPs."""
        return asdict(self) | {
            "fits": self.fits,
            "days": self.days,
            "advised_days": self.advised_days,
            "memory_total": self.memory.total,
            "step_seconds": self.time.total,
        }


def make_plan(
    setup: TrainingSetup, hardware: Hardware, asynchronous: bool = False, every_steps: int | None = None
) -> Plan:
    """The plan of a run in its layout.

    Args:
        setup: the run.
        hardware: of every device.
        asynchronous: checkpoints are written while training continues, and only their copy to the host's memory stands
            in its way (`strategies.parallel.saver.CheckpointSaver`), at the hardware's `host_bandwidth`.
        every_steps: between checkpoints, as `callbacks.Checkpoints` has it; None takes the interval that loses least.

    Raises:
        InputError: where failures come so often that the run gets nowhere.
    """
    rank, memory = worst_rank(setup, hardware.overhead)
    time = step_time(setup, hardware)
    devices = setup.sizes.world
    flops = model_flops_of_step(setup)
    peak = hardware.peak(setup.mixed, setup.float8)
    rate = setup.step_tokens / time.total / devices
    hours = setup.steps * time.total / 3600
    most = max(rank_parameters(setup, r).shard(setup.sizes.tp, setup.sizes.dp_shard) for r in range(setup.sizes.pp))
    writing = STATE_BYTES * most / hardware.storage_bandwidth
    still = STATE_BYTES * most / hardware.host_bandwidth if asynchronous else writing
    saving = Saving(still, still + writing if asynchronous else writing, time.total)
    interval = None if every_steps is None else every_steps * time.total
    failures = reliability(devices, hours, hardware.mtbf_hours, saving, hardware.restart_seconds, interval)
    device_hours = devices * hours / (1 - failures.lost_share)
    active = matmul_parameters(setup.config)
    return Plan(
        parameters=parameters(setup.config),
        active=active,
        flops_6nd=6.0 * active * setup.tokens,
        flops=flops * setup.steps,
        rank=rank,
        memory=memory,
        limit=hardware.memory,
        time=time,
        tokens_per_second=rate,
        utilization=flops / time.total / devices / peak,
        utilization_palm=rate * palm_flops_per_token(setup.config, setup.sequence_length) / peak,
        hours=hours,
        reliability=failures,
        device_hours=device_hours,
        cost=device_hours * hardware.price,
        every_steps=every_steps,
        saving=saving,
    )
