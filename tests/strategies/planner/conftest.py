"""Fixtures of the planner tests."""

from typing import Any

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore


@pytest.fixture
def tensor_parallel_mesh(no_process_group: None) -> Any:
    """Mesh of two tensor-parallel ranks in one process, whose collectives do nothing."""
    torch.distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    yield init_device_mesh("cpu", (2,), mesh_dim_names=("tp",))
    torch.distributed.destroy_process_group()
