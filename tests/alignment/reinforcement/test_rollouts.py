"""Rollouts: packed rows against each response alone, and draws that depend on nothing but their number."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment import DecoderEngine
from alignment.reinforcement.engines.base import Decoding
from alignment.reinforcement.minibatches import ChunkedForward
from alignment.reinforcement.models import critic_values
from alignment.reinforcement.rollouts import Rollouts, roll_out
from models.inference.sampling import Sampling
from models.packed_batch import response_log_probabilities
from tests.helpers.policy_training import EOS
from tests.helpers.rollouts import CPU, CRITIC, EXACT, POLICY, made_up


def draw(prompts: list[list[int]], samples: list[int], group: int = 2, slots: int = 4, **changes: Any) -> Rollouts:
    decoding = Decoding(**{"max_new_tokens": 8, "sampling": Sampling(temperature=0.7, seed=5), "stop": [EOS]} | changes)
    return roll_out(DecoderEngine(slots), POLICY, prompts, samples, group, decoding)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), group=st.sampled_from([1, 2, 3, 6]), data=st.data())
def test_tokens_of_a_packed_row_are_those_of_each_response_alone(seed: int, group: int, data: st.DataObject) -> None:
    """Log-probabilities at the temperature and values, of any choice, whatever shares the row or the prompt."""
    rollouts = made_up(seed, group)
    chosen = data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=6, unique=True))
    packed = rollouts.pack(chosen, CPU)
    expected, values, source, start = [], [], [], 0
    starts = [start := start + len(response.tokens) for response in rollouts.responses]
    for number in sorted(chosen):
        prompt, response = list(rollouts.prompts[number]), rollouts.responses[number].tokens
        row = torch.tensor([[*prompt, *response]])
        with torch.no_grad():
            scores = (EXACT.output(EXACT(row))[0] / 0.7).log_softmax(-1)
            said = CRITIC.output(CRITIC(row))[0, :, 0]
        for place, token in enumerate(response):
            expected.append(float(scores[len(prompt) + place - 1, token]))
            values.append(float(said[len(prompt) + place - 1]))
            source.append(starts[number] - len(response) + place)
    with torch.no_grad():
        assert response_log_probabilities(EXACT, packed, 0.7).tolist() == pytest.approx(expected, abs=1e-9)
        assert critic_values(CRITIC, packed).tolist() == pytest.approx(values, abs=1e-4)
    assert packed.source.tolist() == source
    shared = {number // group for number in chosen}
    prompts = sum(len(rollouts.prompts[prompt * group]) - 1 for prompt in shared)
    assert packed.tokens.numel() == prompts + len(expected)
    assert (packed.branch_ids is None) == (len(shared) == len(chosen))


def test_the_sampler_knows_the_trainers_log_probabilities() -> None:
    """At the sampling temperature: a trainer without it would see other ones (a known bug on one side of the ratio)."""
    rollouts = draw([[4, 5], [6], [7, 8, 9]], [0, 1, 2])
    passes = ChunkedForward(rollouts, budget=20, device=CPU)
    assert len(passes.packed) > 1
    found = passes(lambda packed: response_log_probabilities(POLICY, packed, 0.7))
    torch.testing.assert_close(found, rollouts.log_probabilities, rtol=0, atol=1e-4)
    other = passes(lambda packed: response_log_probabilities(POLICY, packed, 1.0))
    assert (other - rollouts.log_probabilities).abs().max() > 0.1


def test_responses_depend_on_nothing_but_their_number() -> None:
    """Neither on who else is decoded, nor on the number of responses to a prompt, nor on the slots."""
    prompts = {sample: [4 + sample % 11] * (1 + sample % 4) for sample in range(6)}

    def by_number(samples: list[int], group: int, slots: int) -> dict[tuple[int, int], list[int]]:
        rollouts = draw([prompts[sample] for sample in samples], samples, group, slots)
        return {
            (rollouts.samples[number], number % group): response.tokens
            for number, response in enumerate(rollouts.responses)
        }

    whole = by_number([0, 1, 2, 3, 4, 5], 3, 8)
    assert by_number([5, 2], 3, 1) == {key: value for key, value in whole.items() if key[0] in (5, 2)}
    assert by_number([4, 0, 3], 1, 2) == {key: whole[key] for key in [(4, 0), (0, 0), (3, 0)]}
    assert len({tuple(tokens) for tokens in whole.values()}) > 12
    assert by_number([0, 1, 2, 3, 4, 5], 3, 8) == whole


def test_how_a_response_ended_is_judged_by_the_response() -> None:
    """A prompt full of stop tokens is no response that stopped (a known bug looked at both)."""
    rollouts = draw([[EOS, EOS, 4]] * 64, list(range(64)), 1, max_new_tokens=4, stop=[EOS, 5])
    for response, stopped in zip(rollouts.responses, rollouts.stopped.tolist(), strict=True):
        assert stopped == (response.tokens[-1] in (EOS, 5))
        assert not {EOS, 5} & set(response.tokens[:-1])
        assert stopped or len(response.tokens) == 4
    assert 0 < rollouts.stopped.sum() < 64
