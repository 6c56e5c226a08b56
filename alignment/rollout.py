"""Answers drawn from the policy, behind one interface: who decodes is swapped in YAML, what is learned from is not.

The default decodes with the very weights that are trained, in the process that trains them: no copy and no server, for
fewer tokens a second on a GPU than an engine made for it. An answer depends on the weights and on (seed, sample number,
place among the prompt's answers), never on what is decoded beside it: any layout and any restart draws the same.

Shape suffixes: N tokens of a packed row, T tokens of answers, A answers.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from errors import InputError
from models.decoder import Decoder
from models.generation import Generated, generate
from models.sampling import Sampling

MOST_ANSWERS = 1 << 16
"""Answers to one prompt, at most: the place among them takes the lower bits of an answer's number."""


@dataclass(frozen=True)
class Packed:
    """Some of the answers, each with its prompt in front as a document of its own, in one row without padding. The last
    token of an answer is a target only.

    Attributes:
        tokens, documents: int64 [1, N].
        states: int64 [T], the place in the row from which each token of the answers was drawn, the one before it.
        targets: int64 [T], those tokens.
        lengths: int64 [A], tokens of each answer.
        source: int64 [T], which of all rollouts' tokens each is.
    """

    tokens: Tensor
    documents: Tensor
    states: Tensor
    targets: Tensor
    lengths: Tensor
    source: Tensor


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
    answers: list[Generated]
    samples: list[int]
    group: int

    def __len__(self) -> int:
        return len(self.answers)

    @property
    def lengths(self) -> Tensor:
        """Tokens of each answer, the stop token among them, int64 [A]."""
        return torch.tensor([len(answer.tokens) for answer in self.answers])

    @property
    def stopped(self) -> Tensor:
        """Answers that ended by a stop token, boolean [A]. Prompts have no part in it."""
        return torch.tensor([answer.finish == "stop" for answer in self.answers])

    @property
    def log_probabilities(self) -> Tensor:
        """Of every token of the answers as the sampler knew them, float32 [T]."""
        return torch.tensor([value for answer in self.answers for value in answer.log_probabilities])

    def sizes(self) -> list[int]:
        """Tokens that each prompt with its answer takes in a row."""
        pairs = zip(self.prompts, self.answers, strict=True)
        return [len(prompt) + len(answer.tokens) - 1 for prompt, answer in pairs]

    def pack(self, chosen: Sequence[int], device: torch.device) -> Packed:
        """A row of the chosen answers, in their order."""
        prompts, answers = [self.prompts[n] for n in chosen], [self.answers[n].tokens for n in chosen]
        lengths = np.array([len(answer) for answer in answers])
        sizes = np.array([len(prompt) for prompt in prompts]) + lengths - 1
        every = self.lengths.numpy()
        starts = (np.cumsum(every) - every)[list(chosen)]
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        pairs = zip(prompts, answers, strict=True)
        parts = (
            np.array([token for prompt, answer in pairs for part in (prompt, answer[:-1]) for token in part])[None],
            np.repeat(np.arange(len(sizes)), sizes)[None],
            np.repeat(np.cumsum(sizes) - lengths, lengths) + within,
            np.array([token for answer in answers for token in answer]),
            lengths,
            np.repeat(starts, lengths) + within,
        )
        return Packed(*(torch.from_numpy(part).to(device, non_blocking=True) for part in parts))


class RolloutEngine(ABC):
    """Decodes prompts."""

    @abstractmethod
    def generate(
        self,
        policy: Decoder,
        prompts: Sequence[Sequence[int]],
        *,
        new_tokens: int,
        sampling: Sampling,
        stop: Collection[int],
        rows: Sequence[int],
    ) -> list[Generated]:
        """One answer a prompt, with the arguments of `models.generation.generate`.

        Args:
            policy: the decoder, whole, with the weights of this step.
        """


class DecoderEngine(RolloutEngine):
    """`models.generation` with the trainer's own weights and precision.

    Args:
        slots: answers decoded together; each takes memory for keys and values of the longest prompt and answer.

    Raises:
        InputError: for none.
    """

    def __init__(self, slots: int = 64) -> None:
        if slots < 1:
            raise InputError(f"engine.slots={slots}: must be at least 1")
        self.slots = slots

    def generate(
        self,
        policy: Decoder,
        prompts: Sequence[Sequence[int]],
        *,
        new_tokens: int,
        sampling: Sampling,
        stop: Collection[int],
        rows: Sequence[int],
    ) -> list[Generated]:
        with weights_cast_once(policy.tok_embeddings.weight.device.type):
            return generate(
                policy, prompts, new_tokens=new_tokens, sampling=sampling, stop=stop, slots=self.slots, rows=rows
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
    if hasattr(strategy, "gathered"):
        with strategy.gathered(decoder) as gathered:
            yield gathered
    else:
        yield decoder


def roll_out(
    engine: RolloutEngine,
    policy: Decoder,
    prompts: Sequence[Sequence[int]],
    samples: Sequence[int],
    group: int,
    *,
    new_tokens: int,
    sampling: Sampling,
    stop: Collection[int],
) -> Rollouts:
    """Draw `group` answers to every prompt.

    Args:
        engine, policy: who decodes, and with which weights.
        prompts: token ids.
        samples: number of each prompt's sample; with the place among its answers and the seed it names the draw.
        group: answers to each prompt.
        new_tokens, sampling, stop: see `models.generation.generate`.
    """
    repeated = [prompt for prompt in prompts for _ in range(group)]
    numbers = [sample for sample in samples for _ in range(group)]
    places = list(range(group)) * len(samples)
    rows = [max(sample, 0) * MOST_ANSWERS + place for sample, place in zip(numbers, places, strict=True)]
    answers = engine.generate(policy, repeated, new_tokens=new_tokens, sampling=sampling, stop=stop, rows=rows)
    return Rollouts(repeated, answers, numbers, group)
