"""Made-up rollouts and pairs, and decoders whose distributions are far from even."""

import random
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from alignment.reinforcement.experience import (
    ExperienceBatch,
)
from alignment.reinforcement.rollouts import Rollouts
from models.decoder import Decoder, DecoderConfig
from models.inference.generation import Generated
from models.initialization import build_decoder
from tests.helpers.policy_training import CONFIG, EOS

CPU = torch.device("cpu")


def lively(config: DecoderConfig, seed: int = 0) -> Decoder:
    """A decoder whose distributions are far from even."""
    decoder = build_decoder(config, seed)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.mul_(8 if parameter.ndim == 2 else 1)
    return decoder


POLICY = lively(CONFIG, seed=3)


CRITIC = lively(DecoderConfig(16, 16, 2, 2, 1, 24, scalar_output=True, tied_embeddings=False), seed=4)


EXACT = lively(CONFIG, seed=3).double()


def rollouts_of(*responses: tuple[list[int], str], prompt: tuple[int, ...] = (EOS, 4), group: int = 1) -> Rollouts:
    found = [Generated(tokens, [-1.0] * len(tokens), cast(Any, finish)) for tokens, finish in responses]
    return Rollouts([list(prompt)] * len(found), found, list(range(len(found))), group)


def made_up(seed: int, group: int = 1, count: int = 6) -> Rollouts:
    generator = random.Random(seed)

    def tokens(most: int) -> list[int]:
        return [generator.randrange(16) for _ in range(generator.randint(1, most))]

    prompts = [prompt for prompt in [tokens(5) for _ in range(count // group)] for _ in range(group)]
    drawn = [Generated(response, [0.0] * len(response), "length") for response in [tokens(7) for _ in range(count)]]
    return Rollouts(prompts, drawn, [number // group for number in range(count)], group)


def experience_of(rollouts: Rollouts, seed: int = 0) -> ExperienceBatch:
    """Made-up numbers for everything that is known of these responses."""
    generator, tokens = torch.Generator().manual_seed(seed), int(rollouts.lengths.sum())

    def noise(scale: float = 1.0) -> Tensor:
        return torch.randn(tokens, generator=generator, dtype=torch.float64) * scale

    old = -2 + noise(0.3)
    return ExperienceBatch(
        rollouts, [], torch.zeros(len(rollouts)), None, old + noise(0.5), old, False, old + noise(0.3), None,
        noise(), noise(), noise(), torch.ones(len(rollouts), dtype=torch.bool),
    )  # fmt: skip


def drawn(count: int, seed: int, parts: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(count, dtype=torch.float64, generator=generator) for _ in range(parts)]


class MadeUp:
    """Pairs of random tokens, in place of `Examples`."""

    def __init__(self, count: int) -> None:
        generator = np.random.default_rng(0)
        self.pairs = [
            [generator.integers(4, 48, size=size) for size in generator.integers(1, 12, size=3)] for _ in range(count)
        ]
        self.margins, self.probabilities = np.zeros(count, dtype=np.float32), np.ones(count, dtype=np.float32)

    def __len__(self) -> int:
        return len(self.pairs)

    def segments(self, number: int) -> list[tuple[np.ndarray, np.ndarray]]:
        return [(tokens, np.ones(len(tokens), dtype=bool)) for tokens in self.pairs[number]]
