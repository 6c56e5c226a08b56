"""Schedules at their corners, and settings out of range."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InputError
from models.optimizers.schedules import Cosine, Schedule, WarmupStableDecay


def test_cosine_corners() -> None:
    schedule = Cosine(warmup_steps=10, final_fraction=0.1)
    assert schedule.factor(0, 100) == pytest.approx(0.1)
    assert schedule.factor(9, 100) == 1.0
    assert schedule.factor(54, 100) == pytest.approx(0.55)
    assert schedule.factor(99, 100) == pytest.approx(0.1)


def test_warmup_stable_decay_corners() -> None:
    schedule = WarmupStableDecay(warmup_steps=0, decay_fraction=0.2, final_fraction=0.0)
    assert schedule.factor(0, 100) == 1.0
    assert schedule.factor(79, 100) == pytest.approx(1.0)
    assert schedule.factor(89, 100) == pytest.approx(0.5)
    assert schedule.factor(99, 100) == pytest.approx(0.0, abs=1e-12)


@given(
    total=st.integers(1, 500),
    step=st.integers(0, 600),
    warmup=st.integers(0, 100),
    kind=st.sampled_from([Cosine, WarmupStableDecay]),
)
def test_factor_stays_between_zero_and_one(total: int, step: int, warmup: int, kind: type[Schedule]) -> None:
    assert 0 <= kind(warmup_steps=warmup).factor(step, total) <= 1  # type: ignore[call-arg]


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(InputError, match="final_fraction=2"):
        Cosine(final_fraction=2)
    with pytest.raises(InputError, match="warmup_steps=-3"):
        Cosine(warmup_steps=-3)
    with pytest.raises(InputError, match="decay_fraction=0"):
        WarmupStableDecay(decay_fraction=0)
