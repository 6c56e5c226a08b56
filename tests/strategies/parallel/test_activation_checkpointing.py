"""What is recomputed is let go again: bytes of tensors that outlive a backward pass."""

import weakref
from typing import Any, get_args

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from models.config import DecoderConfig, Experts
from models.decoder import Decoder, auxiliary_loss
from models.initialization import build_decoder
from strategies.parallel.activation_checkpointing import ActivationCheckpointing, checkpoint_activations


class LiveTensors(TorchDispatchMode):
    """Bytes of the tensors that were made within this context and still exist."""

    def __init__(self) -> None:
        super().__init__()
        self._made: dict[int, tuple[weakref.ref[Any], int]] = {}

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        result = function(*arguments, **(options or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self._made[storage._cdata] = (weakref.ref(storage), storage.nbytes())
        return result

    def bytes(self) -> int:
        """Bytes alive now."""
        return sum(size for storage, size in self._made.values() if storage() is not None)


def decoder(experts: Experts | None) -> Decoder:
    return build_decoder(
        DecoderConfig(64, width=32, layers=4, heads=2, key_value_heads=1, feed_forward_width=48, experts=experts)
    )


def step(model: Decoder) -> tuple[int, int, float]:
    """Bytes after the forward pass and after the backward pass, and the loss."""
    tokens = torch.randint(64, (2, 64), generator=torch.Generator().manual_seed(0))
    with LiveTensors() as live:
        loss = model(tokens).square().mean()
        auxiliary = auxiliary_loss(model)
        loss = loss if auxiliary is None else loss + auxiliary
        del auxiliary
        held = live.bytes()
        loss.backward()
        value = loss.item()
        del loss
        model.zero_grad()
        return held, live.bytes(), value


@pytest.mark.parametrize("experts", [None, Experts(4, 2)], ids=["dense", "experts"])
def test_nothing_of_a_step_outlives_it_whatever_is_recomputed(experts: Experts | None) -> None:
    found = {}
    for mode in get_args(ActivationCheckpointing):
        model = decoder(experts)
        for block in model.layers.values():
            checkpoint_activations(block, mode)
        found[mode] = step(model)
    held, nothing, _ = found["none"]
    assert found["full"][0] < held / 3
    for mode, (_, left, value) in found.items():
        # Without recomputation what is left is the gradients of the products, whose memory is used again.
        assert left - nothing < held / 100, (mode, left, nothing, held)
        assert value == pytest.approx(found["none"][2], abs=1e-6)


def test_recomputing_leaves_the_loss_of_the_experts_in_place() -> None:
    model = decoder(Experts(4, 2))
    for block in model.layers.values():
        checkpoint_activations(block, "full")
    model(torch.zeros(1, 8, dtype=torch.int64)).sum().backward()
    first = [block.feed_forward.auxiliary_loss for block in model.layers.values()]  # type: ignore[union-attr]
    assert all(isinstance(loss, Tensor) for loss in first)
