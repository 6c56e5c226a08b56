"""Word hashes: the words of a text as 64-bit hashes with their positions, for comparing sequences of words.

A word is a lower-cased run of letters, digits and combining marks; in scripts written without spaces every character
is one. That ignores punctuation and layout, as comparisons of texts want, and knows nothing of a language: "don't"
is two words, a Thai word is several. Hashes instead of strings keep 24 bytes per word and compare in one instruction;
two of n different words share one with a probability of n^2 / 2^65.
"""

import functools
import unicodedata
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import regex

from common.compute.compiled import compiled
from common.compute.hashing import FNV_START, hash_step
from datamodules.curation.words.characters import UNSPACED_SCRIPTS

UNSPACED = UNSPACED_SCRIPTS
"""A character of a script written without spaces between words: each counts as a word, or a text would be one."""
SEPARATOR, IN_WORD, ALONE = 0, 1, 2
TABLE_SIZE = 0x32400
"""No letter, digit or mark lies above, but for variation selectors, which separate nothing worth comparing."""
BATCH_BYTES = 8 * 2**20
"""Texts worked on at a time, so that arrays of words stay small whatever a column holds."""


@lru_cache(maxsize=1)
def character_tables() -> tuple[np.ndarray, np.ndarray]:
    """Kind of each code point, uint8 [TABLE_SIZE], and its lower case, uint32 [TABLE_SIZE]; Python's Unicode tables.

    Characters whose lower case is more than one character keep their first: only dotted capital I.
    """
    kinds = np.zeros(TABLE_SIZE, dtype=np.uint8)
    lower = np.arange(TABLE_SIZE, dtype=np.uint32)
    unspaced = regex.compile(UNSPACED)
    for code in range(TABLE_SIZE):
        character = chr(code)
        if unicodedata.category(character)[0] in "LNM":
            kinds[code] = ALONE if unspaced.match(character) else IN_WORD
            lower[code] = ord(character.lower()[0])
    return kinds, lower


def word_hashes(data: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Words of texts, in order.

    Args:
        data: uint8, UTF-8 of the texts, as `buffers.utf8_buffers` gives it.
        offsets: int64 [texts + 1], where each text begins and the last one ends.

    Returns:
        uint64 [words] hash of each word; int64 [words] where it begins in `data`; int64 [words] where it ends;
        int64 [texts + 1], the first word of each text, and the number of all.
    """
    kinds, lower = character_tables()
    bounds = np.zeros(len(offsets), dtype=np.int64)
    none = np.empty(0, dtype=np.int64)
    _walk(data, offsets, kinds, lower, bounds, np.empty(0, dtype=np.uint64), none, none, False)
    hashes = np.empty(bounds[-1], dtype=np.uint64)
    starts, ends = np.empty(bounds[-1], dtype=np.int64), np.empty(bounds[-1], dtype=np.int64)
    _walk(data, offsets, kinds, lower, bounds, hashes, starts, ends, True)
    return hashes, starts, ends, bounds


def window_hashes(hashes: np.ndarray, size: int) -> np.ndarray:
    """Hash of every run of `size` words, uint64 [max(0, words - size + 1)]; runs across two texts are the caller's.

    Runs of 1, 2, 4, ... words are joined, log2(size) steps per word. A polynomial that rolls along takes two, but
    modulo 2^64 it maps words that changed places to one value far too often.

    Args:
        hashes: uint64 [words].
        size: words in a run, at least 1.
    """
    found = np.empty(max(0, len(hashes) - size + 1), dtype=np.uint64)
    if len(found):
        _join_windows(hashes.copy(), size, found)
    return found


def in_batches(offsets: np.ndarray, max_bytes: int = BATCH_BYTES) -> Iterator[tuple[int, int]]:
    """First and last + 1 of consecutive texts of about `max_bytes` bytes together; a larger text is alone."""
    begin = 0
    while begin < len(offsets) - 1:
        end = int(np.searchsorted(offsets, offsets[begin] + max_bytes, side="right")) - 1
        end = min(max(end, begin + 1), len(offsets) - 1)
        yield begin, end
        begin = end


@functools.partial(compiled, inline="always")
def decode(data: np.ndarray, place: int) -> tuple[np.int64, int]:
    """Code point of valid UTF-8 at a place, and how many bytes it takes."""
    first = np.int64(data[place])
    if first < 0x80:
        return first, 1
    if first < 0xE0:
        return ((first & 0x1F) << 6) | (np.int64(data[place + 1]) & 0x3F), 2
    code = ((first & 0x0F) << 12) | ((np.int64(data[place + 1]) & 0x3F) << 6) | (np.int64(data[place + 2]) & 0x3F)
    if first < 0xF0:
        return code, 3
    code = ((first & 0x07) << 18) | ((np.int64(data[place + 1]) & 0x3F) << 12)
    return code | ((np.int64(data[place + 2]) & 0x3F) << 6) | (np.int64(data[place + 3]) & 0x3F), 4


@compiled
def _walk(
    data: np.ndarray,
    offsets: np.ndarray,
    kinds: np.ndarray,
    lower: np.ndarray,
    bounds: np.ndarray,
    hashes: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
    fills: bool,
) -> None:
    """Count the words of each text into `bounds`, or fill the arrays."""
    word = 0
    for text in range(len(offsets) - 1):
        place, end, inside, value = offsets[text], offsets[text + 1], False, FNV_START
        while place < end:
            code, width = decode(data, place)
            kind = kinds[code] if code < TABLE_SIZE else SEPARATOR
            if inside and kind != IN_WORD:
                if fills:
                    hashes[word], ends[word] = value, place
                inside = False
                word += 1
            if kind == ALONE:
                if fills:
                    hashes[word] = hash_step(FNV_START, np.uint64(lower[code]))
                    starts[word], ends[word] = place, place + width
                word += 1
            elif kind == IN_WORD:
                if not inside:
                    inside, value = True, FNV_START
                    if fills:
                        starts[word] = place
                if fills:
                    value = hash_step(value, np.uint64(lower[code]))
            place += width
        if inside:
            if fills:
                hashes[word], ends[word] = value, end
            word += 1
        bounds[text + 1] = word


@compiled
def _join_windows(joined: np.ndarray, size: int, found: np.ndarray) -> None:
    """`joined` holds runs of `span` words, doubled in place; the runs named by the bits of `size` are put together."""
    for place in range(len(found)):
        found[place] = np.uint64(size)
    span, taken, words = 1, 0, len(joined)
    while True:
        if size & span:
            for place in range(len(found)):
                found[place] = hash_step(found[place], joined[place + taken])
            taken += span
        if taken == size:
            return
        # Left to right: what is read on the right is still a run of the old length.
        for place in range(words - 2 * span + 1):
            joined[place] = hash_step(joined[place], joined[place + span])
        span *= 2
