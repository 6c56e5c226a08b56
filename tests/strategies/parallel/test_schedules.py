"""Pipeline schedules: the registry against torch's classes, and the rules of each."""

from typing import get_args

import pytest
from torch.distributed.pipelining.schedules import PipelineScheduleMulti, PipelineScheduleSingle, ScheduleZBVZeroBubble

from common.errors import InputError
from strategies.parallel.schedules import SCHEDULES, ScheduleName, find_schedule


def test_every_name_that_the_command_line_accepts_has_a_schedule() -> None:
    assert tuple(SCHEDULES) == get_args(ScheduleName)
    assert all(find_schedule(name).name == name for name in SCHEDULES)


@pytest.mark.parametrize("name", SCHEDULES)
def test_stages_per_rank_are_those_of_torch_s_class(name: str) -> None:
    schedule = SCHEDULES[name]
    base = PipelineScheduleSingle if schedule.has_one_stage else PipelineScheduleMulti
    assert issubclass(schedule.torch_class, base)
    assert schedule.is_v_shaped == (schedule.torch_class is ScheduleZBVZeroBubble)
    schedule.check_stages_per_rank(schedule.stages_per_rank(None))
    assert all(schedule.check_stages_per_rank(stages) is None for stages in schedule.searched_stages_per_rank)
    with pytest.raises(InputError, match=f"schedule {name} needs"):
        schedule.check_stages_per_rank(schedule.min_stages_per_rank - 1)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("ranks", [2, 3, 5])
def test_every_rank_owns_as_many_stages_as_the_others(name: str, ranks: int) -> None:
    schedule = SCHEDULES[name]
    stages = schedule.min_stages_per_rank
    owners = [schedule.owner(stage, ranks) for stage in range(ranks * stages)]
    assert all(owners.count(rank) == stages for rank in range(ranks))
    assert owners[:ranks] == list(range(ranks))
    # Both ends of a V are on the first rank.
    assert owners[-1] == (0 if schedule.is_v_shaped else ranks - 1)


def test_only_zero_bubble_schedules_refuse_what_needs_a_whole_backward_pass() -> None:
    for name, schedule in SCHEDULES.items():
        for settings in (("inductor", False, "none"), (None, True, "none"), (None, False, "full")):
            if name in ("interleaved_zero_bubble", "zbv"):
                with pytest.raises(InputError, match=f"schedule {name} (cuts|goes through)"):
                    schedule.check_backward(*settings)
            else:
                schedule.check_backward(*settings)
        schedule.check_backward(None, False, "none")


@pytest.mark.parametrize(
    ("name", "fewest"), [("gpipe", 1), ("1f1b", 4), ("interleaved_1f1b", 4), ("interleaved_zero_bubble", 4), ("zbv", 8)]
)
def test_fewest_micro_batches_of_four_ranks(name: str, fewest: int) -> None:
    schedule = SCHEDULES[name]
    stages = 4 * schedule.min_stages_per_rank
    assert schedule.min_microbatches(4, stages) == fewest
    schedule.check_microbatches(fewest, 1, 4, stages)
    if fewest > 1:
        with pytest.raises(InputError, match=f"needs at least {fewest}"):
            schedule.check_microbatches(fewest - 1, 1, 4, stages)
