"""Tables of the word splitter: character classes, special strings by their hash, units of measurement.

Flat arrays and an open hash table, because compiled loops know no dictionary that costs nothing to pass.
"""

import functools
from typing import Any, Literal, NamedTuple

import numpy as np

from common.compute.compiled import compiled
from common.compute.hashing import FNV_PRIME, FNV_START
from datamodules.curation.words.characters import character_table
from datamodules.curation.words.english import special_cases

UNITS = (
    "km km² km³ m m² m³ dm dm² dm³ cm cm² cm³ mm mm² mm³ ha µm nm yd in ft kg g mg µg t lb oz m/s km/h kmh mph hPa Pa "
    "mbar mb MB kb KB gb GB tb TB T G M K %"
)
SLOTS = 1 << 13
WordKind = Literal["english", "whitespace", "characters"]
"""How words are split: with punctuation and English contractions apart; at white space; as English, and each character
of a script without spaces (Chinese, Japanese, Thai, Lao, Khmer, Burmese) by itself."""


class SplitterTables(NamedTuple):
    """Tables of the word splitter.

    Attributes:
        characters: bits of each code point, uint32 (`character_table`).
        keys: hashes of special strings, uint64 [slots], 0 where a slot is free.
        cuts: where each is cut, in bytes from its begin, uint8 [slots, 3]; 0 for no cut.
        longest: bytes of the longest special string that begins with a byte, uint8 [256].
        units: hashes of units of measurement, uint64.
        english: whether punctuation is split off at all; else white space alone parts words.
        unspaced: whether each character of a script without spaces is a word.
    """

    characters: np.ndarray
    keys: np.ndarray
    cuts: np.ndarray
    longest: np.ndarray
    units: np.ndarray
    english: bool
    unspaced: bool


@functools.cache
def splitting_rules(words: str) -> SplitterTables:
    """Rules for a `WordKind`."""
    keys, cuts = np.zeros(SLOTS, dtype=np.uint64), np.zeros((SLOTS, 3), dtype=np.uint8)
    longest = np.zeros(256, dtype=np.uint8)
    for case, parts in special_cases().items():
        raw = case.encode()
        longest[raw[0]] = max(longest[raw[0]], len(raw))
        key = _hash_of(raw)
        slot = int(key) % SLOTS
        while keys[slot]:
            slot = (slot + 1) % SLOTS
        keys[slot] = key
        places = np.cumsum([len(part.encode()) for part in parts])[:-1]
        cuts[slot, : len(places)] = places
    units = np.array([_hash_of(unit.encode()) for unit in UNITS.split()], dtype=np.uint64)
    return SplitterTables(character_table(), keys, cuts, longest, units, words != "whitespace", words == "characters")


def _hash_of(raw: bytes) -> np.uint64:
    # Compiled, it gives a Python number.
    return np.uint64(hash_bytes(np.frombuffer(raw, dtype=np.uint8), 0, len(raw)))


@compiled
def hash_bytes(text: np.ndarray, start: int, stop: int) -> np.uint64:
    """FNV-1a of 64 bits."""
    value = FNV_START
    for place in range(start, stop):
        value = (value ^ np.uint64(text[place])) * FNV_PRIME
    return value


@compiled
def find_special(rules: SplitterTables, key: np.uint64) -> int:
    """Slot of a special string by its hash, -1 for none."""
    slot: Any = np.int64(key & np.uint64(SLOTS - 1))
    while rules.keys[slot] != 0:
        if rules.keys[slot] == key:
            return slot
        slot = (slot + 1) & (SLOTS - 1)
    return -1


@compiled
def is_special(text: np.ndarray, start: int, stop: int, rules: SplitterTables) -> bool:
    """True if bytes are a special string."""
    if start >= stop or stop - start > rules.longest[text[start]]:
        return False
    return find_special(rules, hash_bytes(text, start, stop)) >= 0


@compiled
def contains(text: np.ndarray, pattern: np.ndarray) -> bool:
    """True if bytes occur in others."""
    for place in range(len(text) - len(pattern) + 1):
        if text[place] == pattern[0]:
            length = 1
            while length < len(pattern) and text[place + length] == pattern[length]:
                length += 1
            if length == len(pattern):
                return True
    return False
