"""The search proposes nothing that the strategies refuse, fits the limit, and is never worse for more memory."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import InputError
from models.config import DecoderConfig, Experts
from strategies.parallel.mesh import MeshSizes
from strategies.planner.hardware import read_hardware
from strategies.planner.layout_search import MODES, candidates, refusal, search, why_slower
from strategies.planner.peak_memory import worst_rank
from strategies.planner.step_time import least_seconds, step_time
from strategies.planner.training_setup import TrainingSetup
from tests.helpers.corpus import ROOT
from tests.helpers.layouts import pipeline, preflight

H100 = read_hardware(ROOT / "configs/hardware/h100.yaml")
CONFIG = DecoderConfig(32_000, width=2048, layers=16, heads=16, key_value_heads=4, feed_forward_width=5632)


def a_setup(devices: int, windows: int = 64, config: DecoderConfig = CONFIG, compiled: bool = True) -> TrainingSetup:
    return TrainingSetup(config, MeshSizes(dp_shard=devices), 2048, 1, accumulate=windows // devices, compiled=compiled)


@given(
    devices=st.sampled_from([1, 2, 4, 8, 16]),
    windows=st.sampled_from([16, 32]),
    heads=st.sampled_from([2, 4, 16]),
    layers=st.sampled_from([3, 8]),
    compiled=st.booleans(),
    gigabytes=st.sampled_from([8.0, 20.0, 80.0]),
)
@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.too_slow])
def test_only_layouts_that_are_accepted_and_fit(
    devices: int, windows: int, heads: int, layers: int, compiled: bool, gigabytes: float
) -> None:
    config = replace(CONFIG, key_value_heads=heads, layers=layers)
    setup = a_setup(devices, windows, config, compiled)
    found = search(setup, H100, devices, gigabytes * 1e9)
    for candidate in found.best:
        chosen = candidate.setup
        assert refusal(chosen) is None
        assert chosen.sizes.world == devices
        assert chosen.step_tokens == setup.step_tokens
        assert worst_rank(chosen, H100.overhead)[1].total <= gigabytes * 1e9
        assert candidate.seconds >= least_seconds(chosen, H100) * (1 - 1e-9)
    assert [c.seconds for c in found.best] == sorted(c.seconds for c in found.best)
    assert all(c.memory.total > gigabytes * 1e9 for c in found.too_large)


def test_the_first_is_the_best_of_all() -> None:
    """Against pricing every accepted layout that fits."""
    setup = a_setup(8, 32)
    accepted = [c for c in candidates(setup, H100, 8) if refusal(c) is None]
    fitting = [c for c in accepted if worst_rank(c, H100.overhead)[1].total <= 30e9]
    found = search(setup, H100, 8, 30e9)
    assert found.tried == len(accepted)
    assert found.best[0].seconds == min(step_time(c, H100).total for c in fitting)
    for other in found.best[1:]:
        assert why_slower(found.best[0], other)


def test_more_memory_never_makes_the_best_slower() -> None:
    setup = a_setup(8, 32)
    seconds = [
        found.best[0].seconds
        for limit in (10e9, 16e9, 24e9, 40e9, 80e9)
        if (found := search(setup, H100, 8, limit)).best
    ]
    assert len(seconds) >= 3
    assert seconds == sorted(seconds, reverse=True)


def test_the_strategies_themselves_say_no() -> None:
    """Every candidate that the preflight of the tests of strategies refuses is refused here, in the same words."""
    setup = replace(a_setup(4, 32), sizes=MeshSizes(pp=4), rows=4, accumulate=1, microbatches_per_batch=4)
    with pytest.raises(InputError) as raised:
        preflight(pipeline(4, schedule="zbv", microbatches=4), 4, batch_size=4)
    assert refusal(replace(setup, schedule="zbv", stages_per_rank=2, compiled=False)) == str(raised.value)
    assert refusal(replace(setup, sizes=MeshSizes(cp=2))) is not None
    tensor = replace(a_setup(2, compiled=False), sizes=MeshSizes(tp=2))
    assert "experts are not cut" in str(refusal(replace(tensor, config=replace(CONFIG, experts=Experts(4, 2)))))


def test_nothing_fits_and_nothing_is_accepted() -> None:
    found = search(a_setup(2, 16), H100, 2, 1e9)
    assert not found.best
    assert found.too_large
    with pytest.raises(InputError, match="no layout is accepted"):
        search(a_setup(1, 1), H100, 7)


def test_modes_are_those_of_the_strategies() -> None:
    assert set(MODES) == {"none", "selective", "full"}
