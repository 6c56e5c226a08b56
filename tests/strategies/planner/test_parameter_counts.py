"""Parameters per rank against what the strategies make."""

from dataclasses import replace
from typing import Any

import pytest

from models.config import Experts
from strategies.parallel.mesh import MeshSizes
from strategies.planner.meta_ranks import views
from tests.helpers.planner import small_setup

pytestmark = pytest.mark.usefixtures("no_process_group")


@pytest.mark.parametrize(
    ("sizes", "changes"),
    [
        (MeshSizes(), {}),
        (MeshSizes(dp_shard=3), {}),
        (MeshSizes(dp_replicate=2, dp_shard=3, tp=2), {}),
        (MeshSizes(pp=2, dp_shard=3), {"microbatches_per_batch": 4}),
        (MeshSizes(pp=2, tp=2), {"microbatches_per_batch": 4, "schedule": "zbv", "stages_per_rank": 2}),
        (MeshSizes(pp=2), {"microbatches_per_batch": 4, "schedule": "interleaved_1f1b", "stages_per_rank": 2}),
    ],
    ids=str,
)
@pytest.mark.parametrize("tied", [False, True])
def test_parameters_of_every_rank_equal_what_the_strategies_make(
    sizes: MeshSizes, changes: dict[str, Any], tied: bool
) -> None:
    setup = replace(small_setup(tied_embeddings=tied), sizes=sizes, rows=4, **changes)
    found = list(views(setup))
    assert [view.built for view in found] == [view.planned for view in found]
    blocks = sorted(block for view in found if view.shard_rank == 0 for block in view.blocks)
    assert blocks == list(range(4))


def test_parameters_with_experts_biases_and_norms() -> None:
    setup = replace(
        small_setup(experts=Experts(4, 2), query_key_norm=True, query_key_value_bias=True), sizes=MeshSizes(dp_shard=3)
    )
    assert all(view.built == view.planned for view in views(setup))
