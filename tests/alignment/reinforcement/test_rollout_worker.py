"""The rollout worker's view of responses."""

from alignment.reinforcement.rollout_worker import responses_for_rewards
from tests.helpers.policy_training import EOS, Letters
from tests.helpers.rollouts import rollouts_of


def test_rewards_see_the_answer_without_its_stop_token() -> None:
    rollouts = rollouts_of(([4, 5, EOS], "stop"), ([6, 7], "length"), group=2)
    responses = responses_for_rewards(rollouts, [{"answer": "x"}], Letters())
    assert [(response.text, list(response.tokens), response.finish) for response in responses] == [
        ("ef", [4, 5, EOS], "stop"),
        ("gh", [6, 7], "length"),
    ]
    assert all(response.row == {"answer": "x"} for response in responses)
