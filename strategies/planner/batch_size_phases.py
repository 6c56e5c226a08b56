"""Plan of a run with batch-size warm-up: hours, FLOPs and costs over all its batch sizes.

Memory, the step and its utilization are those of the full size, which most of the run has; what adds up over the run is
summed over its sizes, because a smaller batch takes more than its share of the time: gathers of parameters, the
optimizer and a pipeline's ends are the same for it.
"""

from dataclasses import replace

from strategies.planner.hardware import Hardware
from strategies.planner.plan import Plan
from strategies.planner.step_time import model_flops_of_step, step_time
from strategies.planner.training_setup import TrainingSetup


def over_batch_sizes(full: Plan, setup: TrainingSetup, hardware: Hardware) -> Plan:
    """A plan of a run with the hours, FLOPs, failures and costs of all its batch sizes.

    Args:
        full: the plan, as if every step were of full size.
        setup: the run.
        hardware: of every device.
    """
    if not setup.warmup_batches:
        return full
    phases = list(setup.phases())
    hours = sum(phase.steps * step_time(phase, hardware).total for phase in phases) / 3600
    share = hours / full.hours
    return replace(
        full,
        flops=sum(phase.steps * model_flops_of_step(phase) for phase in phases),
        hours=hours,
        reliability=replace(full.reliability, failures=full.reliability.failures * share),
        device_hours=full.device_hours * share,
        cost=full.cost * share,
    )
