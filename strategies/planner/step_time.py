"""Step time of a layout: kernels of every stage, pipeline schedule and exposed communication.

A roofline for each kind of kernel, products, attention and what only reads and writes, with the shares of the datasheet
that such kernels reach; no table of measured shapes, which would know one GPU and one library. What hides what is
decided as FSDP2 and torch's schedules do it.
"""

from dataclasses import dataclass

from models.anatomy import block_tensors, mean_causal_pairs
from models.flops import training_flops
from strategies.planner.activation_memory import residual_norms
from strategies.planner.communication import (
    data_parallel,
    gather_seconds,
    group_of,
    hidden_bytes,
    tensor_bytes_of_block,
    tensor_seconds_of_block,
    transfer_seconds,
)
from strategies.planner.hardware import Hardware
from strategies.planner.parameter_counts import layers_of_stages, rank_parameters
from strategies.planner.schedule_simulation import Times, bubble, busiest, replay
from strategies.planner.training_setup import TrainingSetup


@dataclass(frozen=True)
class StepTime:
    """Seconds of an optimizer step of the slowest rank, by part, and what was sent.

    Attributes:
        compute: kernels of the stages, recomputation included.
        tensor: exposed tensor-parallel communication, and its dispatch where no kernel hides it.
        data: exposed gathers of parameters and reductions of gradients.
        pipeline: idle time of the schedule, waiting for other stages and their messages.
        optimizer: gradient norm, clipping and update.
        bubble: idle over ideal time of the schedule.
        tensor_bytes, shard_bytes, replicate_bytes, pipeline_bytes: that a rank sends along these axes of the mesh.
        tensor_link, shard_link, replicate_link, pipeline_link: over which.
    """

    compute: float
    tensor: float
    data: float
    pipeline: float
    optimizer: float
    bubble: float
    tensor_bytes: float
    shard_bytes: float
    replicate_bytes: float
    pipeline_bytes: float
    tensor_link: str
    shard_link: str
    replicate_link: str
    pipeline_link: str

    @property
    def total(self) -> float:
        """Seconds of the step."""
        return self.compute + self.tensor + self.data + self.pipeline + self.optimizer


def block_flops(setup: TrainingSetup) -> tuple[float, float]:
    """FLOPs of a block's products and of its attention in the forward pass of a micro-batch, on one rank.

    2 FLOPs per token and parameter of a product; 4 per pair and channel in attention. Where layers have different
    windows, attention is the mean over layers: the slowest stage of a pipeline may take a little longer.
    """
    shape, t = setup.config, setup.sizes.tp
    assert shape.head_width is not None
    parameters = sum(tensor.multiplied_per_token for tensor in block_tensors(shape))
    windows = setup.microbatch_tokens // setup.sequence_length
    pairs = mean_causal_pairs(shape, setup.sequence_length) * windows
    return 2.0 * parameters * setup.microbatch_tokens / t, 4.0 * shape.heads * shape.head_width * pairs / t


def block_traffic(setup: TrainingSetup) -> float:
    """Bytes that a block's elementwise kernels read and write in the forward pass of a micro-batch, on one rank.

    Eager: norm 8 C + 4 of each, a cast 6 C for each of the five products' inputs, rotation 8 c a channel of queries and
    keys, silu 2 c F, product 3 c F, and 10 C for each of the two additions to the residual stream. Compiled, each chain
    is one kernel: norm and cast 6 C, rotation 2 c, silu and product 3 c F, addition 10 C.
    """
    shape, t, c = setup.config, setup.sizes.tp, setup.width_bytes
    assert shape.head_width is not None
    active = 1 if shape.experts is None else shape.experts.experts_per_token
    norms = residual_norms(shape)
    turned = (shape.heads + shape.key_value_heads) * shape.head_width / t
    gated = active * shape.feed_forward_width / t
    if setup.compiled:
        per_token = norms * 6 * shape.width / t + 2 * c * turned + 3 * c * gated + 20 * shape.width / t
    else:
        casts = 5 * 6 * shape.width if setup.mixed else 0
        per_token = norms * 8 * shape.width / t + casts + 8 * c * turned + 5 * c * gated + 20 * shape.width / t
    # Experts also copy their tokens there and back.
    moved = 0 if shape.experts is None else active * 4 * (4 + c) * shape.width
    return setup.microbatch_tokens * (per_token + moved)


def block_seconds(setup: TrainingSetup, hardware: Hardware) -> tuple[float, float]:
    """Seconds of a block's kernels in a micro-batch: forward, and backward with what it computes again.

    Backward products take twice the forward's, attention two and a half times (its scores are computed again, Dao 2023,
    section 3.1.2), elementwise kernels twice. Full recomputation adds a forward pass; selective one without products.
    """
    products, attention = block_flops(setup)
    rate = hardware.peak(setup.mixed, setup.float8)
    # Gradients of weights stay in bfloat16 (`strategies.parallel.float8`): a third of the products of a step.
    plain = hardware.peak(setup.mixed) * hardware.matmul_share
    fast = rate * hardware.matmul_share
    attention_seconds = attention / (hardware.peak(setup.mixed) * hardware.attention_share)
    elementwise = block_traffic(setup) / (hardware.memory_bandwidth * hardware.memory_share)
    forward = products / fast + attention_seconds + elementwise
    backward = products / fast + products / plain + 2.5 * attention_seconds + 2 * elementwise
    again = {"none": 0.0, "selective": attention_seconds + elementwise, "full": forward}[setup.checkpointing]
    return forward, backward + again


def head_seconds(setup: TrainingSetup, hardware: Hardware) -> float:
    """Seconds of the last norm and the loss of a micro-batch: three products with the output matrix, all in the forward
    pass, and the chunk's logits read and written about six times in float32.
    """
    shape = setup.config
    matrix = shape.width * shape.vocabulary_size / setup.sizes.tp
    products = 6.0 * matrix * setup.microbatch_tokens / (hardware.peak(setup.mixed) * hardware.matmul_share)
    logits = 6 * 4.0 * setup.microbatch_tokens * shape.vocabulary_size / setup.sizes.tp
    # The float32 sum of the matrix's gradient is read and written for every chunk of 1,024 tokens.
    sums = 3 * 4.0 * matrix * max(1.0, setup.microbatch_tokens / 1024)
    return products + (logits + sums) / (hardware.memory_bandwidth * hardware.memory_share)


def optimizer_seconds(setup: TrainingSetup, hardware: Hardware, numbers: float) -> float:
    """Seconds of the norm (4 bytes per parameter read), clipping (8) and the fused update (16 read, 12 written)."""
    return 40.0 * numbers / (hardware.memory_bandwidth * hardware.memory_share)


def step_time(setup: TrainingSetup, hardware: Hardware) -> StepTime:
    """Seconds of a step.

    Args:
        setup: the run.
        hardware: of every rank.
    """
    layers = layers_of_stages(setup)
    tensor_group = group_of(setup, hardware, "tp")
    forward, backward = block_seconds(setup, hardware)
    tensor_forward, tensor_backward = tensor_seconds_of_block(setup, hardware)
    head = head_seconds(setup, hardware)
    if setup.sizes.tp > 1:
        # The last hidden states gathered, their gradient reduced.
        head += 2 * gather_seconds(tensor_group, 4.0 * setup.microbatch_tokens * setup.config.width)
    sends = setup.microbatches
    compute_of = [count * (forward + backward) for count in layers]
    tensor_of = [count * (tensor_forward + tensor_backward) for count in layers]
    compute_of[-1] += head
    if setup.sizes.pp == 1:
        working, communicating = sends * compute_of[0], sends * tensor_of[0]
        idle = share = 0.0
    else:
        times = Times(
            forward=tuple(
                count * (forward + tensor_forward) + (head if stage == setup.stages - 1 else 0.0)
                for stage, count in enumerate(layers)
            ),
            backward=tuple(count * (backward + tensor_backward) for count in layers),
            transfer=transfer_seconds(setup, hardware),
        )
        layout = (setup.schedule, setup.sizes.pp, setup.stages_per_rank, sends)
        total, busy = replay(*layout, times), busiest(*layout, times)
        fraction = sum(tensor_of) / (sum(tensor_of) + sum(compute_of))
        working, communicating = busy * (1 - fraction), busy * fraction
        idle, share = total - busy, bubble(*layout, times)
    data = _exposed_data_parallel(setup, hardware, forward + tensor_forward, backward + tensor_backward)
    worst = max((rank_parameters(setup, rank) for rank in range(setup.sizes.pp)), key=lambda h: h.whole(1))
    exchanged = data_parallel(setup, hardware, worst)
    ends = worst.blocks * (sum(tensor_bytes_of_block(setup)))
    stages_sent = sum((s < setup.stages - 1) + (s > 0) for s in worst.stages)
    return StepTime(
        compute=working,
        tensor=communicating,
        data=data,
        pipeline=idle,
        optimizer=optimizer_seconds(setup, hardware, worst.shard(setup.sizes.tp, setup.sizes.dp_shard)),
        bubble=share,
        tensor_bytes=ends * sends * (setup.sizes.tp - 1) / setup.sizes.tp,
        shard_bytes=exchanged.gathered + exchanged.reduced,
        replicate_bytes=exchanged.replicated,
        pipeline_bytes=stages_sent * sends * hidden_bytes(setup) if setup.sizes.pp > 1 else 0.0,
        tensor_link=tensor_group.link,
        shard_link=group_of(setup, hardware, "dp_shard").link,
        replicate_link=group_of(setup, hardware, "dp_replicate").link,
        pipeline_link=group_of(setup, hardware, "pp").link,
    )


def least_seconds(setup: TrainingSetup, hardware: Hardware) -> float:
    """Lower bound of a layout's step time in seconds: kernels and tensor-parallel messages of the average rank."""
    forward, backward = block_seconds(setup, hardware)
    tensor = sum(tensor_seconds_of_block(setup, hardware))
    blocks = setup.config.layers * (forward + backward + tensor)
    return setup.microbatches * (blocks + head_seconds(setup, hardware)) / setup.sizes.pp


def _exposed_data_parallel(setup: TrainingSetup, hardware: Hardware, forward: float, backward: float) -> float:
    """Seconds of gathers and reductions that no computation hides.

    Without a pipeline the next block is gathered while one computes, and gradients of a block are reduced while the one
    before it computes; what takes longer than that is exposed, and so are the first gather and the last reduction. In a
    pipeline all is gathered before the first and reduced after the last micro-batch. A CPU's ranks send with the cores
    they compute on: there nothing is hidden.
    """
    if setup.sizes.data_parallel == 1:
        return 0.0
    if setup.device == "cpu":
        forward = backward = 0.0
    worst = 0.0
    for rank in range(setup.sizes.pp):
        held = rank_parameters(setup, rank)
        dp = data_parallel(setup, hardware, held)
        if setup.sizes.pp > 1:
            seconds = held.blocks * (dp.gather_block + dp.reduce_block) + dp.gather_outside + dp.reduce_outside
        else:
            hidden = max(0, held.blocks - 1)
            exposed_forward = dp.gather_outside + dp.gather_block + hidden * max(0.0, dp.gather_block - forward)
            exposed_backward = hidden * max(0.0, dp.gather_block - backward)
            last = hidden * max(0.0, dp.gather_block + dp.reduce_block - backward) + dp.reduce_block + dp.reduce_outside
            gathering = setup.microbatches * exposed_forward + (setup.microbatches - 1) * exposed_backward
            seconds = (gathering if dp.gathers else 0.0) + last
        worst = max(worst, seconds)
    return worst


# Utilization


def model_flops_of_step(setup: TrainingSetup) -> float:
    """FLOPs of a step, forward and backward, attention causal over whole windows; nothing that is computed again."""
    windows = setup.step_tokens // setup.sequence_length
    return training_flops(
        setup.config, setup.step_tokens, windows * mean_causal_pairs(setup.config, setup.sequence_length)
    )


def days(flops: float, devices: int, flops_per_second: float) -> float:
    """Days that a number of FLOPs takes on devices of a rate."""
    return flops / (devices * flops_per_second) / 86_400


# As published


def narayanan_days(parameters: float, tokens: float, devices: int, flops_per_second: float) -> float:
    """Days of training with full recomputation, 8 T P / (n X) (Narayanan et al. 2021, equation 4).

    Args:
        parameters: P. tokens: T. devices: n. flops_per_second: X, reached by each.
    """
    return days(8 * tokens * parameters, devices, flops_per_second)


def korthikanti_flops(
    layers: int, width: int, sequence: int, batch: int, vocabulary: int, selective: bool = False
) -> float:
    """FLOPs of an iteration, 72 B L s h^2 (1 + s / 6h + V / 12 h L); with what selective recomputation computes again,
    s / 3h in place of s / 6h (Korthikanti et al. 2022, equations 7 and 8).

    Args:
        layers: L. width: h. sequence: s. batch: B, windows. vocabulary: V.
        selective: hardware FLOPs in place of the model's.
    """
    attention = sequence / ((3 if selective else 6) * width)
    head = vocabulary / (12 * width * layers)
    return 72.0 * batch * layers * sequence * width**2 * (1 + attention + head)
