"""Goodput ledger: totals under kills, rollbacks and restarts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.goodput_ledger import COMPUTE, LedgerTotals


@given(
    st.lists(
        st.tuples(st.sampled_from(["work", "kill", "rewind", "complete"]), st.integers(0, 9), st.floats(0, 50)),
        max_size=40,
    )
)
def test_whatever_happens_to_a_run_its_seconds_are_all_there(events: list[tuple[str, int, float]]) -> None:
    """Compared with a sum of the clock alone."""
    totals, now, step, wall = LedgerTotals(), 1000.0, 0, 0.0
    totals.add({"start": now, "step": 0, "peak": None})
    for kind, number, seconds in events:
        if kind in ("work", "complete"):
            now, step, wall = now + seconds, step + number, wall + seconds
            ended = {"complete": True} if kind == "complete" else {}
            totals.add({"time": now, "step": step, "flops": 1.0, "seconds": {COMPUTE: seconds}} | ended)
        elif kind == "kill":
            wall += seconds if totals.last is not None else 0.0  # a complete one lost no time
            now, step = now + seconds, min(step, number)
            totals.add({"start": now, "step": step, "peak": None})
        else:
            step = min(step, number)
            totals.add({"rewind": step})
        assert totals.total == pytest.approx(wall)
        assert all(entry[0] <= step for entry in totals.kept)
        assert totals.seconds[COMPUTE] == pytest.approx(sum(entry[1][COMPUTE] for entry in totals.kept), abs=1e-9)
