"""Wait clock: seconds by purpose."""

import time

import pytest

from callbacks.wait_clock import Clock
from common.goodput_ledger import BUBBLE, COMMUNICATION, COMPUTE, OTHER, START


def test_a_clock_runs_for_one_purpose_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 10.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    clock = Clock(8.0)
    clock.turn(OTHER)
    clock.enter("step", COMPUTE)
    now += 3
    clock.enter("wait", COMMUNICATION)
    now += 1
    clock.leave("never entered")
    clock.leave("wait")
    now += 0.5
    clock.leave("step")
    now += 0.25
    clock.move(COMPUTE, BUBBLE, 1.0)
    clock.move(COMMUNICATION, BUBBLE, 99.0)  # more than there is
    assert clock.take() == {START: 2.0, COMPUTE: 2.5, BUBBLE: 2.0, OTHER: 0.25}
    with clock.watch("schedule"):
        assert clock.waiting_for == BUBBLE
        with clock.watch("action"):
            assert clock.waiting_for == COMMUNICATION
        assert clock.waiting_for == BUBBLE
    assert clock.waiting_for == COMMUNICATION
