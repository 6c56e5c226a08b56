"""Words against their definition, against spaCy where it is installed, and in linear time."""

import time

import numpy as np
import pytest
from hypothesis import given, settings

from datamodules.curation.words.english import special_cases
from datamodules.curation.words.split import HAS_LETTER, HAS_NO_SYMBOL, empty_words, split_words, words_of
from datamodules.curation.words.tables import splitting_rules
from tests.helpers.curation import FRAGMENTS, any_text

SENTENCES = [
    "Mr. O'Neil doesn't know; he'd've asked (e.g. Dr. Who, Ph.D.) at 10 a.m. or 10pm.",
    "def f(x): return self.__init__(a[1:], b={'c': 2})  # see http://example.org/a-b?c=d or me@example.org",
    "It's “well-known”, isn't it? That's £5.50, 20% of $30, 5km/h... and/or 3-4 vs. U.S. (U.K.).",
    "first.Second,third a--b a---b x=y x<y 1+1 1*2 np.array/y os.path:x :-) (: 8) ]= ): ° 30 °C. 12€ US$3",
    "cannot gonna id im its dont we're WE'RE y'all c'mon 'cause ''quoted'' ``ticks'' ...begin end...",
]


@settings(max_examples=300, deadline=None)
@given(text=any_text)
def test_words_are_the_text_without_its_white_space(text: str) -> None:
    assert "".join(words_of(text)) == "".join(text.split())
    assert words_of(text, "whitespace") == text.split()


@settings(max_examples=200, deadline=None)
@given(text=any_text)
def test_what_is_known_of_words_follows_from_their_characters(text: str) -> None:
    raw = np.frombuffer(text.encode(), dtype=np.uint8)
    words, rules = empty_words(len(raw)), splitting_rules("english")
    count = split_words(raw, words, rules)
    strings = words_of(text)
    assert words.characters[:count].tolist() == list(map(len, strings))
    assert [kind & HAS_LETTER > 0 for kind in words.kinds[:count].tolist()] == [
        any(character.isalpha() for character in word) for word in strings
    ]
    assert len(set(words.hashes[:count].tolist())) == len(set(strings))
    assert all(kind & HAS_NO_SYMBOL for kind, word in zip(words.kinds, strings, strict=False) if word.isalnum())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, world!", "Hello|,|world|!"),
        ("He doesn't.", "He|does|n't|."),
        ("(e.g. this)", "(|e.g.|this|)"),
        ("well-known", "well|-|known"),
        ("__init__", "_|_|init|_|_"),
        ("f(x):", "f(x|):"),
        ("5km for $3.50", "5|km|for|$|3.50"),
        ("see http://example.org/a-b.", "see|http://example.org/a-b|."),
        ("end.Begin", "end|.|Begin"),
        ("wait...", "wait|..."),
        ("汉字。", "汉字|。"),
    ],
)
def test_english_is_split(text: str, expected: str) -> None:
    assert words_of(text) == expected.split("|")


def test_words_agree_with_spacy() -> None:
    spacy = pytest.importorskip("spacy", reason="spaCy comes with the bench extra")
    tokenizer = spacy.blank("en").tokenizer
    known = {case: tuple(part[65] for part in parts) for case, parts in tokenizer.rules.items() if case.strip()}
    cases = special_cases()
    assert {case: cases.get(case) for case in known} == known
    for text in [*SENTENCES, *(f"{a}{b}{c}" for a in FRAGMENTS for b in FRAGMENTS for c in "(. x")]:
        theirs = [token.text.strip() for token in tokenizer(text) if token.text.strip()]
        assert words_of(text) == theirs, text


@pytest.mark.parametrize(
    "unit",
    ["a", ".", "-", "a-", "(", "'", "'s", "a.", "http://", "a.b@", "1", "1+", "é", "汉", "…", "U.S.", ":)", "@a.bc"],
)
def test_time_is_linear(unit: str) -> None:
    rules = splitting_rules("english")
    text = np.frombuffer((unit * (1_000_000 // len(unit.encode()))).encode(), dtype=np.uint8)
    words = empty_words(len(text))

    def seconds(size: int) -> float:
        start = time.process_time()
        split_words(text[: size - size % len(unit.encode())], words, rules)
        return time.process_time() - start

    seconds(1000)
    # Sixteen times the text takes sixteen times as long; quadratic time would be 256 times as long.
    assert seconds(1_000_000) < 64 * max(seconds(62_500), 0.002)
