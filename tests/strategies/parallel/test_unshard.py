"""Decoding around the weights that are trained: nothing is copied, and ranks do not wait for each other."""

import os
from typing import Any

import pytest
import torch
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from models.decoder import DecoderConfig
from models.inference.generation import generate
from models.inference.sampling import Sampling
from models.initialization import build_decoder
from models.lora import LoRA
from strategies.parallel.unshard import _around_the_same_weights, unsharded
from tests.helpers.distributed import run_ranks

SHAPE = {"vocabulary_size": 16, "width": 16, "layers": 2, "heads": 2, "key_value_heads": 1, "feed_forward_width": 24}


@pytest.mark.parametrize("changes", [{}, {"tied_embeddings": False, "lora": LoRA(rank=2)}], ids=["tied", "adapted"])
def test_a_second_set_of_modules_holds_the_same_tensors(changes: dict[str, Any]) -> None:
    model = build_decoder(DecoderConfig(**SHAPE | changes))
    twin = _around_the_same_weights(model)
    mine, theirs = dict(twin.named_parameters()), dict(model.named_parameters())
    assert mine.keys() == theirs.keys()
    assert all(mine[name] is theirs[name] for name in mine)
    tokens = torch.randint(16, (1, 5))
    assert torch.equal(twin(tokens), model(tokens))
    with unsharded(model) as whole:
        assert whole is model


def decode_unequally() -> tuple[list[list[int]], list[list[int]]]:
    """What this rank decodes with a plain model, and with a sharded one, of which rank 1 asks more than rank 0."""
    rank, world = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE"))
    torch.distributed.init_process_group("gloo", rank=rank, world_size=world)
    arguments: dict[str, Any] = {"max_new_tokens": 3 + 5 * rank, "sampling": Sampling(seed=4)}
    prompts = [[4, 5], [6]] * (1 + rank)
    plain, model = (build_decoder(DecoderConfig(**SHAPE), seed=1) for _ in range(2))
    for block in model.layers.values():
        fully_shard(block)
    fully_shard(model, reshard_after_forward=False)
    with unsharded(model) as whole:
        found = [one.tokens for one in generate(whole, prompts, **arguments)]
    # Training goes on as if nothing had happened.
    model(torch.tensor([[4, 5, 6]])).sum().backward()
    assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
    assert all(parameter.grad is not None for parameter in model.layers.parameters())
    return [one.tokens for one in generate(plain, prompts, **arguments)], found


@pytest.mark.distributed
def test_ranks_decode_with_whole_weights_and_for_themselves() -> None:
    for expected, found in run_ranks(2, decode_unequally):
        assert found == expected
