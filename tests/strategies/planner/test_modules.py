"""The lists of tensors against the modules: what autograd keeps, what each rank holds, what is sent."""

import gc
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.pipelining._backward import stage_backward_input
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode

from models.anatomy import block_tensors
from models.attention import AttentionPattern, attended_pairs
from models.config import DecoderConfig, Experts
from models.flops import matmul_parameters
from models.initialization import build_decoder
from strategies.parallel.activation_checkpointing import checkpoint_activations
from strategies.parallel.mesh import MeshSizes
from strategies.parallel.schedules import SCHEDULES
from strategies.parallel.tensor_parallel_plan import apply_tensor_parallel
from strategies.pipeline_parallel import PipelineParallelStrategy
from strategies.planner.activation_memory import block_bytes, split_gradient_bytes
from strategies.planner.communication import tensor_bytes_of_block
from strategies.planner.meta_ranks import views
from strategies.planner.peak_memory import rank_memory
from strategies.planner.schedule_simulation import held, in_flight, order
from strategies.planner.step_time import block_flops, model_flops_of_step
from strategies.planner.training_setup import TrainingSetup

pytestmark = pytest.mark.usefixtures("no_process_group")

SHAPE: dict[str, Any] = {
    "vocabulary_size": 512, "width": 64, "layers": 4, "heads": 8, "key_value_heads": 2, "head_width": 16,
    "feed_forward_width": 160, "tied_embeddings": False,
}  # fmt: skip
ROWS, LENGTH = 2, 128


def a_setup(mixed: bool = False, tp: int = 1, **shape: Any) -> TrainingSetup:
    config = DecoderConfig(**SHAPE | shape)
    return TrainingSetup(config, MeshSizes(tp=tp), LENGTH, ROWS, mixed=mixed, device="cpu")


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


@pytest.mark.parametrize("mixed", [False, True], ids=["float32", "mixed"])
@pytest.mark.parametrize("experts", [None, Experts(4, 2)], ids=["dense", "experts"])
def test_kept_activations_of_selective_recomputation(mixed: bool, experts: Experts | None) -> None:
    """Products are kept in a store of checkpointing's own, which no hook on saved tensors sees: live tensors are
    counted, the block's output left out.
    """
    setup = replace(a_setup(mixed, experts=experts), checkpointing="selective")
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
    setup = replace(a_setup(mixed), checkpointing=mode)
    assert kept_bytes(setup) == block_bytes(setup)


@pytest.mark.parametrize("mixed", [False, True], ids=["float32", "mixed"])
def test_gradients_between_the_two_backward_passes_of_a_block(mixed: bool) -> None:
    """What torch holds from a backward pass to the inputs until that to the weights."""
    setup = a_setup(mixed)
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
    setup = a_setup(query_key_norm=True)
    assert kept_bytes(setup) == block_bytes(setup)


@pytest.mark.parametrize("mixed", [False, True], ids=["float32", "mixed"])
def test_kept_activations_with_experts(mixed: bool) -> None:
    setup = a_setup(mixed, experts=Experts(4, 2))
    assert kept_bytes(setup) == pytest.approx(block_bytes(setup), rel=0.02)


@pytest.fixture
def pretended(no_process_group: None) -> Any:
    torch.distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    yield init_device_mesh("cpu", (2,), mesh_dim_names=("tp",))
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("mixed", [False, True], ids=["float32", "mixed"])
@pytest.mark.parametrize("mode", ["none", "full"])
def test_kept_activations_of_a_tensor_parallel_rank(mixed: bool, mode: Any, pretended: Any) -> None:
    setup = replace(a_setup(mixed, tp=2), checkpointing=mode)
    assert kept_bytes(setup, pretended) == block_bytes(setup)


def test_tensor_parallel_volume(pretended: Any) -> None:
    """What the collectives of a block's forward pass carry, seen where they are called."""
    setup = a_setup(tp=2)
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
    apply_tensor_parallel(decoder, pretended)
    layout = AttentionPattern.causal(torch.zeros(ROWS, LENGTH, dtype=torch.int64), setup.config, torch.float32)
    with torch.no_grad(), Seen():
        decoder.layers["0"](torch.randn(ROWS, LENGTH // 2, 64), layout)
    forward, backward = tensor_bytes_of_block(setup)
    assert sum(sent) == forward == backward


@pytest.mark.parametrize(
    ("sizes", "changes"),
    [
        (MeshSizes(), {}),
        (MeshSizes(dp_shard=3), {}),
        (MeshSizes(dp_replicate=2, dp_shard=3, tp=2), {}),
        (MeshSizes(pp=2, dp_shard=3), {"pieces": 4}),
        (MeshSizes(pp=2, tp=2), {"pieces": 4, "schedule": "zbv", "stages_per_rank": 2}),
        (MeshSizes(pp=2), {"pieces": 4, "schedule": "interleaved_1f1b", "stages_per_rank": 2}),
    ],
    ids=str,
)
@pytest.mark.parametrize("tied", [False, True])
def test_parameters_of_every_rank_equal_what_the_strategies_make(
    sizes: MeshSizes, changes: dict[str, Any], tied: bool
) -> None:
    setup = replace(a_setup(tied_embeddings=tied), sizes=sizes, rows=4, **changes)
    found = list(views(setup))
    assert [view.built for view in found] == [view.planned for view in found]
    blocks = sorted(block for view in found if view.shard_rank == 0 for block in view.blocks)
    assert blocks == list(range(4))


def test_parameters_with_experts_biases_and_norms() -> None:
    setup = replace(
        a_setup(experts=Experts(4, 2), query_key_norm=True, query_key_value_bias=True), sizes=MeshSizes(dp_shard=3)
    )
    assert all(view.built == view.planned for view in views(setup))


@given(
    schedule=st.sampled_from(sorted(SCHEDULES)),
    ranks=st.integers(2, 5),
    rounds=st.integers(2, 4),
)
@settings(deadline=None, max_examples=40)
def test_every_micro_batch_goes_forward_and_back_once(schedule: Any, ranks: int, rounds: int) -> None:
    stages = SCHEDULES[schedule].min_stages_per_rank
    count = ranks * rounds
    strategy = PipelineParallelStrategy(ranks, schedule)
    strategy.sizes = MeshSizes(pp=ranks)
    for rank, actions in enumerate(order(schedule, ranks, stages, count)):
        mine = [s for s in range(ranks * stages) if SCHEDULES[schedule].owner(s, ranks) == rank]
        assert mine == [s for s in range(ranks * stages) if strategy.owner(s) == rank]
        expected = sorted((s, n) for s in mine for n in range(count))
        assert sorted((a.stage, a.microbatch) for a in actions if a.kind == "F") == expected
        assert sorted((a.stage, a.microbatch) for a in actions if a.kind in "BW") == expected
        assert max(map(sum, in_flight(schedule, ranks, stages, count, rank))) <= count * stages


@pytest.mark.parametrize("schedule", ["interleaved_zero_bubble", "zbv"])
def test_gradients_wait_for_the_backward_pass_to_the_weights(schedule: Any) -> None:
    """Never those of the first stage, whose backward pass is one, and never of a micro-batch that is not in flight."""
    for rank in range(4):
        moments = held(schedule, 4, 2, 16, rank)
        mine = [stage for stage in range(8) if SCHEDULES[schedule].owner(stage, 4) == rank]
        assert any(sum(moment.gradients) > 0 for moment in moments)
        for moment in moments:
            assert all(0 <= g <= a for a, g in zip(moment.activations, moment.gradients, strict=True))
            assert mine[0] > 0 or moment.gradients[0] == 0
    for whole in ("1f1b", "gpipe"):
        assert all(sum(moment.gradients) == 0 for moment in held(whole, 4, 1, 16, 0))


def test_one_forward_one_backward_holds_as_many_as_ranks_follow() -> None:
    assert [max(in_flight("1f1b", 4, 1, 16, rank))[0] for rank in range(4)] == [4, 3, 2, 1]
    assert max(in_flight("gpipe", 4, 1, 16, 0)) == (16,)


def test_a_step_counts_as_the_throughput_callback_counts() -> None:
    """Causal pairs of whole windows."""
    setup = a_setup()
    from models.flops import training_flops

    pairs = ROWS * LENGTH * (LENGTH + 1) // 2
    assert model_flops_of_step(setup) == training_flops(setup.config, ROWS * LENGTH, pairs)


@pytest.mark.parametrize("window", [None, 1, 5, 100, LENGTH, 3 * LENGTH])
def test_attention_of_a_block_counts_the_pairs_that_a_step_counts(window: int | None) -> None:
    """Those that attention itself counts, 4 FLOPs each and channel forward, 12 with the backward pass."""
    setup = a_setup(sliding_window=window)
    pairs = int(attended_pairs(torch.zeros(ROWS, LENGTH, dtype=torch.int64), window=window))
    channels = setup.config.heads * (setup.config.head_width or 0)
    assert block_flops(setup)[1] == 4 * channels * pairs
    products = 6 * matmul_parameters(setup.config) * ROWS * LENGTH
    assert model_flops_of_step(setup) - products == 12 * setup.config.layers * channels * pairs


def test_memory_falls_with_checkpointing_and_sharding() -> None:
    base = a_setup()
    none, selective, full = (
        rank_memory(replace(base, checkpointing=mode)).activations for mode in ("none", "selective", "full")
    )
    assert none > selective > full > 0
    states = [rank_memory(replace(base, sizes=MeshSizes(dp_shard=n))).optimizer for n in (1, 2, 4)]
    assert states[0] == pytest.approx(2 * states[1], rel=0.01) == pytest.approx(4 * states[2], rel=0.02)
