"""Word-level cache in front of BPE.

A text repeats its words, and merging pairs is slow and gives the same tokens each time. Where two neighboring bytes
occur together in no token, no merge ever joins them, so a text cut there and encoded piece by piece has the same tokens
as the whole text. The price is a table of the words seen, emptied when it is full.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from common.compute.compiled import compiled
from common.compute.hashing import FNV_PRIME, FNV_START

MAX_WORDS, MAX_BYTES = 2**20, 2**26
"""The table is emptied beyond either: about 100 MB with the tokens."""

Encode = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""From words to tokens, as `BytePairs` does it."""


class EncodedWords:
    """Word cache: encodes texts by their words, cut where no token joins two bytes.

    Args:
        encode: words to their tokens.
        joined: pairs of bytes that follow each other in a token, from `joined_bytes`.
    """

    def __init__(self, encode: Encode, joined: np.ndarray) -> None:
        self._encode, self._joined = encode, joined
        self._clear()

    def _clear(self) -> None:
        self._count = 0
        self._slots = np.full(2**12, -1, dtype=np.int32)
        self._hashes = np.empty(0, dtype=np.uint64)
        self._letters, self._places = np.empty(0, dtype=np.uint8), np.zeros(1, dtype=np.int64)
        self._tokens, self._token_places = np.empty(0, dtype=np.int32), np.zeros(1, dtype=np.int64)

    def __call__(self, content: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Token ids of texts.

        Args:
            content: their UTF-8, uint8 [bytes].
            starts: where each begins, and the end of the last, int64 [texts + 1].

        Returns:
            int32 [tokens], all texts one after another, and the number of tokens of each, int64 [texts].
        """
        if self._count > MAX_WORDS or self._places[self._count] > MAX_BYTES:
            self._clear()
        ends, hashes, words_of_text = _split(content, starts, self._joined)
        words, missing, missing_bytes = _look_up(
            content, ends, hashes, self._slots, self._hashes, self._letters, self._places
        )
        if missing:
            self._add(content, ends, hashes, words, missing, missing_bytes)
        return _gather(words, words_of_text, self._tokens, self._token_places)

    def _add(
        self, content: np.ndarray, ends: np.ndarray, hashes: np.ndarray, words: np.ndarray, missing: int, size: int
    ) -> None:
        """Encode the words that the table lacks and put their numbers into `words`."""
        before = self._count
        self._hashes = _grown(self._hashes, before + missing)
        self._places = _grown(self._places, before + missing + 1)
        self._letters = _grown(self._letters, int(self._places[before]) + size)
        while len(self._slots) < 2 * (before + missing):
            self._slots = np.full(2 * len(self._slots), -1, dtype=np.int32)
            _place(self._slots, self._hashes[:before])
        self._count = _insert(
            content, ends, hashes, words, self._slots, self._hashes, self._letters, self._places, before
        )
        places = self._places[before : self._count + 1]
        tokens, lengths = self._encode(self._letters[places[0] : places[-1]], places - places[0])
        start = int(self._token_places[before])
        self._token_places = _grown(self._token_places, self._count + 1)
        self._token_places[before + 1 : self._count + 1] = start + np.cumsum(lengths)
        self._tokens = _grown(self._tokens, start + len(tokens))
        self._tokens[start : start + len(tokens)] = tokens


def joined_bytes(tokens: Iterable[bytes]) -> np.ndarray:
    """Pairs of bytes that follow each other within a token or a character, boolean [256, 256]."""
    joined = np.zeros((256, 256), dtype=bool)
    joined[:, 0x80:0xC0] = True  # the second and later bytes of a character
    texts = list(tokens)
    letters = np.frombuffer(b"".join(texts), dtype=np.uint8)
    within = np.ones(len(letters), dtype=bool)
    within[np.cumsum([0, *map(len, texts)])[:-1]] = False  # the first of a token follows no other
    joined[letters[:-1][within[1:]], letters[1:][within[1:]]] = True
    return joined


def _grown(array: np.ndarray, length: int) -> np.ndarray:
    """The array with room for `length` items, at least doubled where there was not."""
    if len(array) >= length:
        return array
    larger = np.empty(max(length, 2 * len(array)), dtype=array.dtype)
    larger[: len(array)] = array
    return larger


@compiled
def _split(content: np.ndarray, starts: np.ndarray, joined: np.ndarray) -> Any:
    """Where each word ends, its hash (FNV-1a with a final mix), and the number of words of each text."""
    most = len(starts)
    for place in range(1, len(content)):
        most += not joined[content[place - 1], content[place]]
    ends, hashes = np.empty(most, dtype=np.int64), np.empty(most, dtype=np.uint64)
    words_of_text = np.zeros(len(starts) - 1, dtype=np.int64)
    count = 0
    for text in range(len(starts) - 1):
        first = count
        value = FNV_START
        for place in range(starts[text], starts[text + 1]):
            letter = content[place]
            if place > starts[text] and not joined[content[place - 1], letter]:
                ends[count], hashes[count] = place, value ^ (value >> np.uint64(32))
                count += 1
                value = FNV_START
            value = (value ^ np.uint64(letter)) * FNV_PRIME
        if starts[text + 1] > starts[text]:
            ends[count], hashes[count] = starts[text + 1], value ^ (value >> np.uint64(32))
            count += 1
        words_of_text[text] = count - first
    return ends[:count], hashes[:count], words_of_text


@compiled
def _find(
    content: np.ndarray, start: int, end: int, value: int, slots: np.ndarray, hashes: np.ndarray,
    letters: np.ndarray, places: np.ndarray,
) -> Any:  # fmt: skip
    """The slot of a word, or the empty one where it belongs: linear probing, letters compared."""
    mask = np.uint64(len(slots) - 1)
    slot = value & mask
    while slots[slot] >= 0:
        word = slots[slot]
        if hashes[word] == value and places[word + 1] - places[word] == end - start:
            same = True
            for offset in range(end - start):
                if letters[places[word] + offset] != content[start + offset]:
                    same = False
                    break
            if same:
                break
        slot = (slot + np.uint64(1)) & mask
    return slot


@compiled
def _look_up(
    content: np.ndarray, ends: np.ndarray, found_hashes: np.ndarray, slots: np.ndarray, hashes: np.ndarray,
    letters: np.ndarray, places: np.ndarray,
) -> Any:  # fmt: skip
    """Number of each word, -1 where the table lacks it, and how many and how many bytes those are."""
    words = np.empty(len(ends), dtype=np.int32)
    start, missing, size = 0, 0, 0
    for index in range(len(ends)):
        slot = _find(content, start, ends[index], found_hashes[index], slots, hashes, letters, places)
        words[index] = slots[slot]
        if slots[slot] < 0:
            missing += 1
            size += ends[index] - start
        start = ends[index]
    return words, missing, size


@compiled
def _place(slots: np.ndarray, hashes: np.ndarray) -> None:
    """Put words into an empty table by their hashes alone: they differ."""
    mask = np.uint64(len(slots) - 1)
    for word in range(len(hashes)):
        slot = hashes[word] & mask
        while slots[slot] >= 0:
            slot = (slot + np.uint64(1)) & mask
        slots[slot] = word


@compiled
def _insert(
    content: np.ndarray, ends: np.ndarray, found_hashes: np.ndarray, words: np.ndarray, slots: np.ndarray,
    hashes: np.ndarray, letters: np.ndarray, places: np.ndarray, count: int,
) -> int:  # fmt: skip
    """Give every word that has no number one, the same to the same word; returns how many there are then."""
    start = 0
    for index in range(len(ends)):
        if words[index] < 0:
            slot = _find(content, start, ends[index], found_hashes[index], slots, hashes, letters, places)
            if slots[slot] < 0:
                slots[slot] = count
                hashes[count] = found_hashes[index]
                length = ends[index] - start
                letters[places[count] : places[count] + length] = content[start : ends[index]]
                places[count + 1] = places[count] + length
                count += 1
            words[index] = slots[slot]
        start = ends[index]
    return count


@compiled
def _gather(words: np.ndarray, words_of_text: np.ndarray, tokens: np.ndarray, places: np.ndarray) -> Any:
    """The tokens of all words one after another, and how many each text has."""
    total = 0
    for word in words:
        total += places[word + 1] - places[word]
    ids = np.empty(total, dtype=np.int32)
    lengths = np.zeros(len(words_of_text), dtype=np.int64)
    index, end = 0, 0
    for text in range(len(words_of_text)):
        first = end
        for word in words[index : index + words_of_text[text]]:
            for place in range(places[word], places[word + 1]):
                ids[end] = tokens[place]
                end += 1
        index += words_of_text[text]
        lengths[text] = end - first
    return ids, lengths
