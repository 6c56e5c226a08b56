"""Words and windows of words against naive versions."""

import sys
import time
import unicodedata
from collections.abc import Callable

import numpy as np
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.curation.deduplication.word_hashes import TABLE_SIZE, in_batches, window_hashes, word_hashes
from datamodules.curation.words.utf8_buffers import utf8_buffers
from tests.helpers.curation import naive_words

TEXT = st.text(st.characters(exclude_categories=["Cs"], max_codepoint=TABLE_SIZE - 1), max_size=40) | st.text(
    "aAbB1 _-'.,\n\x00é\u0301你好ไทยИ\U0001f600\U00020000", max_size=40
)


def known_to_python(text: str) -> bool:
    """Whether the two libraries' Unicode tables can agree: those of `regex` are newer."""
    return all(unicodedata.category(character) != "Cn" for character in text)


@settings(max_examples=300, deadline=None)
@given(texts=st.lists(TEXT.filter(known_to_python), max_size=5))
def test_words_equal_a_regular_expression(texts: list[str]) -> None:
    data, offsets = utf8_buffers(pyarrow.array(texts, pyarrow.string()))
    hashes, starts, ends, bounds = word_hashes(data, offsets)
    seen: dict[str, int] = {}
    for number, text in enumerate(texts):
        expected = naive_words(text)
        own = slice(bounds[number], bounds[number + 1])
        begins, finishes = (starts[own] - offsets[number]).tolist(), (ends[own] - offsets[number]).tolist()
        places = list(zip(begins, finishes, strict=True))
        assert places == [(begin, end) for _, begin, end in expected]
        for (word, _, _), value in zip(expected, hashes[own].tolist(), strict=True):
            assert seen.setdefault(word, value) == value
    assert len(set(seen.values())) == len(seen)


def test_no_letter_digit_or_mark_lies_above_the_table() -> None:
    above = {unicodedata.category(chr(code)) for code in range(TABLE_SIZE, 0xE0000)}
    assert not any(category[0] in "LN" for category in above)
    assert {chr(code) for code in range(TABLE_SIZE, sys.maxunicode) if unicodedata.category(chr(code))[0] == "M"} == {
        chr(code) for code in range(0xE0100, 0xE01F0)
    }


@settings(max_examples=200, deadline=None)
@given(words=st.lists(st.integers(0, 2), max_size=40), size=st.integers(1, 17))
def test_equal_windows_have_equal_hashes_and_no_others(words: list[int], size: int) -> None:
    hashes = np.array(words, dtype=np.uint64)
    found = window_hashes(hashes, size).tolist()
    windows = [tuple(words[i : i + size]) for i in range(len(words) - size + 1)]
    assert len(found) == len(windows)
    assert len(set(zip(windows, found, strict=True))) == len(set(windows)) == len(set(found))
    assert hashes.tolist() == words


def test_hashes_spread_over_all_bits() -> None:
    texts = pyarrow.array([" ".join(f"w{i}" for i in range(20_000))])
    hashes = word_hashes(*utf8_buffers(texts))[0]
    for values in (hashes, window_hashes(hashes, 50)):
        ones = [int(((values >> np.uint64(bit)) & np.uint64(1)).sum()) / len(values) for bit in range(64)]
        assert min(ones) > 0.48
        assert max(ones) < 0.52


@given(lengths=st.lists(st.integers(0, 9), max_size=20), most=st.integers(1, 12))
def test_batches_hold_every_text_once(lengths: list[int], most: int) -> None:
    offsets = np.append(0, np.cumsum(lengths)).astype(np.int64)
    batches = list(in_batches(offsets, most))
    assert [text for begin, end in batches for text in range(begin, end)] == list(range(len(lengths)))
    assert all(end == begin + 1 or offsets[end] - offsets[begin] <= most for begin, end in batches)


def seconds(work: Callable[[], object]) -> float:
    start = time.thread_time()
    work()
    return time.thread_time() - start


@pytest.mark.parametrize("unit", ["a", "a ", "\x00", "你", "\n", "- ", "é"])
def test_ten_million_bytes_take_linear_time(unit: str) -> None:
    word_hashes(np.frombuffer(b"a", dtype=np.uint8), np.array([0, 1]))
    data = np.frombuffer(unit.encode() * (10_000_000 // len(unit.encode())), dtype=np.uint8)
    took = seconds(lambda: window_hashes(word_hashes(data, np.array([0, len(data)]))[0], 50))
    assert took < 8
