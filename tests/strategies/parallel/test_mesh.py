"""Sizes of the mesh and the ranks along its axes."""

from hypothesis import given
from hypothesis import strategies as st

from strategies.parallel.mesh import MeshSizes, resolve_sizes


@given(sizes=st.tuples(*[st.integers(1, 3)] * 4))
def test_ranks_of_the_mesh(sizes: tuple[int, int, int, int]) -> None:
    """Data-parallel ranks follow the order of the axes; "auto" takes what is left."""
    pp, replicate, shard, tp = sizes
    mesh = MeshSizes(pp, replicate, shard, 1, tp)
    assert resolve_sizes(mesh.world, pp, replicate, "auto", 1, tp) == mesh
    seen = [mesh.data_parallel_rank(rank) for rank in range(mesh.world)]
    assert seen == [d for _ in range(pp) for d in range(replicate * shard) for _ in range(tp)]
