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

MAX_GROUP_SIZE = 1 << 16
"""Answers to one prompt, at most: the place among them takes the lower bits of an answer's number."""


@dataclass(frozen=True)
class PackedRollouts:
    """Some of the answers in one row without padding, those to one prompt as branches behind it, so that it is computed
    once. A branch begins with a copy of the prompt's last token, from which its first one is drawn; the last token of
    an answer is a target only.

    Attributes:
        tokens, documents: int64 [1, N]; a document is a prompt with its answers.
        branches: int64 [1, N], see `models.decoder.Decoder.forward`; None where every prompt has one answer.
        states: int64 [T], the place in the row from which each token of the answers was drawn.
        targets: int64 [T], those tokens.
        lengths: int64 [A], tokens of each answer.
        source: int64 [T], which of all rollouts' tokens each is.
    """

    tokens: Tensor
    documents: Tensor
    branches: Tensor | None
    states: Tensor
    targets: Tensor
    lengths: Tensor
    source: Tensor

    def to(self, device: torch.device) -> "PackedRollouts":
        """The same row on a device."""
        tensors: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        moved: dict[str, Any] = {name: None if value is None else value.to(device) for name, value in tensors.items()}
        return PackedRollouts(**moved)

    def hidden(self, decoder: Decoder) -> Tensor:
        """The states from which the tokens of the answers were drawn, [T, C]."""
        states: Tensor = decoder(self.tokens, self.documents, branches_BT=self.branches)[0, self.states]
        return states


@dataclass(frozen=True)
class Rollouts:
    """Answers to prompts, those to one prompt side by side.

    Attributes:
        prompts: token ids, for each answer.
        answers: tokens, log-probabilities at sampling, and how each ended.
        samples: sample number of the prompt, for each answer.
        group_size: answers to each prompt.
    """

    prompts: list[Sequence[int]]
    responses: list[Generated]
    samples: list[int]
    group_size: int

    def __len__(self) -> int:
        return len(self.responses)

    @property
    def lengths(self) -> Tensor:
        """Tokens of each answer, the stop token among them, int64 [A]."""
        return torch.tensor([len(response.tokens) for response in self.responses])

    @property
    def stopped(self) -> Tensor:
        """Answers that ended by a stop token, boolean [A]. Prompts have no part in it."""
        return torch.tensor([response.finish == "stop" for response in self.responses])

    @property
    def log_probabilities(self) -> Tensor:
        """Of every token of the answers as the sampler knew them, float32 [T]."""
        return torch.tensor([value for response in self.responses for value in response.log_probabilities])

    def bundles(self, chosen: Iterable[int], budget: int) -> list[list[int]]:
        """The chosen answers, those to one prompt together as far as the budget of tokens allows."""
        found: list[list[int]] = []
        for number in sorted(chosen):
            alike = bool(found) and found[-1][0] // self.group_size == number // self.group_size
            if alike and self.size([*found[-1], number]) <= budget:
                found[-1].append(number)
            else:
                found.append([number])
        return found

    def size(self, bundle: Sequence[int]) -> int:
        """Tokens that a prompt with these of its answers takes in a row."""
        return len(self.prompts[bundle[0]]) - 1 + sum(len(self.responses[number].tokens) for number in bundle)

    def pack(self, chosen: Iterable[int], device: torch.device) -> PackedRollouts:
        """A row of the chosen answers, those to one prompt side by side."""
        every = self.lengths.numpy()
        offsets = np.cumsum(every) - every
        tokens: list[int] = []
        documents: list[int] = []
        branches: list[int] = []
        responses: list[tuple[int, int]] = []
        for document, bundle in enumerate(self.bundles(chosen, sys.maxsize)):
            prompt = self.prompts[bundle[0]]
            parts = [(list(prompt[:-1]), 0)]
            place = len(tokens) + len(parts[0][0])
            for branch, number in enumerate(bundle, start=int(len(bundle) > 1)):
                parts.append(([prompt[-1], *self.responses[number].tokens[:-1]], branch))
                responses.append((number, place))
                place += len(parts[-1][0])
            for part, branch in parts:
                tokens += part
                branches += [branch] * len(part)
            documents += [document] * (place - len(documents))
        numbers, places = np.array(responses).T
        lengths = every[numbers]
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        targets = [token for number in numbers for token in self.responses[number].tokens]

        def there(values: Any) -> Tensor:
            return torch.as_tensor(values).to(device, non_blocking=True)

        return PackedRollouts(
            there(tokens)[None],
            there(documents)[None],
            there(branches)[None] if any(branches) else None,
            there(np.repeat(places, lengths) + within),
            there(targets),
            there(lengths),
            there(np.repeat(offsets[numbers], lengths) + within),
        )


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
