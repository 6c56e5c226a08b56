"""Simulated schedules: every micro-batch once, and what is in flight."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.parallel.mesh import MeshSizes
from strategies.parallel.schedules import SCHEDULES
from strategies.pipeline_parallel import PipelineParallelStrategy
from strategies.planner.schedule_simulation import held, in_flight, order


@given(
    schedule=st.sampled_from(sorted(SCHEDULES)),
    ranks=st.integers(2, 5),
    rounds=st.integers(2, 4),
)
@settings(deadline=None, max_examples=40)
def test_every_micro_batch_goes_forward_and_back_once(schedule: Any, ranks: int, rounds: int) -> None:
    stages = SCHEDULES[schedule].min_stages_per_rank
    count = ranks * rounds
    strategy = PipelineParallelStrategy(ranks, schedule)
    strategy.sizes = MeshSizes(pp=ranks)
    for rank, actions in enumerate(order(schedule, ranks, stages, count)):
        mine = [s for s in range(ranks * stages) if SCHEDULES[schedule].owner(s, ranks) == rank]
        assert mine == [s for s in range(ranks * stages) if strategy.owner(s) == rank]
        expected = sorted((s, n) for s in mine for n in range(count))
        assert sorted((a.stage, a.microbatch) for a in actions if a.kind == "F") == expected
        assert sorted((a.stage, a.microbatch) for a in actions if a.kind in "BW") == expected
        assert max(map(sum, in_flight(schedule, ranks, stages, count, rank))) <= count * stages


@pytest.mark.parametrize("schedule", ["interleaved_zero_bubble", "zbv"])
def test_gradients_wait_for_the_backward_pass_to_the_weights(schedule: Any) -> None:
    """Never those of the first stage, whose backward pass is one, and never of a micro-batch that is not in flight."""
    for rank in range(4):
        moments = held(schedule, 4, 2, 16, rank)
        mine = [stage for stage in range(8) if SCHEDULES[schedule].owner(stage, 4) == rank]
        assert any(sum(moment.gradients) > 0 for moment in moments)
        for moment in moments:
            assert all(0 <= g <= a for a, g in zip(moment.activations, moment.gradients, strict=True))
            assert mine[0] > 0 or moment.gradients[0] == 0
    for whole in ("1f1b", "gpipe"):
        assert all(sum(moment.gradients) == 0 for moment in held(whole, 4, 1, 16, 0))


def test_one_forward_one_backward_holds_as_many_as_ranks_follow() -> None:
    assert [max(in_flight("1f1b", 4, 1, 16, rank))[0] for rank in range(4)] == [4, 3, 2, 1]
    assert max(in_flight("gpipe", 4, 1, 16, 0)) == (16,)
