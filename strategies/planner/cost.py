"""The plan of one run: everything the other files know, put together."""

from dataclasses import asdict, dataclass
from typing import Any

from models.flops import matmul_parameters, palm_flops_a_token, parameters
from strategies.planner.hardware import Hardware
from strategies.planner.memory import Memory, worst_rank
from strategies.planner.parameters import rank_parameters
from strategies.planner.reliability import Reliability, reliability
from strategies.planner.setup import TrainingSetup
from strategies.planner.step_time import StepTime, model_flops_of_step, step_time

STATE_BYTES = 12
"""Of a parameter in a checkpoint: weight and two moments, float32."""


@dataclass(frozen=True)
class Plan:
    """What a run needs, how long it takes and what it costs.

    Attributes:
        parameters: all; active: those that compute a token, input embedding and idle experts left out.
        flops_6nd: 6 N D of the whole run, N the active ones.
        flops: with attention, causal, of the whole run.
        rank: the worst one along the pipeline; memory: its bytes; limit: those of a device.
        time: of a step.
        tokens_a_second: of one device.
        utilisation: model FLOP/s over the datasheet's; utilisation_palm: in PaLM's convention.
        hours: of training; reliability: what is lost to failures.
        device_hours: of all devices, failures included; cost: at the hardware's price.
        save_seconds: of a checkpoint.
    """

    parameters: int
    active: int
    flops_6nd: float
    flops: float
    rank: int
    memory: Memory
    limit: float
    time: StepTime
    tokens_a_second: float
    utilisation: float
    utilisation_palm: float
    hours: float
    reliability: Reliability
    device_hours: float
    cost: float
    save_seconds: float

    @property
    def fits(self) -> bool:
        """Whether the worst rank's memory is enough."""
        return self.memory.total <= self.limit

    @property
    def days(self) -> float:
        """Of the whole run, failures included."""
        return self.hours / (1 - self.reliability.lost_share) / 24

    def as_json(self) -> dict[str, Any]:
        """Everything, for programs; bytes, seconds, hours, FLOPs."""
        return asdict(self) | {
            "fits": self.fits,
            "days": self.days,
            "memory_total": self.memory.total,
            "step_seconds": self.time.total,
        }


def make_plan(setup: TrainingSetup, hardware: Hardware, asynchronous: bool = False) -> Plan:
    """The plan of a run in its layout.

    Args:
        setup: the run.
        hardware: of every device.
        asynchronous: checkpoints are written while training goes on, and only their copy stands in its way.
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
    # A copy to the host goes over the bus that also feeds the network card.
    save = STATE_BYTES * most / hardware.network_bandwidth if asynchronous else writing
    # One checkpoint at a time, and none within a step.
    least = max(time.total, writing)
    failures = reliability(devices, hours, hardware.mtbf_hours, save, hardware.restart_seconds, least)
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
        tokens_a_second=rate,
        utilisation=flops / time.total / devices / peak,
        utilisation_palm=rate * palm_flops_a_token(setup.config, setup.sequence_length) / peak,
        hours=hours,
        reliability=failures,
        device_hours=device_hours,
        cost=device_hours * hardware.price,
        save_seconds=save,
    )
