"""Peak memory of every kind of rank, by part, at the moments of a step that can be the highest.

A sum of everything would count what is never there at once: gradients grow while activations go. So the parts are
added up as they are at the end of the forward pass, at the beginning of the backward pass and before the update, and
the largest of the three is the peak. In a pipeline the moments are those after each action of the schedule, and the end
of its step.
"""

from dataclasses import asdict, dataclass, fields, replace

from strategies.planner.activation_memory import block_bytes, head_bytes, split_gradient_bytes, working_bytes
from strategies.planner.parameter_counts import RankParameters, numel_on_rank, rank_parameters
from strategies.planner.schedule_simulation import held as held_by
from strategies.planner.training_setup import TrainingSetup

CHUNK = 1024
"""Tokens whose logits are held at once (`models.head.OutputHead.cross_entropy`)."""
WEIGHT = GRADIENT = MOMENT = 4
"""Bytes of a parameter, its gradient and one moment: float32 always, autocast or not."""
CAST = 2
"""Bytes of a weight cast to bfloat16."""


@dataclass(frozen=True)
class Memory:
    """Peak memory of one rank in bytes, by part.

    Attributes:
        weights: its shard, float32.
        gradients: its shard, and whole ones while they wait to be reduced.
        optimizer: moments.
        unsharded: weights gathered from other ranks, whole for a while (FSDP2).
        casts: bfloat16 copies of weights that autocast keeps.
        activations: of blocks, last norm and rotary angles, of all micro-batches in flight; with zero-bubble schedules
            the gradients that wait for the backward pass to the weights too.
        logits: the loss: a chunk of logits, the gradient of the output matrix, its cast.
        working: of a block's backward pass, its recomputation with it.
        buffers: what a pipeline receives into, hidden states on their way out.
        overhead: of libraries and the device, see configs/hardware.
    """

    weights: float = 0.0
    gradients: float = 0.0
    optimizer: float = 0.0
    unsharded: float = 0.0
    casts: float = 0.0
    activations: float = 0.0
    logits: float = 0.0
    working: float = 0.0
    buffers: float = 0.0
    overhead: float = 0.0

    @property
    def total(self) -> float:
        """Sum of all parts."""
        return sum(getattr(self, name) for name in PARTS)


PARTS = tuple(field.name for field in fields(Memory))


def worst_rank(setup: TrainingSetup, overhead: float = 0.0) -> tuple[int, Memory]:
    """Pipeline rank with the highest peak memory, and that memory.

    Args:
        setup: the run.
        overhead: bytes that a process needs beside tensors.
    """
    each = [(rank_memory(setup, rank, overhead), rank) for rank in range(setup.sizes.pp)]
    memory, rank = max(each, key=lambda pair: pair[0].total)
    return rank, memory


def rank_memory(setup: TrainingSetup, pp_rank: int = 0, overhead: float = 0.0) -> Memory:
    """Parts at the highest moment of a rank; of those that share its stages, the one with the largest shards."""
    moments = _pipeline_moments(setup, pp_rank) if setup.sizes.pp > 1 else _moments(setup)
    highest = max(moments, key=lambda memory: memory.total)
    return Memory(**asdict(highest) | {"overhead": overhead})


def _states(setup: TrainingSetup, held: RankParameters) -> dict[str, float]:
    """Weights, gradients and optimizer of a shard: 4 + 4 + 8 bytes per parameter with AdamW, 4 less in blocks' matrices
    with Muon (`models.optimizers.muon`).
    """
    tp, shards = setup.sizes.tp, setup.sizes.dp_shard
    numbers = held.shard(tp, shards)
    moments = 2 * numbers
    if setup.optimizer == "Muon":
        moments -= held.blocks * sum(p.numel_of_shard(tp, shards) for p in held.block if len(p.shape) > 1)
    return {"weights": WEIGHT * numbers, "gradients": GRADIENT * numbers, "optimizer": MOMENT * moments}


def _block_numbers(setup: TrainingSetup, held: RankParameters) -> float:
    return numel_on_rank(held.block, setup.sizes.tp)


def _outside_numbers(setup: TrainingSetup, held: RankParameters) -> float:
    return numel_on_rank(held.outside, setup.sizes.tp)


def _block_casts(setup: TrainingSetup, held: RankParameters) -> float:
    """Bytes of a block's matrices in bfloat16."""
    return CAST * sum(p.numel_on_rank(setup.sizes.tp) for p in held.block if p.is_cast) if setup.mixed else 0.0


def _cached_casts(setup: TrainingSetup, held: RankParameters) -> float:
    """Bytes of a block's casts that autocast's cache keeps though their block was left: of whole parameters, not of the
    experts, which are views of one.
    """
    numbers = sum(p.numel_on_rank(setup.sizes.tp) for p in held.block if p.is_cast and len(p.shape) < 3)
    return CAST * numbers if setup.mixed else 0.0


def _matrix(setup: TrainingSetup) -> float:
    """Numbers of the output matrix on a rank."""
    return setup.config.vocabulary_size * setup.config.width / setup.sizes.tp


def _logits_forward(setup: TrainingSetup) -> float:
    """Bytes while the loss is computed: float32 gradient of the output matrix (4 V C), its bfloat16 cast and one
    product on the way into it (2 c V C), a chunk of logits in the product's dtype and in float32 (on a CPU only a
    cache's worth of that, see `_rows_at_once`), the hidden states and their cast.
    """
    c, tokens = setup.width_bytes, setup.microbatch_tokens
    chunk = min(CHUNK, tokens) * setup.config.vocabulary_size / setup.sizes.tp
    logits = chunk * c + (chunk * 4 if setup.device == "cuda" else 2**19 * 4)
    products = (2 if setup.mixed else 1) * c * _matrix(setup)
    hidden = tokens * setup.config.width * (4 + (c if setup.mixed else 0))
    return GRADIENT * _matrix(setup) + products + logits + hidden


def _logits_kept(setup: TrainingSetup) -> float:
    """Bytes from the loss to its backward pass: the gradient of the output matrix is made early (4 V C)."""
    return GRADIENT * _matrix(setup)


def _angles(setup: TrainingSetup) -> float:
    """Cosine and sine of a micro-batch's positions, shared by all blocks."""
    assert setup.config.head_width is not None
    return setup.microbatch_tokens * setup.config.head_width * setup.width_bytes


def _working(setup: TrainingSetup, held: RankParameters) -> float:
    """A block's backward pass: gradients on the way, one weight's gradient in the product's dtype, and what is
    computed again.
    """
    again = 0.0
    if setup.checkpointing != "none":
        again = block_bytes(setup, "none") - block_bytes(setup)
    largest = max(p.numel_on_rank(setup.sizes.tp) for p in held.block)
    cast = _block_casts(setup, held) if again or setup.compiled else 0.0
    recomputed = setup.microbatch_tokens * again + cast
    return setup.microbatch_tokens * working_bytes(setup) + recomputed + setup.width_bytes * largest


def _moments(setup: TrainingSetup) -> list[Memory]:
    """End of the forward pass, beginning of the backward pass, end of the backward pass."""
    held, sizes = rank_parameters(setup), setup.sizes
    states = _states(setup, held)
    sharded = sizes.data_parallel > 1
    block, outside = _block_numbers(setup, held), _outside_numbers(setup, held)
    # Blocks are gathered one ahead on a GPU; a gathered block is copied out of the buffer it came in.
    ahead = 3 if setup.device == "cuda" else 2
    unsharded = WEIGHT * (outside + ahead * block) if sharded else 0.0
    # Batches are accumulated in whole gradients, which become shards group by group in the last backward pass.
    waiting = GRADIENT * held.whole(sizes.tp) if sharded and setup.accumulate > 1 else 0.0
    # Autocast's cache keeps casts until the step's forward pass ends, kept activations or not.
    # Compiled blocks cast within their own graphs, once more in the backward pass.
    of_block = (_block_casts if setup.checkpointing == "none" else _cached_casts)(setup, held)
    casts = 0.0 if setup.compiled else held.blocks * of_block
    activations = setup.microbatch_tokens * (held.blocks * block_bytes(setup) + head_bytes(setup)) + _angles(setup)
    reducing = GRADIENT * ahead * block if sharded else 0.0
    casts_in_backward = casts if setup.checkpointing == "none" else 0.0
    matrix = GRADIENT * _matrix(setup)
    # Gradients of the step before live until the forward pass is over; accumulated ones longer.
    before = max(states["gradients"], waiting)
    remaining = before if setup.accumulate > 1 else 0.0
    forward_end = Memory(
        **states | {"gradients": before}, unsharded=unsharded, casts=casts, activations=activations,
        logits=_logits_forward(setup),
    )  # fmt: skip
    backward_begin = Memory(
        **states | {"gradients": remaining + reducing}, unsharded=unsharded, casts=casts_in_backward,
        activations=activations, logits=_logits_kept(setup) + matrix, working=_working(setup, held),
    )  # fmt: skip
    made = states["gradients"] + (2 * GRADIENT * outside if sharded else matrix)
    backward_end = Memory(
        **states | {"gradients": made}, unsharded=unsharded,
        working=_working(setup, held), activations=setup.microbatch_tokens * block_bytes(setup) + _angles(setup),
    )  # fmt: skip
    return [forward_end, backward_begin, backward_end]


def _pipeline_moments(setup: TrainingSetup, pp_rank: int) -> list[Memory]:
    """The highest of those after each action of the schedule, and the end of its step.

    A rank's stages stay gathered for the whole step. It begins without gradients; those of a stage are there from its
    first backward pass on, whole until the end (torch's stages reduce once). Each micro-batch in flight has its own
    casts of the weights where activations are kept, because autocast is entered for every one.
    """
    held, sizes = rank_parameters(setup, pp_rank), setup.sizes
    states = _states(setup, held)
    whole = held.whole(sizes.tp)
    sharded = sizes.data_parallel > 1
    unsharded = WEIGHT * whole if sharded else 0.0
    hidden = 4 * setup.microbatch_tokens * setup.config.width / sizes.tp
    last = setup.stages - 1
    # Of every micro-batch, whether it is in flight or not: hidden states into each stage but the first, gradients into
    # each but the last (torch's `_setup_forward_recv_info`).
    received = sum((stage > 0) + (stage < last) for stage in held.stages)
    buffers = setup.microbatches * hidden * received
    per_block = setup.microbatch_tokens * block_bytes(setup)
    casts_kept = _block_casts(setup, held) if setup.checkpointing == "none" and not setup.compiled else 0.0
    angles, head, kept = _angles(setup), setup.microbatch_tokens * head_bytes(setup), _logits_kept(setup)
    loss = _logits_forward(setup)
    split = setup.microbatch_tokens * split_gradient_bytes(setup)
    of_stage = {
        stage: GRADIENT * (
            count * _block_numbers(setup, held)
            + sum(p.numel_on_rank(sizes.tp) for p in held.embedding if stage == 0)
            + sum(p.numel_on_rank(sizes.tp) for p in held.head if stage == last)
        )
        for stage, count in held.stages.items()
    }  # fmt: skip
    common = Memory(**states | {"gradients": 0.0}, unsharded=unsharded, buffers=buffers)
    moments = []
    for counts in held_by(setup.schedule, sizes.pp, setup.stages_per_rank, setup.microbatches, pp_rank):
        activations = casts = outputs = logits = gradients = 0.0
        for stage, count, waiting, reached in zip(held.stages, *counts, strict=True):
            gradients += reached * of_stage[stage]
            activations += waiting * held.stages[stage] * split
            if stage == last:
                # Of the last norm's result, and of its input.
                activations += 2 * waiting * hidden
            # What comes in is a buffer already, of all stages but the first.
            activations += count * (held.stages[stage] * per_block - (hidden if stage else 0.0) + angles)
            casts += count * held.stages[stage] * casts_kept
            outputs += count * hidden
            if stage == last and count:
                activations += count * (head - hidden)
                logits = (count - 1) * kept + loss
        moments.append(
            (gradients + activations + casts + outputs + logits, gradients, activations, casts, outputs, logits)
        )
    _, gradients, activations, casts, outputs, logits = max(moments)
    highest = replace(
        common, gradients=gradients, activations=activations, casts=casts, buffers=buffers + outputs, logits=logits,
        working=_working(setup, held),
    )  # fmt: skip
    end = states["gradients"] + (GRADIENT * whole if sharded else 0.0)
    return [highest, replace(common, gradients=end)]


# As published


def zero_bytes(parameters: float, ranks: int, stage: int, optimizer_bytes: float = 12.0) -> float:
    """Bytes per device of weights, gradients and optimizer in half precision with ZeRO (Rajbhandari et al. 2020, figure
    1 and sections 5.1 to 5.3): (2 + 2 + K) P, the optimizer's K P, then the gradients' 2 P, then the weights' 2 P
    divided by the ranks.

    Args:
        parameters: P. ranks: N. stage: 0 none, 1 optimizer, 2 and gradients, 3 and weights.
        optimizer_bytes: K, of a float32 copy and two moments.
    """
    weights, gradients, optimizer = 2 * parameters, 2 * parameters, optimizer_bytes * parameters
    return (
        weights / (ranks if stage >= 3 else 1)
        + gradients / (ranks if stage >= 2 else 1)
        + optimizer / (ranks if stage >= 1 else 1)
    )
