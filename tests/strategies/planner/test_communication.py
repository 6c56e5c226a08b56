"""Communication volume against the collectives that a block calls."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from models.attention import AttentionPattern
from models.initialization import build_decoder
from strategies.parallel.tensor_parallel_plan import apply_tensor_parallel
from strategies.planner.communication import tensor_bytes_of_block
from tests.helpers.planner import LENGTH, ROWS, small_setup

pytestmark = pytest.mark.usefixtures("no_process_group")


def test_tensor_parallel_volume(tensor_parallel_mesh: Any) -> None:
    """What the collectives of a block's forward pass carry, seen where they are called."""
    setup = small_setup(tp=2)
    sent: list[int] = []

    class Seen(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            name = str(func)
            if "all_gather_into_tensor" in name:
                sent.append(2 * args[0].nbytes)
            elif "reduce_scatter_tensor" in name:
                sent.append(args[0].nbytes)
            return func(*args, **(kwargs or {}))

    decoder = build_decoder(setup.config)
    apply_tensor_parallel(decoder, tensor_parallel_mesh)
    layout = AttentionPattern.causal(torch.zeros(ROWS, LENGTH, dtype=torch.int64), setup.config, torch.float32)
    with torch.no_grad(), Seen():
        decoder.layers["0"](torch.randn(ROWS, LENGTH // 2, 64), layout)
    forward, backward = tensor_bytes_of_block(setup)
    assert sum(sent) == forward == backward
