"""Generation with slots equals the model run again for every token; filters equal those of transformers."""

from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputError
from models.config import DecoderConfig, Experts
from models.decoder import Decoder
from models.inference.cuda_graphs import DecodeGraphs
from models.inference.generation import generate, unpadded
from models.inference.sampling import Sampling, draw, filtered, uniforms
from models.initialization import build_decoder

SHAPE: dict[str, Any] = {
    "vocabulary_size": 64, "width": 32, "layers": 2, "heads": 4, "key_value_heads": 2, "feed_forward_width": 48,
}  # fmt: skip


def sharp(**changes: Any) -> Decoder:
    """With larger weights than a fresh model's: attention far from uniform, scores far apart."""
    decoder = build_decoder(DecoderConfig(**SHAPE, **changes), seed=1)
    with torch.no_grad():
        for parameter in decoder.parameters():
            if parameter.ndim == 2:
                parameter.mul_(6)
    return decoder


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    return sharp()


prompts_of_any_length = st.lists(st.lists(st.integers(0, 63), min_size=1, max_size=9), min_size=1, max_size=7)


def uncached(decoder: Decoder, prompt: list[int], max_new_tokens: int) -> list[int]:
    tokens = list(prompt)
    for _ in range(max_new_tokens):
        tokens.append(int(decoder.output(decoder(torch.tensor([tokens]))[:, -1]).argmax()))
    return tokens[len(prompt) :]


@pytest.mark.parametrize(
    "changes",
    [{}, {"sliding_window": 3}, {"query_key_norm": True, "experts": Experts(4, 2)}],
    ids=["plain", "window", "experts"],
)
@torch.no_grad()
def test_greedy_decoding_equals_the_model_run_again_for_every_token(changes: dict[str, Any]) -> None:
    decoder = sharp(**changes)
    prompts = [[1, 5, 9, 2], [3], [7, 7, 8, 1, 2, 3, 4], [60, 1], [5, 4, 3]]
    found = generate(decoder, prompts, max_new_tokens=10, sampling=Sampling(temperature=0), slots=2)
    assert [result.tokens for result in found] == [uncached(decoder, prompt, 10) for prompt in prompts]


@given(prompts=prompts_of_any_length, left=st.booleans())
def test_padding_on_either_side_is_left_out(prompts: list[list[int]], left: bool) -> None:
    longest = max(map(len, prompts))
    padding = [[0] * (longest - len(prompt)) for prompt in prompts]
    rows = [fill + prompt if left else prompt + fill for prompt, fill in zip(prompts, padding, strict=True)]
    marks = [[1] * len(prompt) for prompt in prompts]
    masks = [fill + mark if left else mark + fill for mark, fill in zip(marks, padding, strict=True)]
    assert unpadded(torch.tensor(rows), torch.tensor(masks)) == prompts


@settings(max_examples=25, deadline=None)
@given(prompts=prompts_of_any_length, seed=st.integers(0, 1000), slots=st.integers(1, 4))
def test_a_row_does_not_depend_on_its_batch(decoder: Decoder, prompts: list[list[int]], seed: int, slots: int) -> None:
    """Alone, beside others, refilled, in another order: the same tokens."""
    sampling = Sampling(temperature=0.9, top_p=0.9, repetition_penalty=1.2, seed=seed)
    options: dict[str, Any] = {"max_new_tokens": 6, "sampling": sampling, "stop": [0, 11, 12]}
    together = generate(decoder, prompts, slots=slots, **options)
    numbers = list(range(len(prompts)))[::-1]
    reverse = generate(decoder, prompts[::-1], rows=numbers, **options)[::-1]
    for number, prompt in enumerate(prompts):
        (alone,) = generate(decoder, [prompt], rows=[number], **options)
        for other in (together[number], reverse[number]):
            assert other.tokens == alone.tokens
            assert other.finish == alone.finish
            assert other.log_probabilities == pytest.approx(alone.log_probabilities, abs=1e-4)


def test_log_probabilities_are_those_a_trainer_computes(decoder: Decoder) -> None:
    prompts = [[1, 2, 3], [9, 8], [4]]
    temperature = 0.7
    found = generate(decoder, prompts, max_new_tokens=8, sampling=Sampling(temperature=temperature, top_k=5), stop=[3])
    for prompt, result in zip(prompts, found, strict=True):
        tokens = torch.tensor([[*prompt, *result.tokens]])
        hidden = decoder(tokens)[0, len(prompt) - 1 : -1] / temperature
        expected = decoder.output.log_probabilities(hidden, tokens[0, len(prompt) :])
        assert result.log_probabilities == pytest.approx(expected.tolist(), abs=1e-4)


def test_samples_are_a_function_of_seed_and_row_and_rows_stop(decoder: Decoder) -> None:
    def tokens(seed: int, **options: Any) -> list[list[int]]:
        found = generate(decoder, [[1]] * 3, max_new_tokens=20, sampling=Sampling(seed=seed), **options)
        return [result.tokens for result in found]

    first = tokens(5)
    assert first == tokens(5)
    assert first != tokens(6)
    assert first[0] != first[1]
    stop = first[0][4]
    stopped = generate(decoder, [[1]] * 3, max_new_tokens=20, sampling=Sampling(seed=5), stop=[stop])
    for row, result in zip(first, stopped, strict=True):
        assert result.tokens == (row[: row.index(stop) + 1] if stop in row else row)
        assert result.finish == ("stop" if stop in row else "length")
        assert len(result.log_probabilities) == len(result.tokens)
    assert generate(decoder, [], max_new_tokens=3) == []
    assert generate(decoder, [[1]], max_new_tokens=0)[0].tokens == []


@pytest.mark.peer
@pytest.mark.parametrize(
    ("sampling", "theirs"),
    [
        (Sampling(temperature=0.7), [transformers.TemperatureLogitsWarper(0.7)]),
        (Sampling(top_k=5), [transformers.TopKLogitsWarper(5)]),
        (Sampling(top_p=0.6), [transformers.TopPLogitsWarper(0.6)]),
        (Sampling(min_p=0.2), [transformers.MinPLogitsWarper(0.2)]),
        (Sampling(repetition_penalty=1.4), [transformers.RepetitionPenaltyLogitsProcessor(1.4)]),
        (
            Sampling(repetition_penalty=0.8, temperature=1.3, top_k=20, top_p=0.9, min_p=0.05),
            [
                transformers.RepetitionPenaltyLogitsProcessor(0.8),
                transformers.TemperatureLogitsWarper(1.3),
                transformers.TopKLogitsWarper(20),
                transformers.TopPLogitsWarper(0.9),
                transformers.MinPLogitsWarper(0.05),
            ],
        ),
    ],
    ids=lambda value: "",
)
def test_filters_equal_those_of_transformers(sampling: Sampling, theirs: list[Any]) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(50, 64, generator=generator)
    occurred = torch.randint(64, (50, 7), generator=generator)
    seen = torch.zeros(50, 64, dtype=torch.bool).scatter(1, occurred, True)
    expected = logits.clone()
    for process in theirs:
        expected = process(occurred, expected)
    torch.testing.assert_close(filtered(logits, sampling, seen), expected)


def test_draws_follow_the_distribution_and_never_take_what_is_left_out() -> None:
    probabilities = torch.tensor([0.3, 0.5, 0.15, 0.05])
    logits = probabilities.log().expand(20_000, -1)
    uniform = uniforms(1, range(20_000), [0] * 20_000)
    assert uniform.min() >= 0
    assert uniform.max() < 1
    found = draw(logits, Sampling(), uniform).bincount(minlength=4) / 20_000
    torch.testing.assert_close(found, probabilities, rtol=0, atol=0.015)
    assert set(draw(logits, Sampling(top_p=0.7), uniform).tolist()) == {0, 1}
    edge = torch.tensor([1 - 1e-16], dtype=torch.float64)
    assert draw(logits[:1], Sampling(top_k=2), edge).item() == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": -1.0}, "temperature=-1"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"temperature": 1e-40}, "temperature=1e-40"),
        ({"top_p": 0.0}, "top_p=0"),
        ({"min_p": 1.0}, "min_p=1"),
        ({"top_k": -2}, "top_k=-2"),
        ({"repetition_penalty": 0.0}, "repetition_penalty=0"),
    ],
)
def test_bad_values_are_refused(decoder: Decoder, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Sampling(**change)
    with pytest.raises(InputError, match="prompt is empty"):
        generate(decoder, [[1], []], max_new_tokens=2)
    with pytest.raises(InputError, match="slots=0"):
        generate(decoder, [[1]], max_new_tokens=2, slots=0)


def test_recorded_steps_compute_all_slots_and_give_the_same(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step that a GPU records, run as it is: fixed shapes, empty slots, rows that leave and come."""
    prompts = [[1, 5, 9, 2], [3], [7, 7, 8, 1, 2, 3, 4], [60, 1], [5, 4, 3]]
    options: dict[str, Any] = {"max_new_tokens": 40, "sampling": Sampling(seed=3), "stop": [11, 12, 13], "slots": 3}
    expected = generate(decoder, prompts, **options)
    with pytest.raises(InputError, match="cuda_graphs=true on cpu"):
        generate(decoder, prompts, cuda_graphs=True, **options)
    shapes = set()

    def run_as_it_is(self: DecodeGraphs) -> Any:
        longest = self.cache.longest

        def step() -> torch.Tensor:
            assert self.cache.longest == longest
            logits = self.step()
            shapes.add((longest, *logits.shape))
            return logits

        return step

    monkeypatch.setattr(DecodeGraphs, "__init__", lambda self, decoder, cache: self.__dict__.update(
        decoder=decoder, cache=cache, tokens=torch.zeros(3, 1, dtype=torch.int64), steps={}
    ))  # fmt: skip
    monkeypatch.setattr(DecodeGraphs, "record", run_as_it_is)
    found = generate(decoder, prompts, cuda_graphs=True, **options)
    assert shapes == {(32, 3, 64), (64, 3, 64)}
    for mine, right in zip(found, expected, strict=True):
        assert (mine.tokens, mine.finish) == (right.tokens, right.finish)
        assert mine.log_probabilities == pytest.approx(right.log_probabilities, abs=1e-4)
