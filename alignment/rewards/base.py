"""Rewards of responses: one interface for reward models, verifiable rewards and weighted sums.

A reward gets whole responses, never tokens in the middle of one, and gives one number each; on which token that number
is placed is the learner's business. It is a function of the response alone, so that a response is worth the same
whatever it was drawn together with.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from common.errors import InputError


@dataclass(frozen=True)
class Response:
    """One response to one prompt.

    Attributes:
        prompt: token ids of the prompt.
        tokens: token ids of the response, with the stop token where one was drawn.
        text: the response decoded, without the stop token.
        finish: `stop` where a stop token was drawn, `length` where no room was left.
        row: the row of data that the prompt came from: `prompt`, often `response`.
    """

    prompt: Sequence[int]
    tokens: Sequence[int]
    text: str
    finish: Literal["stop", "length"]
    row: Mapping[str, Any]


class Reward(ABC):
    """Reward of whole responses."""

    def open_weights(  # noqa: B027 (most rewards have no weights)
        self, tokenizer: Any, tokenizer_of: Callable[[Path], Any]
    ) -> None:
        """Open the weights of a model that scores, before processes start.

        Args:
            tokenizer: tokenizer of the data.
            tokenizer_of: tokenizer of the run or file at a path.

        Raises:
            InputError: for weights that are missing, of another kind or of another tokenizer.
        """

    def prepare(self, device: torch.device) -> None:  # noqa: B027 (most rewards have nothing to load)
        """Load what scoring needs, such as a reward model, once and before the first response."""

    def check(self, row: Mapping[str, Any]) -> None:  # noqa: B027 (most rewards read nothing of it)
        """Refuse a row of data that responses to it could not be scored with.

        Raises:
            InputError: naming what is missing.
        """

    def members(self) -> Iterator["Reward"]:
        """The rewards that this one is made of; itself where it is made of none."""
        yield self

    @abstractmethod
    def __call__(self, responses: Sequence[Response]) -> Tensor:
        """Float32 [A] on the CPU, in the order of the responses."""


def check_rows(rewards: Sequence[Reward], rows: Iterable[Mapping[str, Any]]) -> None:
    """Refuse data whose rows a reward cannot score.

    Raises:
        InputError: for the first such row, with its number from 1 in the order of the data.
    """
    for number, row in enumerate(rows, 1):
        try:
            for reward in rewards:
                reward.check(row)
        except InputError as error:
            raise InputError(f"row {number}: {error}; the row: {dict(row)!r:.200}") from None


class WeightedSum(Reward):
    """Several rewards as one: the sum of each times its weight.

    Args:
        rewards: at least one.
        weights: as many; by default 1 each. A negative weight makes a reward a penalty.

    Raises:
        InputError: for no rewards, another number of weights, or a weight that is no number.
    """

    def __init__(self, rewards: list[Reward], weights: list[float] | None = None) -> None:
        weights = [1.0] * len(rewards) if weights is None else weights
        if not rewards or len(weights) != len(rewards):
            raise InputError(f"weights={weights}: give one for each of {len(rewards)} rewards, at least one")
        if not all(math.isfinite(weight) for weight in weights):
            raise InputError(f"weights={weights}: must be numbers")
        self.rewards, self.weights = rewards, weights

    def open_weights(self, tokenizer: Any, tokenizer_of: Callable[[Path], Any]) -> None:
        """Open the weights that the parts need."""
        for reward in self.rewards:
            reward.open_weights(tokenizer, tokenizer_of)

    def prepare(self, device: torch.device) -> None:
        """Load what the parts need."""
        for reward in self.rewards:
            reward.prepare(device)

    def check(self, row: Mapping[str, Any]) -> None:
        """Refuse a row that any part refuses."""
        for reward in self.rewards:
            reward.check(row)

    def members(self) -> Iterator[Reward]:
        """The parts, those of sums within sums too."""
        for reward in self.rewards:
            yield from reward.members()

    def parts(self, responses: Sequence[Response]) -> Tensor:
        """Scores by each reward before weighting, float32 [rewards, A]."""
        return torch.stack([reward(responses) for reward in self.rewards])

    def __call__(self, responses: Sequence[Response]) -> Tensor:
        return torch.tensor(self.weights) @ self.parts(responses)


class OverlongPenalty(Reward):
    """0 up to `max_tokens - cushion` tokens, then falling linearly to -1 at `max_tokens` and beyond (Yu et al. 2025,
    DAPO, section 3.4, eq. 13, "soft overlong punishment").

    Args:
        max_tokens: tokens of a response, its stop token included; the sampler's limit.
        cushion: tokens before it in which the penalty grows; the paper's are 20,480 and 4,096.

    Raises:
        InputError: for a cushion that is not within the length.
    """

    def __init__(self, max_tokens: int, cushion: int) -> None:
        if not 0 < cushion <= max_tokens:
            raise InputError(f"cushion={cushion}: must lie between 1 and max_tokens={max_tokens}")
        self.max_tokens, self.cushion = max_tokens, cushion

    def __call__(self, responses: Sequence[Response]) -> Tensor:
        lengths = torch.tensor([len(response.tokens) for response in responses], dtype=torch.float32)
        return ((self.max_tokens - self.cushion - lengths) / self.cushion).clamp(-1, 0)
