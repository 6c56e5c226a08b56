"""What checkpoints and failures take, at the run's own interval and at the advised one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InputError
from strategies.planner.reliability import Saving, lost_share, reliability


@given(
    still=st.floats(0.05, 20.0),
    writing=st.floats(0.0, 200.0),
    step=st.floats(1.0, 60.0),
    mtbf_hours=st.floats(6.0, 500.0),
    factor=st.sampled_from([0.5, 0.8, 1.25, 2.0, 10.0]),
)
def test_no_interval_loses_less_than_the_advised(
    still: float, writing: float, step: float, mtbf_hours: float, factor: float
) -> None:
    """But for what Daly's higher orders see and a first-order loss does not, and intervals that no run can have."""
    saving = Saving(still, still + writing, step)
    found = reliability(1, 100.0, mtbf_hours, saving, 60.0)
    other = found.advised_seconds * factor
    if other >= max(step, saving.writing_seconds):
        assert found.advised_share <= lost_share(other, saving, mtbf_hours * 3600, 60.0) + 2e-4


def test_the_intervals_share_is_the_runs_own() -> None:
    """10,000 s of mean time between failures, 100 s from one to the next step, 2 s of copying every 1,000 s: 0.2 % for
    the copies, and (500 + 20 + 100) / 10,000 for the steps since the last checkpoint, its writing and the restart.
    """
    saving = Saving(2.0, 20.0, 5.0)
    found = reliability(10, 100.0, 100_000 / 3600, saving, 100.0, interval=1000.0)
    assert found.interval_seconds == 1000
    assert found.lost_share == pytest.approx(0.002 + 0.062, rel=1e-3)
    assert found.failures == pytest.approx(100 / (1 - found.lost_share) * 3600 / 10_000)
    assert found.advised_share < found.lost_share


def test_a_checkpoint_waits_for_the_one_before() -> None:
    saving = Saving(2.0, 20.0, 1.0)
    assert saving.still_at(30.0) == 2.0
    assert saving.still_at(8.0) == 2.0 + 10.0
    assert Saving(20.0, 20.0, 1.0).still_at(8.0) == 20.0


def test_a_run_that_gets_nowhere() -> None:
    saving = Saving(1.0, 1.0, 10.0)
    with pytest.raises(InputError, match="no step would be kept"):
        reliability(1000, 1.0, 10.0, saving, 600.0)
    with pytest.raises(InputError, match="lower every_steps of callbacks.Checkpoints to 8"):
        reliability(1, 1.0, 1.0, saving, 60.0, interval=10_000.0)
