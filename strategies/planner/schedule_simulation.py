"""Simulation of pipeline schedules: torch's own orders of actions, replayed without processes.

The order comes from the very schedule classes that training uses, so that idle time and micro-batches in flight are
those of the program and not of a formula; the published formulas are here for the tests. Replaying costs some
milliseconds where a formula costs nothing.
"""

import functools
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple, cast

from torch.distributed.pipelining.schedules import PipelineScheduleMulti

from strategies.parallel.schedules import SCHEDULES, PipelineSchedule

ActionKind = Literal["F", "B", "I", "W"]
"""Forward; whole backward; backward to the inputs; backward to the weights."""


class Action(NamedTuple):
    """One action of a rank: a forward or backward pass of a micro-batch through a stage."""

    kind: ActionKind
    stage: int
    microbatch: int


@dataclass(frozen=True)
class Times:
    """Seconds of a micro-batch in each stage.

    Attributes:
        forward: by stage.
        backward: by stage, to inputs and weights together.
        transfer: from one rank to the next.
        weight_share: of a backward pass that goes to the weights, where a schedule does that apart; a half, because
            a matrix product has one product for each (Qi et al. 2024, section 2).
    """

    forward: tuple[float, ...]
    backward: tuple[float, ...]
    transfer: float = 0.0
    weight_share: float = 0.5

    def of(self, action: Action) -> float:
        """Seconds of an action."""
        if action.kind == "F":
            return self.forward[action.stage]
        whole = self.backward[action.stage]
        if action.kind == "B":
            return whole
        if action.stage == 0:
            # The first stage has no gradient of inputs to make: torch does all of its backward pass as W.
            return 0.0 if action.kind == "I" else whole
        return whole * (self.weight_share if action.kind == "W" else 1 - self.weight_share)


@functools.lru_cache(maxsize=4096)
def order(schedule: str, ranks: int, stages_per_rank: int, microbatches: int) -> tuple[tuple[Action, ...], ...]:
    """Actions of every rank, in order.

    Args:
        schedule: name, see `PipelineParallelStrategy`.
        ranks: in a row.
        stages_per_rank: of each.
        microbatches: of a step.
    """
    rules = SCHEDULES[schedule]
    if rules.has_one_stage:
        return tuple(_one_stage(rules, rank, ranks, microbatches) for rank in range(ranks))
    plan = rules.torch_class.__new__(rules.torch_class)
    # What the orders are computed from, without stages, groups or the checks on their modules.
    plan._n_microbatches, plan.pp_group_size, plan._num_stages = microbatches, ranks, ranks * stages_per_rank
    plan.num_stages, plan.n_local_stages = ranks * stages_per_rank, stages_per_rank
    plan.number_of_rounds = max(1, microbatches // ranks)
    plan.microbatches_per_round = microbatches // plan.number_of_rounds
    plan._stages = [SimpleNamespace(stage_index=0)] * stages_per_rank
    return tuple(_compute_only(plan, rank) for rank in range(ranks))


def _compute_only(plan: PipelineScheduleMulti, rank: int) -> tuple[Action, ...]:
    listed = cast(Any, plan)._calculate_single_rank_operations(rank)
    return tuple(
        Action(action.computation_type.value, action.stage_index, action.microbatch_index)
        for action in listed
        if action is not None
    )


def _one_stage(schedule: PipelineSchedule, rank: int, ranks: int, microbatches: int) -> tuple[Action, ...]:
    """All forward then all backward (GPipe), or as few forward as fill the pipeline and then in turn (1F1B)."""
    ahead = schedule.warmup_microbatches(rank, ranks, microbatches)
    actions = [Action("F", rank, number) for number in range(ahead)]
    for number in range(microbatches):
        actions.append(Action("B", rank, number))
        if ahead + number < microbatches:
            actions.append(Action("F", rank, ahead + number))
    return tuple(actions)


def replay(schedule: str, ranks: int, stages_per_rank: int, microbatches: int, times: Times) -> float:
    """Seconds from the first action to the last when each begins as soon as its rank and its inputs are ready.

    Raises:
        RuntimeError: when no rank can continue, which an order of torch's never does.
    """
    actions = order(schedule, ranks, stages_per_rank, microbatches)
    stages = ranks * stages_per_rank
    place = [SCHEDULES[schedule].owner(stage, ranks) for stage in range(stages)]
    done: dict[tuple[str, int, int], float] = {}
    clock, position = [0.0] * ranks, [0] * ranks
    left = sum(len(own) for own in actions)
    while left:
        moved = False
        for rank, own in enumerate(actions):
            while position[rank] < len(own):
                action = own[position[rank]]
                kind, stage, number = action
                ready = clock[rank]
                if kind == "F" and stage > 0:
                    before = done.get(("F", stage - 1, number))
                    if before is None:
                        break
                    ready = max(ready, before + (times.transfer if place[stage - 1] != rank else 0.0))
                elif kind in "BI" and stage < stages - 1:
                    after = done.get(("G", stage + 1, number))
                    if after is None:
                        break
                    ready = max(ready, after + (times.transfer if place[stage + 1] != rank else 0.0))
                clock[rank] = ready + times.of(action)
                done["G" if kind in "BI" else kind, stage, number] = clock[rank]
                position[rank] += 1
                left -= 1
                moved = True
        if not moved:
            raise RuntimeError(f"schedule {schedule} over {ranks} ranks and {microbatches} micro-batches is stuck")
    return max(clock)


def busiest(schedule: str, ranks: int, stages_per_rank: int, microbatches: int, times: Times) -> float:
    """Busy seconds per step of the rank with most work."""
    each = [0.0] * ranks
    for stage in range(ranks * stages_per_rank):
        each[SCHEDULES[schedule].owner(stage, ranks)] += microbatches * (times.forward[stage] + times.backward[stage])
    return max(each)


def bubble(schedule: str, ranks: int, stages_per_rank: int, microbatches: int, times: Times) -> float:
    """Idle time over ideal time: (replayed - busy) / busy, averaged over ranks; 0 is no bubble."""
    total = replay(schedule, ranks, stages_per_rank, microbatches, times)
    busy = microbatches * (sum(times.forward) + sum(times.backward)) / ranks
    return total / busy - 1


def bubble_formula(ranks: int, microbatches: int, stages_per_rank: int = 1) -> float:
    """(p - 1) / (v m): idle over ideal time of GPipe and 1F1B (v = 1) and of interleaved 1F1B (Narayanan et al. 2021,
    sections 2.2.1 and 2.2.2).

    Args:
        ranks: p. microbatches: m. stages_per_rank: v.
    """
    return (ranks - 1) / (stages_per_rank * microbatches)


class Held(NamedTuple):
    """Micro-batches in flight on a rank, counted in each of its stages, in order.

    Attributes:
        activations: between their forward pass and the end of their backward pass.
        gradients: whose backward pass to the inputs is done and that to the weights is not: torch keeps the graph and
            the gradients of every product's result between them (`stage_backward_input`).
        reached: whether a backward pass has made gradients of the stage's weights; a step begins without.
    """

    activations: tuple[int, ...]
    gradients: tuple[int, ...]
    reached: tuple[bool, ...]


@functools.lru_cache(maxsize=65_536)
def held(schedule: str, ranks: int, stages_per_rank: int, microbatches: int, rank: int) -> frozenset[Held]:
    """Micro-batches in flight on a rank after each of its actions: every combination that occurs.

    A whole backward pass lets go of it, or that to the weights where a schedule does it apart. The first stage of all
    has no inputs' gradients to make: torch leaves all of its backward pass to that to the weights.
    """
    mine = [stage for stage in range(ranks * stages_per_rank) if SCHEDULES[schedule].owner(stage, ranks) == rank]
    place = {stage: index for index, stage in enumerate(mine)}
    activations, gradients, reached = [0] * len(mine), [0] * len(mine), [False] * len(mine)
    moments = set()
    for action in order(schedule, ranks, stages_per_rank, microbatches)[rank]:
        index, apart = place[action.stage], int(action.stage > 0)
        if action.kind == "F":
            activations[index] += 1
        elif action.kind == "I":
            gradients[index] += apart
        else:
            activations[index] -= 1
            gradients[index] -= apart if action.kind == "W" else 0
            reached[index] = True
        moments.add(Held(tuple(activations), tuple(gradients), tuple(reached)))
    return frozenset(moments)


def in_flight(
    schedule: str, ranks: int, stages_per_rank: int, microbatches: int, rank: int
) -> frozenset[tuple[int, ...]]:
    """The activations of `held` alone."""
    return frozenset(each.activations for each in held(schedule, ranks, stages_per_rank, microbatches, rank))
