"""Best of n against all n, and rejection sampling."""

import math
from typing import Any

import pytest
import torch

from alignment import DecoderEngine
from alignment.comparison.best_of_n import best_of_n, rejection_sampling
from alignment.reinforcement.engines.base import Decoding
from alignment.reinforcement.rollouts import roll_out
from common.errors import InputError
from models.inference.sampling import Sampling
from tests.helpers.policy_training import EOS, Letters, Wanted
from tests.helpers.rollouts import POLICY


def test_the_best_of_n() -> None:
    scores = torch.tensor([0.0, 2.0, 1.0, 3.0, 3.0, -1.0])
    assert best_of_n(scores, 3).tolist() == [1, 3]
    assert best_of_n(scores, 1).tolist() == list(range(6))
    with pytest.raises(InputError, match="n=4: 6 responses"):
        best_of_n(scores, 4)
    prompts: list[list[int]] = [[4], [5, 6]]
    more: dict[str, Any] = {"max_new_tokens": 5, "sampling": Sampling(seed=2), "stop": [EOS]}
    best = rejection_sampling(DecoderEngine(), POLICY, Wanted(), prompts, [{}, {}], Letters(), n=8, **more)
    drawn = roll_out(DecoderEngine(), POLICY, prompts, [0, 1], 8, Decoding(**more))
    shares = [response.tokens.count(7) / len(response.tokens) for response in drawn.responses]
    assert best.scores.tolist() == pytest.approx([max(shares[:8]), max(shares[8:])])
    assert best.mean.tolist() == pytest.approx([sum(shares[:8]) / 8, sum(shares[8:]) / 8])
    assert best.kl == pytest.approx(math.log(8) - 7 / 8)
    assert [list(response.prompt) for response in best.responses] == prompts
