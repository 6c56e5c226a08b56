"""The rollout worker's view of responses, and scores that are not numbers."""

import math
from typing import Any, cast

import pytest
import torch

from alignment.reinforcement.rollout_worker import (
    responses_for_rewards,
    scores_of,
)
from common.errors import InputError
from tests.helpers.policy_training import EOS, Letters
from tests.helpers.rollouts import rollouts_of


def test_rewards_see_the_answer_without_its_stop_token_and_must_be_numbers() -> None:
    rollouts = rollouts_of(([4, 5, EOS], "stop"), ([6, 7], "length"), group=2)
    responses = responses_for_rewards(rollouts, [{"answer": "x"}], Letters())
    assert [(response.text, list(response.tokens), response.finish) for response in responses] == [
        ("ef", [4, 5, EOS], "stop"),
        ("gh", [6, 7], "length"),
    ]
    assert all(response.row == {"answer": "x"} for response in responses)
    with pytest.raises(InputError, match="monitored_reward=function says nan of 2 responses"):
        scores_of(cast(Any, lambda responses: torch.tensor([1.0, math.nan])), responses, "monitored_reward")
