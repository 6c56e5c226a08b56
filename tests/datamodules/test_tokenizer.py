"""Lossless on any text, honest about bytes, clear about a vocabulary that cannot be filled."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from datamodules.tokenizer import Tokenizer, TokenizerSettings, train_tokenizer
from errors import InputError

TEXTS = [
    f"def function_{i}(x):\n    return x + {i * 37}  # line {i}\n\n" + "some prose, too. " * (i % 5) for i in range(300)
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS, TokenizerSettings(vocabulary_size=380))


@settings(max_examples=300, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
@example(text="\u2581a\ue000\ue001 \ue000\ue000\u2581")
@example(text="\x00\r\n\t  \u2028<s></s><|im_start|><0x0A>\ufeffe\u0301\U0001f600")
@example(text="   leading and trailing   ")
def test_round_trip_of_any_text(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.encode_batch([text, "x"])[0] == ids


@settings(max_examples=100, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\u2581\ue000")))
def test_token_bytes_add_up_to_the_text(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.token_bytes()[tokenizer.encode(text)].sum() == len(text.encode())


def test_text_never_becomes_a_control_token(tokenizer: Tokenizer) -> None:
    control = {i for i, size in enumerate(tokenizer.token_bytes()) if size == 0}
    assert {tokenizer.bos, tokenizer.eos, tokenizer.pad} <= control
    assert len(control) == 4 + len(TokenizerSettings().control_tokens)
    assert not control & set(tokenizer.encode("<s></s><unk><pad><|im_start|>assistant<|im_end|><|reserved_0|>"))


def test_digits_are_split(tokenizer: Tokenizer) -> None:
    assert len(tokenizer.encode("1234567")) == 7


@pytest.mark.parametrize("size", [100, 268])
def test_vocabulary_below_the_byte_tokens_is_refused(size: int) -> None:
    with pytest.raises(InputError, match=f"vocabulary_size={size}"):
        TokenizerSettings(vocabulary_size=size)


@pytest.mark.parametrize("tokens", [["a", "b", "a"], [""], ["<s>"], ["</s>"], ["<unk>"], ["<pad>"], ["<0x0A>"]])
def test_control_tokens_that_cannot_be_added_are_refused(tokens: list[str]) -> None:
    with pytest.raises(InputError, match=f"control_tokens holds {tokens[0]!r}"):
        TokenizerSettings(control_tokens=tokens)


@pytest.mark.parametrize("size", [0.0, -1.0, float("nan"), float("inf")])
def test_a_sample_without_a_size_is_refused(size: float) -> None:
    with pytest.raises(InputError, match="sample_megabytes="):
        TokenizerSettings(sample_megabytes=size)


@pytest.mark.parametrize("texts", [["too little text"], [], [""]])
def test_vocabulary_the_corpus_cannot_fill_is_refused(texts: list[str]) -> None:
    with pytest.raises(InputError, match="vocabulary_size=5000 cannot be filled") as raised:
        train_tokenizer(texts, TokenizerSettings(vocabulary_size=5000))
    assert "\n" not in str(raised.value)


def test_vocabulary_too_small_for_the_characters_is_refused() -> None:
    with pytest.raises(InputError, match="vocabulary_size=270 cannot hold the characters .* choose at least 3"):
        train_tokenizer(TEXTS, TokenizerSettings(vocabulary_size=270))
