"""Tensor- and sequence-parallel plan (TP plan) of a decoder: how each parameter is cut over `tp`.

One plan, computed from `models.anatomy`, serves every model that follows the name contract: column-parallel products
into a block, row-parallel products out of it, and the residual stream between blocks cut along the sequence
(Korthikanti et al. 2022): norms then work on a part of the tokens, and an all-reduce becomes a reduce-scatter and an
all-gather of the same volume. The parameters become DTensors, so that sharding, checkpoints and norms all read their
placement from the parameter itself.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)

from models.anatomy import TensorParallel, block_tensors
from models.config import DecoderConfig

SEQUENCE = 1
"""Dimension of the sequence in [batch, time, channels]."""
HEADS = 2
"""Dimension of the heads in [batch, time, heads, head width]."""


class GatheredNorm(ParallelStyle):
    """Sequence-parallel norm whose output is gathered on every rank, as a plain tensor.

    Args:
        gradient: what each process brings back: its part of a sum where it computes a slice of the vocabulary
            (nothing has to add up before the reduce-scatter to the sequence does), or the whole where all compute the
            same.
    """

    def __init__(self, gradient: Partial | Replicate) -> None:
        super().__init__()
        self.gradient = gradient

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        def gather(module: nn.Module, inputs: Any, output: DTensor) -> Tensor:
            return output.redistribute(placements=[Replicate()]).to_local(grad_placements=[self.gradient])

        parallelize_module(module, device_mesh, SequenceParallel(sequence_dim=SEQUENCE))
        module.register_forward_hook(gather)
        return module


def block_plan(config: DecoderConfig) -> dict[str, ParallelStyle]:
    """Styles by sub-module of a block, computed from `models.anatomy.block_tensors`.

    Args:
        config: shape of the decoder.
    """
    sequence = Shard(SEQUENCE)
    styles: dict[TensorParallel, Callable[[], ParallelStyle]] = {
        "column": ColwiseParallel,
        "row": lambda: RowwiseParallel(output_layouts=sequence),
        "sequence": lambda: SequenceParallel(sequence_dim=SEQUENCE),
        # Of each process's own heads.
        "heads": lambda: SequenceParallel(sequence_dim=HEADS, use_local_output=True),
    }
    # The two layers gather the sequence; attention is called with (x, layout, cache, layer).
    plan: dict[str, ParallelStyle] = {
        "attention": PrepareModuleInput(
            input_layouts=(sequence, None, None, None), desired_input_layouts=(Replicate(), None, None, None)
        ),
        "feed_forward": PrepareModuleInput(input_layouts=(sequence,), desired_input_layouts=(Replicate(),)),
    }
    for tensor in block_tensors(config):
        if tensor.tensor_parallel in styles:
            plan[tensor.module] = styles[tensor.tensor_parallel]()
    return plan


def apply_tensor_parallel(model: Any, mesh: DeviceMesh) -> None:
    """Cut a model (or the stages' union of one) over the `tp` mesh; absent sub-modules are passed over.

    Args:
        model: has `tok_embeddings`, `layers.<i>`, `norm`, `output`; its parameters may be on the meta device.
        mesh: one-dimensional.
    """
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    tied = model.output is not None and model.tok_embeddings is not None
    tied = tied and model.output.weight is model.tok_embeddings.weight
    if model.tok_embeddings is not None:
        style = RowwiseParallel(input_layouts=Replicate(), output_layouts=Shard(SEQUENCE))
        parallelize_module(model.tok_embeddings, mesh, style)
    for block in model.layers.values():
        parallelize_module(block, mesh, block_plan(model.config))
    scalar = model.config.scalar_output
    if model.norm is not None:
        parallelize_module(model.norm, mesh, GatheredNorm(Replicate() if scalar else Partial()))
    if scalar:
        # One row cannot be cut: every process computes the same score.
        weight = distribute_tensor(model.output.weight, mesh, [Replicate()], src_data_rank=None)
        model.output.weight = nn.Parameter(weight, requires_grad=model.output.weight.requires_grad)
    elif model.output is not None:
        # The losses read the matrix itself; `parallelize_module` would untie it from the embedding.
        if tied:
            model.output.weight = model.tok_embeddings.weight
        else:
            parallelize_module(model.output, mesh, ColwiseParallel())
    for name, parameter in model.named_parameters():
        # Some styles make new parameters, which would train what was frozen.
        parameter.requires_grad_(name not in frozen)
