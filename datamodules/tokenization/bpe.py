"""Byte-pair encoding (BPE) of SentencePiece models as a compiled loop, without the interpreter's lock.

The library makes a list or an array of every word it is given, under the lock; on words of ten letters that costs more
than merging does. The tokens are its own (tests hold the two side by side). Costs two tables of the vocabulary: a
token of every character, and the token of every two that merge, about 8 MB at 32 thousand tokens.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from common.compute.compiled import compiled
from common.compute.hashing import GOLDEN_RATIO

CHARACTERS = 0x110000
NOTHING = -1
LATEST = np.int64(2**63 - 1)
"""Entry of a tournament for two tokens that do not merge."""


class BytePairs:
    """Merges the characters of words into tokens: always the pair of the smallest token, the first of several.

    Args:
        tokens: text of every token in the order of merging, and None for those that text never turns into.
        byte_tokens: the token of each byte, int32 [256], for characters that are no token.
    """

    def __init__(self, tokens: Sequence[str | None], byte_tokens: np.ndarray) -> None:
        self._byte_tokens, self._count = byte_tokens, len(tokens)
        numbers = {text: number for number, text in enumerate(tokens) if text is not None}
        # A character may be in tokens and be none: it has a number beyond them until it is merged.
        for character in sorted({*"".join(numbers)} - numbers.keys()):
            numbers[character] = len(tokens) + len(numbers)
        self._characters = np.full(CHARACTERS, NOTHING, dtype=np.int32)
        merges = []
        for text, number in numbers.items():
            if len(text) == 1:
                self._characters[ord(text)] = number
            for cut in range(1, len(text)):
                left = numbers.get(text[:cut])
                if left is not None and (right := numbers.get(text[cut:])) is not None:
                    merges.append((left << 32 | right, number))
        self._merges = np.full((2 ** (2 * len(merges) + 1).bit_length(), 2), NOTHING, dtype=np.int64)
        _fill(self._merges, np.array(merges, dtype=np.int64).reshape(-1, 2))

    def __call__(self, letters: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tokens of words.

        Args:
            letters: their UTF-8, uint8 [bytes].
            places: where each begins, and the end of the last, int64 [words + 1].

        Returns:
            int32 [tokens], all words one after another, and the number of tokens of each, int64 [words].
        """
        return _encode(letters, places, self._characters, self._merges, self._byte_tokens, self._count)


@compiled
def _slot(merges: np.ndarray, key: int) -> Any:
    """Where two tokens are in the table, or the empty place where they belong."""
    mask = np.uint64(len(merges) - 1)
    slot = ((np.uint64(key) * GOLDEN_RATIO) >> np.uint64(32)) & mask
    while merges[slot, 0] != key and merges[slot, 0] != NOTHING:
        slot = (slot + np.uint64(1)) & mask
    return slot


@compiled
def _fill(table: np.ndarray, merges: np.ndarray) -> None:
    for index in range(len(merges)):
        table[_slot(table, merges[index, 0])] = merges[index]


@compiled
def _entry(symbols: np.ndarray, first: int, second: int, merges: np.ndarray) -> Any:
    """In the tournament, of two neighbors: what they merge into and where, or `LATEST`."""
    if symbols[first] < 0 or symbols[second] < 0:
        return LATEST
    slot = _slot(merges, symbols[first] << 32 | symbols[second])
    return merges[slot, 1] << 32 | first if merges[slot, 0] != NOTHING else LATEST


@compiled
def _enter(tournament: np.ndarray, node: int, entry: int) -> None:
    """Change a leaf and what it wins, as far up as that changes anything."""
    tournament[node] = entry
    while node > 1:
        node >>= 1
        winner = min(tournament[2 * node], tournament[2 * node + 1])
        if tournament[node] == winner:
            break
        tournament[node] = winner


@compiled
def _character(letters: np.ndarray, place: int, end: int) -> Any:
    """Code point and number of bytes of the character at a place of valid UTF-8."""
    first = np.int64(letters[place])
    length = 1 + int(first >= 0xC0) + int(first >= 0xE0) + int(first >= 0xF0)
    value = first if length == 1 else first & (0x7F >> length)
    for offset in range(1, min(length, end - place)):
        value = value << 6 | (np.int64(letters[place + offset]) & 0x3F)
    return value, length


@compiled
def _encode(
    letters: np.ndarray, places: np.ndarray, characters: np.ndarray, merges: np.ndarray,
    byte_tokens: np.ndarray, count: int,
) -> Any:  # fmt: skip
    """Tokens of all words and the number of each; tokens from `count` on are characters, spelled in bytes."""
    longest = 1
    for word in range(len(places) - 1):
        longest = max(longest, places[word + 1] - places[word])
    symbols, starts = np.empty(longest, dtype=np.int64), np.empty(longest + 1, dtype=np.int64)
    following, before = np.empty(longest + 1, dtype=np.int64), np.empty(longest + 1, dtype=np.int64)
    # The next merge is the winner of a tournament: of a symbol and its neighbor at leaf `size + symbol`.
    tournament = np.empty(2 * longest, dtype=np.int64)
    tokens, lengths = np.empty(len(letters), dtype=np.int32), np.empty(len(places) - 1, dtype=np.int64)
    end = 0
    for word in range(len(places) - 1):
        place, size = places[word], 0
        while place < places[word + 1]:
            value, length = _character(letters, place, places[word + 1])
            symbols[size], starts[size] = characters[value], place
            before[size], following[size] = size - 1, size + 1
            place += length
            size += 1
        lengths[word] = 0
        if not size:
            continue
        starts[size] = places[word + 1]
        for index in range(size - 1):
            tournament[size + index] = _entry(symbols, index, index + 1, merges)
        tournament[2 * size - 1] = LATEST
        for node in range(size - 1, 0, -1):
            tournament[node] = min(tournament[2 * node], tournament[2 * node + 1])
        while tournament[1] != LATEST:
            token, index = tournament[1] >> 32, tournament[1] & 0xFFFFFFFF
            gone = following[index]
            symbols[index], following[index] = token, following[gone]
            _enter(tournament, size + gone, LATEST)
            entry = LATEST
            if following[gone] < size:
                before[following[gone]] = index
                entry = _entry(symbols, index, following[gone], merges)
            _enter(tournament, size + index, entry)
            if before[index] >= 0:
                _enter(tournament, size + before[index], _entry(symbols, before[index], index, merges))
        first, index = end, 0
        while index < size:
            if 0 <= symbols[index] < count:
                tokens[end] = symbols[index]
                end += 1
            else:
                for place in range(starts[index], starts[following[index]]):
                    tokens[end] = byte_tokens[letters[place]]
                    end += 1
            index = following[index]
        lengths[word] = end - first
    return tokens[:end], lengths
