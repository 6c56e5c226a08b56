"""Scores that are no numbers, and rewards that raise: one line that names the reward and the row."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from alignment import ExactMatch, WeightedSum
from alignment.rewards.base import Response, Reward
from alignment.rewards.scoring import check_rows, scores_of
from common.errors import InputError

ROWS = [{"prompt": f"Prompt {number}", "answer": number} for number in range(3)]
RESPONSES = [Response([1], [2], str(number), "stop", row) for number, row in enumerate(ROWS)]


class Given(Reward):
    """Gives what a function makes of the responses."""

    def __init__(self, give: Callable[[Sequence[Response]], Any]) -> None:
        self.give = give

    def __call__(self, responses: Sequence[Response]) -> Tensor:
        found: Tensor = self.give(responses)
        return found


def looked_up(responses: Sequence[Response]) -> Tensor:
    return torch.tensor([{0: 1.0, 1: 0.5}[response.row["answer"]] for response in responses])


@pytest.mark.parametrize(
    ("give", "message"),
    [
        (lambda responses: None, "gives NoneType"),
        (lambda responses: [1.0] * len(responses), "gives list"),
        (lambda responses: 1.0, "gives float"),
        (lambda responses: torch.ones(2), r"gives a tensor of shape \[2\]"),
        (lambda responses: torch.ones(len(responses), 1), r"gives a tensor of shape \[3, 1\]"),
        (
            lambda responses: torch.ones(len(responses), dtype=torch.complex64),
            r"gives a tensor of shape \[3\] and complex64",
        ),
        (lambda responses: torch.tensor([1.0, math.nan, 2.0]), "gives nan for the response to 'Prompt 1'"),
        (lambda responses: torch.tensor([1.0, 2.0, -math.inf]), "gives -inf for the response to 'Prompt 2'"),
        (looked_up, r"raises KeyError\(2\) for the response to 'Prompt 2'"),
        (lambda responses: 1 / (len(responses) - 3), "raises ZeroDivisionError.*for 3 responses together"),
    ],
)
def test_what_is_no_number_names_the_reward_and_the_row(give: Any, message: str) -> None:
    for reward in (Given(give), WeightedSum([ExactMatch(), Given(give)])):
        with pytest.raises(InputError, match=f"monitored_reward=.*Given {message}") as refused:
            scores_of(reward, RESPONSES, "monitored_reward")
        assert "\n" not in str(refused.value)


def test_numbers_are_scores() -> None:
    for dtype in (torch.bool, torch.int64, torch.float64, torch.bfloat16):
        found = scores_of(Given(lambda responses, dtype=dtype: torch.ones(3, dtype=dtype)), RESPONSES, "reward")
        assert (found.dtype, found.tolist()) == (torch.float32, [1, 1, 1])
    assert scores_of(Given(lambda responses: torch.zeros(0)), [], "reward").shape == (0,)


def test_a_mistake_in_a_row_names_it() -> None:
    with pytest.raises(InputError, match="reward=ExactMatch refuses row 1 of the prompts, 'q': a row has no 'answer'"):
        check_rows({"reward": ExactMatch()}, [ROWS[0], {"prompt": "q"}])

    class Strict(ExactMatch):
        def check(self, row: Any) -> None:
            row["tests"]

    with pytest.raises(InputError, match=r"reward=Strict refuses row 0 of the prompts, 'Prompt 0': KeyError\('tests'"):
        check_rows({"reward": Strict()}, ROWS)
    messages = {"messages": [{"role": "user", "content": "Why? " * 40}]}
    with pytest.raises(InputError, match=r"row 0 of the prompts, 'Why\? Why.{10,80}\.\.\.': a row has no") as refused:
        check_rows({"reward": ExactMatch()}, [messages])
    assert len(str(refused.value)) < 300


def test_equal_parts_make_equal_sums() -> None:
    """A product of a matrix may add up the columns at its edge in another order."""
    parts = [Given(lambda responses, value=value: torch.full((len(responses),), value)) for value in (0.1, 0.7, 1 / 3)]
    for count in range(1, 40):
        found = WeightedSum(parts, [0.3, 1.7, -0.9])([RESPONSES[0]] * count)
        assert (found == found[0]).all()
