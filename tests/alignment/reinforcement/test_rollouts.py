"""What is learned from is what was drawn: packing against each answer alone, and draws that nothing else decides."""

import math
import random
import re
import tomllib
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment import DecoderEngine, VLLMEngine
from alignment.comparison.best_of_n import best_of_n, rejection_sampling
from alignment.reinforcement.experience import ChunkedForward, critic_values, log_probabilities
from alignment.reinforcement.minibatches import minibatch_of, split_microbatches
from alignment.reinforcement.rollouts import Rollouts, roll_out, weights_cast_once
from common.errors import InputError
from models.decoder import Decoder, DecoderConfig, build_decoder
from models.inference.generation import Generated
from models.inference.sampling import Sampling
from tests.conftest import ROOT
from tests.helpers.policy_training import CONFIG, EOS, Letters, Wanted

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


def made_up(seed: int, group: int = 1, count: int = 6) -> Rollouts:
    generator = random.Random(seed)

    def tokens(most: int) -> list[int]:
        return [generator.randrange(16) for _ in range(generator.randint(1, most))]

    prompts = [prompt for prompt in [tokens(5) for _ in range(count // group)] for _ in range(group)]
    drawn = [Generated(response, [0.0] * len(response), "length") for response in [tokens(7) for _ in range(count)]]
    return Rollouts(prompts, drawn, [number // group for number in range(count)], group)


def draw(prompts: list[list[int]], samples: list[int], group: int = 2, slots: int = 4, **changes: Any) -> Rollouts:
    arguments = {"max_new_tokens": 8, "sampling": Sampling(temperature=0.7, seed=5), "stop": [EOS]} | changes
    return roll_out(DecoderEngine(slots), POLICY, prompts, samples, group, **arguments)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), group=st.sampled_from([1, 2, 3, 6]), data=st.data())
def test_tokens_of_a_packed_row_are_those_of_each_answer_alone(seed: int, group: int, data: st.DataObject) -> None:
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
        assert log_probabilities(EXACT, packed, 0.7).tolist() == pytest.approx(expected, abs=1e-9)
        assert critic_values(CRITIC, packed).tolist() == pytest.approx(values, abs=1e-4)
    assert packed.source.tolist() == source
    shared = {number // group for number in chosen}
    prompts = sum(len(rollouts.prompts[prompt * group]) - 1 for prompt in shared)
    assert packed.tokens.numel() == prompts + len(expected)
    assert (packed.branches is None) == (len(shared) == len(chosen))


def test_the_sampler_knows_the_trainers_log_probabilities() -> None:
    """At the sampling temperature: a trainer without it would see other ones (a known bug on one side of the ratio)."""
    rollouts = draw([[4, 5], [6], [7, 8, 9]], [0, 1, 2])
    passes = ChunkedForward(rollouts, budget=20, device=CPU)
    assert len(passes.packed) > 1
    found = passes(lambda packed: log_probabilities(POLICY, packed, 0.7))
    torch.testing.assert_close(found, rollouts.log_probabilities, rtol=0, atol=1e-4)
    other = passes(lambda packed: log_probabilities(POLICY, packed, 1.0))
    assert (other - rollouts.log_probabilities).abs().max() > 0.1


def test_answers_depend_on_nothing_but_their_number() -> None:
    """Neither on who else is decoded, nor on how many answers a prompt gets, nor on the slots."""
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


def test_how_an_answer_ended_is_judged_by_the_answer() -> None:
    """A prompt full of stop tokens is no answer that stopped (a known bug looked at both)."""
    rollouts = draw([[EOS, EOS, 4]] * 64, list(range(64)), 1, max_new_tokens=4, stop=[EOS, 5])
    for response, stopped in zip(rollouts.responses, rollouts.stopped.tolist(), strict=True):
        assert stopped == (response.tokens[-1] in (EOS, 5))
        assert not {EOS, 5} & set(response.tokens[:-1])
        assert stopped or len(response.tokens) == 4
    assert 0 < rollouts.stopped.sum() < 64


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 999), group=st.sampled_from([1, 3, 12]), budget=st.integers(1, 60), data=st.data())
def test_pieces_hold_everything_once_within_the_budget(seed: int, group: int, budget: int, data: st.DataObject) -> None:
    rollouts = made_up(seed, group, count=12)
    chosen = data.draw(st.lists(st.integers(0, 11), unique=True))
    found = split_microbatches(rollouts, chosen, budget)
    assert sorted(number for microbatch in found for number in microbatch) == sorted(chosen)
    for microbatch in found:
        assert microbatch
        assert len(microbatch) == 1 or rollouts.pack(microbatch, CPU).tokens.numel() <= budget


@settings(max_examples=30, deadline=None)
@given(minibatches=st.integers(1, 6), blocks=st.integers(1, 5), seed=st.integers(0, 99))
def test_minibatches_are_equally_large_and_new_each_epoch(minibatches: int, blocks: int, seed: int) -> None:
    dealt = [minibatch_of(position, minibatches, seed, 0) for position in range(minibatches * blocks)]
    assert [dealt.count(number) for number in range(minibatches)] == [blocks] * minibatches
    many = range(6 * 40)
    first, second = ([minibatch_of(position, 6, seed, epoch) for position in many] for epoch in (0, 1))
    assert first != second


def test_a_rank_with_less_to_compute_keeps_step() -> None:
    """Its further passes change nothing of what is found."""
    rollouts = made_up(1)
    alone = ChunkedForward(rollouts, budget=12, device=CPU)
    beside = ChunkedForward(rollouts, budget=12, device=CPU, most=lambda count: count + 2)
    assert len(beside.packed) == len(alone.packed) + 2
    results = [passes(lambda packed: log_probabilities(POLICY, packed, 1.0)) for passes in (alone, beside)]
    torch.testing.assert_close(results[0], results[1])


def test_narrowed_weights_are_forgotten_after_decoding() -> None:
    """What autocast keeps while decoding must not be learned with: it is stale after a step, and has no gradient."""
    layer = torch.nn.Linear(4, 4, bias=False)
    x = torch.ones(1, 4)
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=True):
        with torch.inference_mode(), weights_cast_once("cpu"):
            before = layer(x).clone()
        with torch.no_grad():
            layer.weight.zero_()
        after = layer(x)
    assert before.abs().max() > 0
    assert after.abs().max() == 0
    after.sum().backward()
    assert layer.weight.grad is not None


def test_the_best_of_n() -> None:
    scores = torch.tensor([0.0, 2.0, 1.0, 3.0, 3.0, -1.0])
    assert best_of_n(scores, 3).tolist() == [1, 3]
    assert best_of_n(scores, 1).tolist() == list(range(6))
    with pytest.raises(InputError, match="n=4: 6 answers"):
        best_of_n(scores, 4)
    prompts: list[list[int]] = [[4], [5, 6]]
    more = {"max_new_tokens": 5, "sampling": Sampling(seed=2), "stop": [EOS]}
    best = rejection_sampling(DecoderEngine(), POLICY, Wanted(), prompts, [{}, {}], Letters(), n=8, **more)
    drawn = roll_out(DecoderEngine(), POLICY, prompts, [0, 1], 8, **more)
    shares = [response.tokens.count(7) / len(response.tokens) for response in drawn.responses]
    assert best.scores.tolist() == pytest.approx([max(shares[:8]), max(shares[8:])])
    assert best.mean.tolist() == pytest.approx([sum(shares[:8]) / 8, sum(shares[8:]) / 8])
    assert best.kl == pytest.approx(math.log(8) - 7 / 8)
    assert [list(response.prompt) for response in best.responses] == prompts


def test_mistakes_get_one_line() -> None:
    with pytest.raises(InputError, match=r"engine\.slots=0"):
        DecoderEngine(0)
    with pytest.raises(InputError, match="vllm is not installed") as refusal:
        VLLMEngine("folder")
    extra = re.search(r"pip install -e \.\[(\w+)\]", str(refusal.value))
    assert extra is not None
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert any(line.startswith("vllm") for line in project["optional-dependencies"][extra[1]])
