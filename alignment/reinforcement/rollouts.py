"""Rollouts: responses sampled from the policy, and the packed rows in which models score them.

A prompt is computed once for all its responses, which are branches behind it; the price is a row with branch ids, which
attention kernels must know.

Shape suffixes: N tokens of a packed row, T tokens of responses, A responses.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alignment.reinforcement.engines.base import Decoding, RolloutEngine
from common.contracts import ShardedStrategy
from models.decoder import Decoder
from models.inference.generation import Generated
from models.packed_batch import PackedResponses, pack_responses

MAX_GROUP_SIZE = 1 << 16
"""Responses to one prompt, at most: the place among them takes the lower bits of a response's number."""


@dataclass(frozen=True)
class PackedRollouts(PackedResponses):
    """Packed row of some of the responses; the last token of a response is a target only.

    Attributes:
        source: int64 [T], which of all rollouts' tokens each target is.
    """

    source: Tensor


@dataclass(frozen=True)
class Rollouts:
    """Responses to prompts, those to one prompt side by side.

    Attributes:
        prompts: token ids, for each response.
        responses: tokens, log-probabilities at sampling, and how each ended.
        samples: sample number of the prompt, for each response.
        group_size: responses to each prompt.
    """

    prompts: list[Sequence[int]]
    responses: list[Generated]
    samples: list[int]
    group_size: int

    def __len__(self) -> int:
        return len(self.responses)

    @property
    def lengths(self) -> Tensor:
        """Tokens of each response, the stop token among them, int64 [A]."""
        return torch.tensor([len(response.tokens) for response in self.responses])

    @property
    def stopped(self) -> Tensor:
        """Responses that ended by a stop token, boolean [A]. Prompts have no part in it."""
        return torch.tensor([response.finish == "stop" for response in self.responses])

    @property
    def log_probabilities(self) -> Tensor:
        """Log-probabilities of every token of the responses by the sampler, float32 [T]."""
        return torch.tensor([value for response in self.responses for value in response.log_probabilities])

    def bundles(self, chosen: Iterable[int], budget: int) -> list[list[int]]:
        """The chosen responses, those to one prompt together as far as the budget of tokens allows."""
        found: list[list[int]] = []
        for number in sorted(chosen):
            alike = bool(found) and found[-1][0] // self.group_size == number // self.group_size
            if alike and self.size([*found[-1], number]) <= budget:
                found[-1].append(number)
            else:
                found.append([number])
        return found

    def size(self, bundle: Sequence[int]) -> int:
        """Tokens that a prompt with these of its responses takes in a row."""
        return len(self.prompts[bundle[0]]) - 1 + sum(len(self.responses[number].tokens) for number in bundle)

    def pack(self, chosen: Iterable[int], device: torch.device) -> PackedRollouts:
        """A row of the chosen responses, those to one prompt side by side."""
        every = self.lengths.numpy()
        offsets = np.cumsum(every) - every
        bundles = self.bundles(chosen, sys.maxsize)
        numbers = [number for bundle in bundles for number in bundle]
        row = pack_responses(
            [(self.prompts[bundle[0]], [self.responses[number].tokens for number in bundle]) for bundle in bundles]
        )
        source = np.concatenate([offsets[number] + np.arange(every[number]) for number in numbers])
        parts = {field.name: getattr(row, field.name) for field in fields(row)}
        return PackedRollouts(**parts, source=torch.from_numpy(source)).to(device)


@contextmanager
def unsharded_policy(strategy: Any, decoder: Decoder) -> Iterator[Decoder]:
    """The decoder with all its weights on this rank, so that ranks decode without waiting for each other.

    Args:
        strategy: of the Trainer.
        decoder: sharded by it, or not.
    """
    if isinstance(strategy, ShardedStrategy):
        with strategy.unsharded(decoder) as unsharded:
            yield unsharded
    else:
        yield decoder


def roll_out(
    engine: RolloutEngine,
    policy: Decoder,
    prompts: Sequence[Sequence[int]],
    samples: Sequence[int],
    group_size: int,
    decoding: Decoding,
) -> Rollouts:
    """Rollouts: `group_size` responses to every prompt.

    Args:
        engine: engine that decodes.
        policy: decoder, unsharded.
        prompts: token ids.
        samples: number of each prompt's sample; with the place in its group and the seed it decides the draw.
        group_size: responses per prompt.
        decoding: decoding options.
    """
    repeated = [prompt for prompt in prompts for _ in range(group_size)]
    numbers = [sample for sample in samples for _ in range(group_size)]
    places = list(range(group_size)) * len(samples)
    rows = [max(sample, 0) * MAX_GROUP_SIZE + place for sample, place in zip(numbers, places, strict=True)]
    return Rollouts(repeated, engine.generate(policy, repeated, decoding, rows), numbers, group_size)
