"""The compiled merges are SentencePiece's, and those of a naive loop where SentencePiece trains no such vocabulary."""

from io import BytesIO
from itertools import pairwise

import numpy as np
import pyarrow
import pytest
import sentencepiece
from hypothesis import example, given, settings
from hypothesis import strategies as st

from common.errors import InputError
from datamodules.tokenization.base import TokenizerSettings
from datamodules.tokenization.bpe import BytePairs
from datamodules.tokenization.sentencepiece import SentencePieceTokenizer, train_tokenizer
from tests.helpers.corpus import TEXTS

BYTES = np.arange(1000, 1256, dtype=np.int32)


def encode(pairs: BytePairs, words: list[str]) -> list[list[int]]:
    written = [word.encode() for word in words]
    places = np.cumsum([0, *map(len, written)]).astype(np.int64)
    tokens, lengths = pairs(np.frombuffer(b"".join(written), dtype=np.uint8), places)
    return [part.tolist() for part in np.split(tokens, np.cumsum(lengths))[:-1]]


def naive(tokens: list[str | None], word: str) -> list[int]:
    symbols = list(word)
    while found := [(tokens.index(a + b), place) for place, (a, b) in enumerate(pairwise(symbols)) if a + b in tokens]:
        place = min(found)[1]
        symbols[place : place + 2] = [symbols[place] + symbols[place + 1]]
    return [
        number
        for symbol in symbols
        for number in ([tokens.index(symbol)] if symbol in tokens else BYTES[list(symbol.encode())].tolist())
    ]


@pytest.fixture(scope="module")
def trained() -> tuple[SentencePieceTokenizer, BytePairs]:
    tokenizer = train_tokenizer(TEXTS, TokenizerSettings(vocabulary_size=380))
    return tokenizer, BytePairs(tokenizer.texts(), tokenizer.byte_ids())


@settings(max_examples=300, deadline=None)
@given(
    words=st.lists(
        st.one_of(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\u2581\ue000")),
            st.lists(st.sampled_from([*"functio (x):\n", "some prose,", "é", "\U0001f600"])).map("".join),
        ),
        max_size=5,
    )
)
@example(words=["", "x", "", "\x00", "\x7f\x80\u07ff\u0800\uffff\U00010000\U0010ffff"])
def test_any_words_have_the_tokens_sentencepiece_gives_them(
    trained: tuple[SentencePieceTokenizer, BytePairs], words: list[str]
) -> None:
    tokenizer, pairs = trained
    assert encode(pairs, words) == [tokenizer.encode(word) for word in words]


def test_a_word_of_a_million_letters_takes_a_moment(trained: tuple[SentencePieceTokenizer, BytePairs]) -> None:
    tokenizer, pairs = trained
    word = "some prose, function(x): " * 40_000
    assert encode(pairs, [word, "so"]) == [tokenizer.encode(word), tokenizer.encode("so")]


@settings(max_examples=200, deadline=None)
@given(
    tokens=st.lists(
        st.one_of(st.none(), st.text("abé", min_size=1, max_size=4)), max_size=12, unique_by=lambda t: t or object()
    ),
    words=st.lists(st.text("abcé", max_size=12), max_size=4),
)
@example(tokens=[None, "ab", "abé"], words=["abéab", "a"])
@example(tokens=["aa", "aaaa", "a"], words=["a" * 11])
def test_a_character_that_is_no_token_can_be_part_of_one(tokens: list[str | None], words: list[str]) -> None:
    assert encode(BytePairs(tokens, BYTES), words) == [naive(tokens, word) for word in words]


def test_a_rare_space_has_a_token_of_its_own() -> None:
    """The trainer leaves out characters below 0.05 % of a corpus."""
    texts = ["".join(chr(0x4E00 + (7 * i + j * j) % 300) for j in range(200)) for i in range(60)]
    tokenizer = train_tokenizer(texts, TokenizerSettings(vocabulary_size=620))
    text = "\u4e00 \u4e01 a"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode_column(pyarrow.array([text]))[0].tolist() == tokenizer.encode(text)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"model_type": "unigram"}, "no byte-pair encoding with a token for every byte"),
        ({"byte_fallback": False}, "no byte-pair encoding with a token for every byte"),
        ({"user_defined_symbols": ["func"]}, "symbols of its own"),
        ({"normalization_rule_name": "nmt_nfkc"}, "rewrites text"),
        ({"normalization_rule_name": "nmt_nfkc_cf"}, "rewrites text"),
    ],
)
def test_a_model_of_another_kind_is_refused(options: dict[str, object], why: str) -> None:
    model = BytesIO()
    defaults = {
        "model_type": "bpe", "byte_fallback": True, "vocab_size": 380, "hard_vocab_limit": False,
        "normalization_rule_name": "identity",
    }  # fmt: skip
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_writer=model, add_dummy_prefix=False, remove_extra_whitespaces=False,
        pad_id=3, minloglevel=2, **{**defaults, **options},
    )  # fmt: skip
    with pytest.raises(InputError, match=why):
        SentencePieceTokenizer(model.getvalue())
