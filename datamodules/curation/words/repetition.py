"""Repetition within a text: duplicate lines, paragraphs and word n-grams.

Parts are compared by hashes of 64 bits, not by their characters: in a text of a million parts two different ones are
taken for equal with a probability of 3e-8.
"""

from typing import Any

import numpy as np

from common.compute.compiled import compiled
from common.compute.hashing import FNV_PRIME, FNV_START, GOLDEN_RATIO, nonzero_mix


@compiled
def slots_for(items: int) -> int:
    """Slots of a hash table for that many items, a power of two at least twice as many."""
    slots = 16
    while slots < 2 * items:
        slots *= 2
    return slots


@compiled
def slot_of(table: np.ndarray, key: np.uint64) -> int:
    """The slot that holds a key, or the free one where it belongs."""
    mask = np.uint64(len(table) - 1)
    slot = key & mask
    while table[slot] != 0 and table[slot] != key:
        slot = (slot + np.uint64(1)) & mask
    place: Any = np.int64(slot)
    return place


@compiled
def add_to_set(table: np.ndarray, key: np.uint64) -> bool:
    """Put a key into a set; whether it was new."""
    slot = slot_of(table, key)
    is_new: bool = table[slot] == 0
    table[slot] = key
    return is_new


@compiled
def duplicate_parts(text: np.ndarray, start: int, stop: int, gap: int) -> tuple[int, int, int]:
    """Parts between runs of `gap` or more line feeds, and the duplicates among them.

    Returns:
        parts, those equal to an earlier one, and the characters of these.
    """
    feeds = 0
    for place in range(start, stop):
        feeds += text[place] == 10
    table = np.zeros(slots_for(feeds // gap + 2), dtype=np.uint64)
    parts, repeated, characters = 0, 0, 0
    place = start
    while True:
        key, length = FNV_START, 0
        run = 0
        while place < stop:
            if text[place] == 10:
                run = 1
                while place + run < stop and text[place + run] == 10:
                    run += 1
                if run >= gap:
                    break
            for _ in range(max(run, 1)):
                key = (key ^ np.uint64(text[place])) * FNV_PRIME
                length += text[place] & 0xC0 != 0x80
                place += 1
            run = 0
        parts += 1
        if not add_to_set(table, nonzero_mix(key)):
            repeated += 1
            characters += length
        if place >= stop:
            return parts, repeated, characters
        place += run


@compiled
def rolling(hashes: np.ndarray, count: int) -> np.ndarray:
    """Hashes of every beginning of the words, uint64 [count + 1], from which any n-gram's follows."""
    sums = np.empty(count + 1, dtype=np.uint64)
    sums[0] = 0
    for index in range(count):
        sums[index + 1] = sums[index] * GOLDEN_RATIO + nonzero_mix(hashes[index])
    return sums


@compiled
def top_n_gram(sums: np.ndarray, ends: np.ndarray, size: int, table: np.ndarray) -> int:
    """Characters of the most frequent n-gram times its occurrences, the first such among equals.

    Args:
        sums: from `rolling`.
        ends: characters of the first words, int64 [words + 1].
        size: n; spaces between the words count.
        table: at least twice as many slots as words.
    """
    count = len(sums) - 1
    table[:] = 0
    seen, first = np.zeros(len(table), dtype=np.int32), np.zeros(len(table), dtype=np.int32)
    factor = np.uint64(1)
    for _ in range(size):
        factor *= GOLDEN_RATIO
    most, best = 0, 0
    for index in range(count - size + 1):
        key = nonzero_mix(sums[index + size] - sums[index] * factor)
        slot = slot_of(table, key)
        if table[slot] == 0:
            table[slot] = key
            first[slot] = index
        seen[slot] += 1
        if seen[slot] > most or (seen[slot] == most and first[slot] < best):
            most, best = seen[slot], first[slot]
    return (ends[best + size] - ends[best] + size - 1) * most if most else 0


@compiled
def duplicate_n_grams(sums: np.ndarray, ends: np.ndarray, size: int, table: np.ndarray) -> int:
    """Characters of n-grams that occurred before, without spaces; what follows begins behind such a one."""
    count = len(sums) - 1
    table[:] = 0
    factor = np.uint64(1)
    for _ in range(size):
        factor *= GOLDEN_RATIO
    characters, index = 0, 0
    while index < count - size + 1:
        if add_to_set(table, nonzero_mix(sums[index + size] - sums[index] * factor)):
            index += 1
        else:
            characters += ends[index + size] - ends[index]
            index += size
    return characters
