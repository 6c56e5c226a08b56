"""Activation memory against what autograd keeps of a block."""

import gc
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.distributed.pipelining._backward import stage_backward_input

from models.anatomy import block_tensors
from models.attention import AttentionPattern
from models.config import Experts
from models.initialization import build_decoder
from strategies.parallel.activation_checkpointing import checkpoint_activations
from strategies.parallel.tensor_parallel_plan import apply_tensor_parallel
from strategies.planner.activation_memory import block_bytes, split_gradient_bytes
from strategies.planner.training_setup import TrainingSetup
from tests.helpers.planner import LENGTH, ROWS, small_setup

pytestmark = pytest.mark.usefixtures("no_process_group")


def local(x: Any) -> Tensor:
    found: Tensor = x.to_local() if hasattr(x, "to_local") else x
    return found


def kept_bytes(setup: TrainingSetup, mesh: Any = None) -> float:
    """Bytes a token that autograd keeps of one block, weights, their casts and rotary angles left out."""
    # Tensors of as many rows as a weight has would be taken for its cast: which expert gets how many must not vary.
    torch.manual_seed(0)
    decoder = build_decoder(setup.config)
    if mesh is not None:
        apply_tensor_parallel(decoder, mesh)
    block = decoder.layers["0"]
    checkpoint_activations(block, setup.checkpointing)
    x = torch.randn(ROWS, LENGTH // setup.sizes.tp, setup.config.width, requires_grad=True)
    weights = {local(p).untyped_storage().data_ptr() for p in decoder.parameters()}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Any) -> Any:
        kept.setdefault(local(tensor).untyped_storage().data_ptr(), local(tensor))
        return tensor

    dtype = torch.bfloat16 if setup.mixed else torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=setup.mixed):
        layout = AttentionPattern.of(torch.zeros(ROWS, LENGTH, dtype=torch.int64), setup.config, dtype)
        angles = {angle.untyped_storage().data_ptr() for angle in layout.angles}
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            y = block(x, layout)
    del y
    casts = {
        tuple(sorted(p.shape_on_rank(setup.sizes.tp)[-2:])) for p in block_tensors(setup.config) if len(p.shape) > 1
    }
    found = 0
    for pointer, tensor in kept.items():
        is_cast = setup.mixed and tensor.dtype == torch.bfloat16 and tuple(sorted(tensor.shape)) in casts
        if pointer not in weights | angles and not is_cast:
            found += tensor.untyped_storage().nbytes()
    return found / (ROWS * LENGTH)


def live_bytes() -> int:
    """Bytes of all tensors that Python knows, each storage once."""
    gc.collect()
    storages: dict[int, int] = {}
    for thing in gc.get_objects():
        # `isinstance` would import what lazy modules of torch pretend to be; compilation leaves tensors without bytes.
        kind = type(thing)
        if issubclass(kind, Tensor) and not issubclass(kind, FakeTensor) and thing.device.type == "cpu":
            storage = thing.untyped_storage()
            # By identity: compilation also leaves storages whose address must not be asked for.
            storages[storage._cdata] = storage.nbytes()
    return sum(storages.values())


@pytest.fixture
def few_objects() -> Iterator[None]:
    """Python knows of nothing that was there before the test, among which `live_bytes` would search for long."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("few_objects")
@pytest.mark.parametrize("mixed", [False, True], ids=["float32", "mixed"])
@pytest.mark.parametrize("experts", [None, Experts(4, 2)], ids=["dense", "experts"])
def test_kept_activations_of_selective_recomputation(mixed: bool, experts: Experts | None) -> None:
    """Products are kept in a store of checkpointing's own, which no hook on saved tensors sees: live tensors are
    counted, the block's output left out.
    """
    setup = replace(small_setup(mixed, experts=experts), checkpointing="selective")
    torch.manual_seed(0)
    block = build_decoder(setup.config).layers["0"]
    checkpoint_activations(block, "selective")
    dtype = torch.bfloat16 if mixed else torch.float32
    layout = AttentionPattern.of(torch.zeros(ROWS, LENGTH, dtype=torch.int64), setup.config, dtype)
    before = live_bytes()
    x = torch.randn(ROWS, LENGTH, setup.config.width, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
        node = block(x, layout).grad_fn
    assert node is not None
    assert (live_bytes() - before) / (ROWS * LENGTH) == pytest.approx(block_bytes(setup), rel=0.01)


@pytest.mark.parametrize("mixed", [False, True], ids=["float32", "mixed"])
@pytest.mark.parametrize("mode", ["none", "full"])
def test_kept_activations_of_a_block(mixed: bool, mode: Any) -> None:
    setup = replace(small_setup(mixed), checkpointing=mode)
    assert kept_bytes(setup) == block_bytes(setup)


@pytest.mark.usefixtures("few_objects")
@pytest.mark.parametrize("mixed", [False, True], ids=["float32", "mixed"])
def test_gradients_between_the_two_backward_passes_of_a_block(mixed: bool) -> None:
    """What torch holds from a backward pass to the inputs until that to the weights."""
    setup = small_setup(mixed)
    block = build_decoder(setup.config).layers["0"]
    dtype = torch.bfloat16 if mixed else torch.float32
    layout = AttentionPattern.of(torch.zeros(ROWS, LENGTH, dtype=torch.int64), setup.config, dtype)
    x = torch.randn(ROWS, LENGTH, setup.config.width, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
        y = block(x, layout)
    before = live_bytes()
    received = torch.randn_like(y)
    sent, groups = stage_backward_input([y], [received], [x], iter(block.parameters()))
    assert groups
    assert sent[0] is not None
    # In float32 what is received is the gradient of the last product's result too.
    others = sent[0].nbytes + (received.nbytes if mixed else 0)
    found = (live_bytes() - before - others) / (ROWS * LENGTH)
    assert found == pytest.approx(split_gradient_bytes(setup), rel=0.01)


def test_kept_activations_with_norms_of_heads() -> None:
    setup = small_setup(query_key_norm=True)
    assert kept_bytes(setup) == block_bytes(setup)


@pytest.mark.parametrize("mixed", [False, True], ids=["float32", "mixed"])
def test_kept_activations_with_experts(mixed: bool) -> None:
    setup = small_setup(mixed, experts=Experts(4, 2))
    assert kept_bytes(setup) == pytest.approx(block_bytes(setup), rel=0.02)


@pytest.mark.parametrize("mixed", [False, True], ids=["float32", "mixed"])
@pytest.mark.parametrize("mode", ["none", "full"])
def test_kept_activations_of_a_tensor_parallel_rank(mixed: bool, mode: Any, tensor_parallel_mesh: Any) -> None:
    setup = replace(small_setup(mixed, tp=2), checkpointing=mode)
    assert kept_bytes(setup, tensor_parallel_mesh) == block_bytes(setup)
