"""Peak memory falls with what is meant to lower it."""

from dataclasses import replace

import pytest

from strategies.parallel.mesh import MeshSizes
from strategies.planner.peak_memory import rank_memory
from tests.helpers.planner import small_setup


def test_memory_falls_with_checkpointing_and_sharding() -> None:
    base = small_setup()
    none, selective, full = (
        rank_memory(replace(base, checkpointing=mode)).activations for mode in ("none", "selective", "full")
    )
    assert none > selective > full > 0
    states = [rank_memory(replace(base, sizes=MeshSizes(dp_shard=n))).optimizer for n in (1, 2, 4)]
    assert states[0] == pytest.approx(2 * states[1], rel=0.01) == pytest.approx(4 * states[2], rel=0.02)
