"""Batches that are smaller at first: what the data deal out, and what a plan makes of it."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands.plan.setup import setup_of
from common.errors import InputError
from datamodules.mixing.batch_size_warmup import BatchSizeWarmup
from datamodules.resumable import ResumableDataModule
from models.config import DecoderConfig
from strategies.parallel.mesh import MeshSizes
from strategies.planner.batch_size_phases import over_batch_sizes
from strategies.planner.hardware import read_hardware
from strategies.planner.layout_search import search
from strategies.planner.plan import make_plan
from strategies.planner.training_setup import TrainingSetup
from tests.helpers.corpus import ROOT
from tests.helpers.planner import size_configuration

H100 = read_hardware(ROOT / "configs/hardware/h100.yaml")
CONFIG = DecoderConfig(32_000, width=512, layers=8, heads=8, key_value_heads=4, feed_forward_width=1024)
GROWING = {"initial": 3, "increment": 5, "steps": 100}


def a_setup(full: int, warmup: BatchSizeWarmup, steps: int, **changes: Any) -> TrainingSetup:
    sizes = MeshSizes(dp_shard=4)
    return TrainingSetup(CONFIG, sizes, 256, full, steps=steps, warmup_batches=tuple(warmup.smaller(full)), **changes)


@given(
    full=st.integers(1, 40),
    initial=st.integers(1, 40),
    increment=st.integers(1, 50),
    warmup_steps=st.integers(1, 60),
    steps=st.integers(1, 90),
)
def test_tokens_are_those_that_the_data_deal_out(
    full: int, initial: int, increment: int, warmup_steps: int, steps: int
) -> None:
    warmup = BatchSizeWarmup(min(initial, full), increment, warmup_steps)
    setup = a_setup(full, warmup, steps, accumulate=3)
    samples = ResumableDataModule(full, 0, warmup)
    samples.trainer = SimpleNamespace(  # type: ignore[assignment]
        accumulate_grad_batches=3, distributed_sampler_kwargs={"rank": 0, "num_replicas": 4}
    )
    assert setup.batch_sizes == samples.batch_sizes()
    assert setup.tokens == samples.position_at(steps) * 256
    sizes = [phase.rows for phase in setup.phases() for _ in range(phase.steps)]
    assert sizes == [samples.batch_size_of(step) for step in range(steps)]


def test_a_run_is_its_sizes_one_after_another() -> None:
    """Time and FLOPs as if each size were a run; memory and step those of the full size."""
    setup = a_setup(8, BatchSizeWarmup(2, 2, 300), 1000)
    small = [make_plan(replace(setup, rows=rows, steps=100, warmup_batches=()), H100) for rows in (2, 4, 6)]
    rest = make_plan(replace(setup, steps=700, warmup_batches=()), H100)
    found = over_batch_sizes(make_plan(setup, H100), setup, H100)
    for name in ("hours", "flops", "flops_6nd"):
        assert getattr(found, name) == pytest.approx(sum(getattr(made, name) for made in [*small, rest])), name
    assert (found.memory, found.time, found.utilization) == (rest.memory, rest.time, rest.utilization)
    whole = make_plan(replace(setup, warmup_batches=()), H100)
    assert found.flops_6nd / whole.flops_6nd == pytest.approx((100 * (2 + 4 + 6) + 700 * 8) / 8000)
    # Less compute, but not as much less time: parameters are gathered and updated as before.
    assert found.flops / whole.flops < found.hours / whole.hours < 1
    for name in ("days", "device_hours", "cost"):
        assert getattr(found, name) / getattr(whole, name) == pytest.approx(found.hours / whole.hours), name
    assert found.reliability.failures == pytest.approx(whole.reliability.failures * found.hours / whole.hours)


@pytest.mark.parametrize(
    ("warmup", "message"),
    [
        (GROWING, "does not divide batch_size=3"),
        (GROWING | {"initial": 64}, "batch_size_warmup.initial=64: larger than batch_size=32"),
        (GROWING | {"steps": 0}, "all must be at least 1"),
    ],
)
def test_what_fit_refuses_is_refused(warmup: dict[str, int], message: str) -> None:
    loaded = size_configuration("70b")
    loaded["data"]["init_args"]["batch_size_warmup"] = warmup
    with pytest.raises(InputError, match=message):
        setup_of(loaded, H100)


def test_a_search_finds_only_what_deals_every_size_out() -> None:
    """3 windows a rank at first, of four ranks that accumulate nothing: 12 of 128."""
    setup = a_setup(32, BatchSizeWarmup(**GROWING), 200)
    found = search(setup, H100, 4)
    for candidate in found.best:
        chosen = candidate.setup
        batches = chosen.accumulate * chosen.sizes.data_parallel
        assert [size * batches for size in chosen.batch_sizes] == [size * 4 for size in setup.batch_sizes]
        assert all(size % chosen.microbatches_per_batch == 0 for size in chosen.batch_sizes)
    with pytest.raises(InputError, match="all windows of batch_size_warmup"):
        search(replace(setup, sizes=MeshSizes(dp_shard=1), config=replace(CONFIG, layers=1, heads=1,
               key_value_heads=1)), H100, 7)  # fmt: skip
