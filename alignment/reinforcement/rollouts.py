"""Answers drawn from the policy, behind one interface: who decodes is swapped in YAML, what is learned from is not.

The default decodes with the very weights that are trained, in the process that trains them: no copy and no server, for
fewer tokens a second on a GPU than an engine made for it. An answer depends on the weights and on (seed, sample number,
place among the prompt's answers), never on what is decoded beside it: any layout and any restart draws the same.

Shape suffixes: N tokens of a packed row, T tokens of answers, A answers.
"""

import sys
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.errors import InputError
from models.decoder import Decoder
from models.inference.generation import Generated, generate
from models.inference.sampling import Sampling

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
        states: Tensor = decoder(self.tokens, self.documents, branch_ids_BT=self.branches)[0, self.states]
        return states


@dataclass(frozen=True)
class Rollouts:
    """Answers to prompts, those to one prompt side by side.

    Attributes:
        prompts: token ids, for each answer.
        answers: tokens, log-probabilities at sampling, and how each ended.
        samples: sample number of the prompt, for each answer.
        group: answers to each prompt.
    """

    prompts: list[Sequence[int]]
    responses: list[Generated]
    samples: list[int]
    group: int

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
            alike = bool(found) and found[-1][0] // self.group == number // self.group
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


class RolloutEngine(ABC):
    """Decodes prompts."""

    @abstractmethod
    def generate(
        self,
        policy: Decoder,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        sampling: Sampling,
        stop: Collection[int],
        rows: Sequence[int],
    ) -> list[Generated]:
        """One answer a prompt, with the arguments of `models.inference.generation.generate`.

        Args:
            policy: the decoder, whole, with the weights of this step.
        """


class DecoderEngine(RolloutEngine):
    """`models.inference.generation` with the trainer's own weights and precision.

    Args:
        slots: answers decoded together; each takes memory for keys and values of the longest prompt and answer.
        cuda_graphs: replay recorded steps; pays for long answers on a GPU.

    Raises:
        InputError: for no slots.
    """

    def __init__(self, slots: int = 64, cuda_graphs: bool = False) -> None:
        if slots < 1:
            raise InputError(f"engine.slots={slots}: must be at least 1")
        self.slots, self.cuda_graphs = slots, cuda_graphs

    def generate(
        self,
        policy: Decoder,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        sampling: Sampling,
        stop: Collection[int],
        rows: Sequence[int],
    ) -> list[Generated]:
        with weights_cast_once(policy.tok_embeddings.weight.device.type):
            return generate(
                policy,
                prompts,
                max_new_tokens=max_new_tokens,
                sampling=sampling,
                stop=stop,
                slots=self.slots,
                rows=rows,
                cuda_graphs=self.cuda_graphs,
            )


@contextmanager
def weights_cast_once(device_type: str) -> Iterator[None]:
    """Within autocast, narrow each weight once instead of once a token.

    Lightning's autocast keeps no narrowed weights, rightly: they would be stale after an optimizer step. Nothing is
    trained here, and what was kept is forgotten at the end.
    """
    if not torch.is_autocast_enabled(device_type):
        yield
        return
    try:
        with torch.autocast(device_type, torch.get_autocast_dtype(device_type), cache_enabled=True):
            yield
    finally:
        torch.clear_autocast_cache()


@contextmanager
def whole(strategy: Any, decoder: Decoder) -> Iterator[Decoder]:
    """The decoder with all its weights on this process, so that ranks decode without waiting for each other."""
    if hasattr(strategy, "unsharded"):
        with strategy.unsharded(decoder) as unsharded:
            yield unsharded
    else:
        yield decoder


def roll_out(
    engine: RolloutEngine,
    policy: Decoder,
    prompts: Sequence[Sequence[int]],
    samples: Sequence[int],
    group: int,
    *,
    max_new_tokens: int,
    sampling: Sampling,
    stop: Collection[int],
) -> Rollouts:
    """Draw `group` answers to every prompt.

    Args:
        engine, policy: who decodes, and with which weights.
        prompts: token ids.
        samples: number of each prompt's sample; with the place among its answers and the seed it names the draw.
        group: answers to each prompt.
        max_new_tokens, sampling, stop: see `models.inference.generation.generate`.
    """
    repeated = [prompt for prompt in prompts for _ in range(group)]
    numbers = [sample for sample in samples for _ in range(group)]
    places = list(range(group)) * len(samples)
    rows = [max(sample, 0) * MAX_GROUP_SIZE + place for sample, place in zip(numbers, places, strict=True)]
    responses = engine.generate(
        policy, repeated, max_new_tokens=max_new_tokens, sampling=sampling, stop=stop, rows=rows
    )
    return Rollouts(repeated, responses, numbers, group)
