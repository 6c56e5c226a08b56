"""Our own models as judges: likelihoods against a naive pass per option, responses that depend on their number."""

from pathlib import Path
from typing import Any

import pytest
import torch

from alignment import DecoderJudge
from alignment.constitutional.judge import LoadedModel, Request, cut_at
from common.constants import Messages
from common.errors import InputError
from common.stop_tokens import response_tokens
from datamodules.conversations.chat_template import ChatTemplate
from datamodules.conversations.messages import transcript
from datamodules.conversations.multiple_choice import question_batches
from datamodules.tokenization.base import Tokenizer, TokenizerSettings
from datamodules.tokenization.sentencepiece import train_tokenizer
from models.config import DecoderConfig
from models.decoder import Decoder
from models.initialization import build_decoder
from tests.helpers.corpus import sentences

SHAPE = {"width": 32, "layers": 2, "heads": 4, "key_value_heads": 2, "feed_forward_width": 48}
TALKS: list[Messages] = [
    [{"role": "user", "content": "Bade kiro"}],
    [{"role": "user", "content": "Bade kiro bas. " * 9}],
    [{"role": "user", "content": "A"}, {"role": "assistant", "content": "B"}, {"role": "user", "content": "C"}],
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([sentences(i, 40) for i in range(20)], TokenizerSettings(vocabulary_size=400))


@pytest.fixture(scope="module")
def decoder(tokenizer: Tokenizer) -> Decoder:
    decoder = build_decoder(DecoderConfig(vocabulary_size=len(tokenizer), **SHAPE), seed=1)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.mul_(6 if parameter.ndim == 2 else 1)
    return decoder


def prepared(decoder: Decoder, tokenizer: Tokenizer, template: str, **settings: Any) -> DecoderJudge:
    judge = DecoderJudge("model", template, **settings)

    def open_model(path: str, chat_template: str | None, dtype: torch.dtype) -> LoadedModel:
        assert (path, chat_template, dtype) == ("model", template, torch.float32)
        return LoadedModel(decoder, tokenizer, ChatTemplate(template, tokenizer), question_batches, "weights")

    judge.prepare(open_model, Path("unused"))
    return judge


@pytest.mark.parametrize("template", ["chatml", "plain", "transcript"])
@pytest.mark.parametrize("batch_tokens", [16, 4096])
def test_likelihoods_of_options_equal_one_naive_pass_an_option(
    decoder: Decoder, tokenizer: Tokenizer, template: str, batch_tokens: int
) -> None:
    precise = build_decoder(decoder.config).double()
    precise.load_state_dict(decoder.state_dict())
    judge = prepared(precise, tokenizer, template, batch_tokens=batch_tokens)
    chat, options = ChatTemplate(template, tokenizer), ("(A)", "(B)", "kiro")
    control = set(tokenizer.control_ids().values())
    for compared in (options, options[:2]):
        verdicts = judge.choose([Request(talk, 0) for talk in TALKS], compared)
        for talk, verdict in zip(TALKS, verdicts, strict=True):
            expected = []
            for option in compared:
                encoded = chat.encode([*talk, {"role": "assistant", "content": option}])
                prompt, response = encoded.prompt_and_response()
                response = [token for token in response if token not in control]
                scores = precise.output(precise(torch.tensor([[*prompt, *response]])))[0].log_softmax(-1).detach()
                expected.append(sum(float(scores[len(prompt) + i - 1, t]) for i, t in enumerate(response)))
            found = verdict.log_probabilities
            # What all options begin with counts for none of them.
            assert [x - found[0] for x in found] == pytest.approx([x - expected[0] for x in expected], abs=1e-9)
            assert all(x >= y - 1e-9 for x, y in zip(found, expected, strict=True))
            assert verdict.prompt_tokens >= len(prompt)


def test_a_response_depends_on_its_number_and_on_nothing_beside_it(decoder: Decoder, tokenizer: Tokenizer) -> None:
    judge = prepared(decoder, tokenizer, "chatml", max_new_tokens=12, slots=2)
    requests = [Request(talk, number) for talk in TALKS for number in (5, 2**62 + 1)]
    together = judge.complete(requests)
    assert [judge.complete([request])[0] for request in requests[::-1]] == together[::-1]
    assert all(together[2 * i] != together[2 * i + 1] for i in range(3))
    for request, response in zip(requests, together, strict=True):
        prompt = ChatTemplate("chatml", tokenizer).encode_prompt(request.messages)
        assert response.prompt_tokens == len(prompt)
        assert 1 <= response.response_tokens <= 12
        assert response.finish == "stop" or response.response_tokens == 12
    assert all("<|" not in response.text for response in together)


def test_responses_end_where_the_template_ends_them(decoder: Decoder, tokenizer: Tokenizer) -> None:
    control = tokenizer.control_ids()
    for template, expected in (
        ("chatml", {tokenizer.eos, control["<|im_end|>"]}), ("plain", {tokenizer.eos}), ("transcript", {tokenizer.eos})
    ):  # fmt: skip
        assert prepared(decoder, tokenizer, template).stop_tokens == expected
    # A leading space belongs to the response in a transcript, as it does in training.
    chat = ChatTemplate("transcript", tokenizer)
    assert response_tokens(chat, "(A)", {tokenizer.eos}) == tokenizer.encode(" (A)")
    assert cut_at("yes\n\nHuman: more\n\nAssistant: no", ["\n\nAssistant:", "\n\nHuman:"]) == "yes"
    assert cut_at("yes", ["\n\nHuman:"]) == "yes"


def test_a_stop_text_ends_a_response(decoder: Decoder, tokenizer: Tokenizer) -> None:
    free = prepared(decoder, tokenizer, "plain", max_new_tokens=40).complete([Request(TALKS[0], 1)])[0]
    stop = free.text[10:12]
    held = prepared(decoder, tokenizer, "plain", max_new_tokens=40, stop=[stop]).complete([Request(TALKS[0], 1)])[0]
    assert (held.text, held.finish) == (free.text[: free.text.index(stop)], "stop")
    assert held.response_tokens == free.response_tokens  # computed in vain


def test_transcripts_are_those_of_hh(tokenizer: Tokenizer) -> None:
    talk = [*TALKS[2], {"role": "assistant", "content": "D"}]
    encoded = ChatTemplate("transcript", tokenizer).encode(talk)
    assert encoded.ids[0] == tokenizer.bos
    assert transcript(tokenizer.decode(encoded.ids)) == talk
    assert tokenizer.decode(encoded.prompt_and_response()[1]) == " D"


def test_what_cannot_be_asked_is_refused_alone(decoder: Decoder, tokenizer: Tokenizer) -> None:
    judge = prepared(decoder, tokenizer, "chatml", max_prompt_tokens=40, max_new_tokens=4)
    requests = [Request(talk, number) for number, talk in enumerate(TALKS)]
    responses, verdicts = judge.complete(requests), judge.choose(requests, ("(A)", "(B)"))
    assert [response.finish == "refused" for response in responses] == [False, True, False]
    assert responses[1].text == verdicts[1].reason == "prompt_too_long"
    assert [len(verdict.log_probabilities) for verdict in verdicts] == [2, 0, 2]
    assert verdicts[0] == judge.choose(requests[:1], ("(A)", "(B)"))[0]
    assert judge.complete([requests[1]])[0].finish == "refused"
    broken = judge.complete([Request([{"role": "user", "content": 3}], 0)])[0]  # type: ignore[list-item]
    assert broken.finish == "refused"
    assert broken.text.startswith("refused_by_template: ")
    with pytest.raises(InputError, match="one is the beginning of another"):
        judge.choose(requests, ("kiro", "kiro bas"))


def test_impossible_settings_are_refused() -> None:
    for settings, named in (
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"slots": 0}, "slots=0"),
        ({"max_prompt_tokens": 0}, "max_prompt_tokens"),
        ({"stop": ["x", ""]}, "stop holds an empty text"),
        ({"prompt_price": -1.0}, "prompt_price=-1"),
        ({"temperature": -1.0}, "temperature=-1"),
    ):
        with pytest.raises(InputError, match=named):
            DecoderJudge("model", **settings)  # type: ignore[arg-type]
