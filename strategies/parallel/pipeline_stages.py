"""Pipeline stages of a decoder: balanced ranges of layers, and the modules that run them.

Stages are balanced by the FLOPs of a token, the output projection counted as what it is, often worth several blocks.
A stage is a second view of modules that stay under their own names, so that parameters are called the same in every
layout.
"""

from typing import Any

from torch import nn

from common.errors import InputError
from models.anatomy import block_tensors, causal_pairs, head_tensors
from models.config import DecoderConfig


def layer_costs(config: DecoderConfig, sequence_length: int) -> list[float]:
    """Forward FLOPs per token of the embedding, each block and the head.

    Args:
        config: shape of the decoder.
        sequence_length: tokens in a window of the data, one causal document; a layer's attention window shortens what
            it attends to.
    """
    assert config.head_width is not None
    products = 2 * sum(tensor.multiplied_per_token for tensor in block_tensors(config))
    blocks = []
    for layer in range(config.layers):
        pairs = causal_pairs(sequence_length, config.window_of(layer)) / sequence_length
        blocks.append(products + 4 * config.heads * config.head_width * pairs)
    return [0.0, *blocks, 2.0 * sum(tensor.multiplied_per_token for tensor in head_tensors(config))]


def split_layers(costs: list[float], stages: int) -> list[range]:
    """Contiguous ranges of blocks, one per stage, that make the most expensive stage as cheap as possible.

    Args:
        costs: of the embedding (with the first stage), of each block, of the head (with the last stage).
        stages: number of ranges, none empty.

    Returns:
        Ranges over block numbers; among the best cuts the one whose earlier stages are fuller.

    Raises:
        InputError: when there are fewer blocks than stages.
    """
    embedding, *blocks, head = costs
    if len(blocks) < stages:
        raise InputError(f"layers={len(blocks)}: fewer than the {stages} pipeline stages, use fewer stages")
    blocks[0] += embedding
    blocks[-1] += head
    sums = [0.0]
    for cost in blocks:
        sums.append(sums[-1] + cost)
    # worst[s][n]: cost of the most expensive stage when the first n blocks fill s stages; first[s][n]: where stage s
    # begins.
    worst = [[0.0] + [float("inf")] * len(blocks)]
    first: list[list[int]] = [[0] * (len(blocks) + 1)]
    for _ in range(stages):
        row, cut = [float("inf")] * (len(blocks) + 1), [0] * (len(blocks) + 1)
        for end in range(1, len(blocks) + 1):
            for start in range(end):
                cost = max(worst[-1][start], sums[end] - sums[start])
                if cost <= row[end]:
                    row[end], cut[end] = cost, start
        worst.append(row)
        first.append(cut)
    ranges, end = [], len(blocks)
    for stage in range(stages, 0, -1):
        start = first[stage][end]
        ranges.append(range(start, end))
        end = start
    return ranges[::-1]


def stage_view(model: Any, layers: range, is_first: bool, is_last: bool) -> nn.Module:
    """A module of the model's class that runs some of its layers, sharing the modules themselves."""
    kind: Any = type(model)
    view = kind.__new__(kind)
    nn.Module.__init__(view)
    for name, value in vars(model).items():
        if name not in vars(view):
            setattr(view, name, value)
    view.tok_embeddings = model.tok_embeddings if is_first else None
    view.layers = nn.ModuleDict({str(index): model.layers[str(index)] for index in layers})
    view.norm = model.norm if is_last else None
    view.output = model.output if is_last else None
    assert isinstance(view, nn.Module)
    return view


def prune(model: Any, owned: list[range], stages: int, ranges: list[range]) -> None:
    """Drop from a model what belongs to none of the stages `owned` by this process.

    A matrix tied between the first stage and the last becomes two, each stage's own; the strategy keeps them equal.
    """
    kept = {str(index) for layers in owned for index in layers}
    for name in list(model.layers):
        if name not in kept:
            del model.layers[name]
    if model.output is not None and model.output.weight is model.tok_embeddings.weight:
        model.output.weight = nn.Parameter(model.tok_embeddings.weight.detach().clone())
    if ranges[0] not in owned:
        model.tok_embeddings = None
    if ranges[stages - 1] not in owned:
        model.norm = model.output = None
