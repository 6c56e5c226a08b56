"""Affix splitting: punctuation, quotes, currency and units split off a word, as spaCy splits English.

Each looks at a bounded number of characters beside its own; a run of full stops is one affix whatever its length.
"""

import numpy as np

from common.compute.compiled import compiled
from datamodules.curation.words.characters import (
    AFFIX,
    ALPHABETIC,
    BEFORE_STOP,
    CURRENCY,
    DIGIT,
    HYPHEN,
    ICON,
    LOWER,
    PREFIX,
    QUOTE,
    UPPER,
    bits_at,
    decode,
    previous,
)
from datamodules.curation.words.tables import SplitterTables, hash_bytes

MAX_UNIT_LENGTH = 5


@compiled
def prefix_size(text: np.ndarray, start: int, stop: int, rules: SplitterTables) -> int:
    """Bytes to split off in front, 0 for none."""
    bits, size = bits_at(text, start, rules.characters)
    if bits & (AFFIX | PREFIX):
        return size
    first = text[start]
    if first == ord("."):
        dots = 1
        while start + dots < stop and text[start + dots] == ord("."):
            dots += 1
        return dots if dots > 1 else 0
    following = np.int64(text[start + 1]) if start + 1 < stop else 0
    if first == ord("+"):
        return 0 if ord("0") <= following <= ord("9") else 1
    if (first == ord("C") or first == ord("A")) and following == ord("$"):
        return 2
    if first == ord("U") and following == ord("S") and start + 2 < stop and text[start + 2] == ord("$"):
        return 3
    return 0


@compiled
def suffix_size(text: np.ndarray, start: int, stop: int, rules: SplitterTables) -> int:
    """Bytes to split off at the end, 0 for none."""
    if start >= stop:
        return 0
    last = previous(text, stop)
    bits, size = bits_at(text, last, rules.characters)
    before, before_place = 0, last
    if last > start:
        before_place = previous(text, last)
        before, _ = bits_at(text, before_place, rules.characters)
    if text[last] == ord("."):
        dots = 1
        while last - dots >= start and text[last - dots] == ord("."):
            dots += 1
        if dots > 1:
            return dots
        if before & BEFORE_STOP:
            return 1
        if before & UPPER and before_place > start:
            earlier = previous(text, before_place)
            bits, _ = bits_at(text, earlier, rules.characters)
            code, _ = decode(text, earlier)
            letter = text[before_place]
            if bits & UPPER or (code == 0xB0 and (letter == ord("F") or letter == ord("C") or letter == ord("K"))):
                return 1
        return 0
    if bits & AFFIX:
        return size
    if (text[last] == ord("s") or text[last] == ord("S")) and last > start:
        code, _ = decode(text, before_place)
        if code == ord("'") or code == 0x2019:
            return stop - before_place
    if text[last] == ord("+"):
        return 1 if before & DIGIT else 0
    if bits & CURRENCY:
        if before & DIGIT:
            return size
        if text[last] == ord("$") and last - 2 >= start:
            one, two = text[last - 1], text[last - 2]
            if (one == ord("C") or one == ord("A")) and ord("0") <= two <= ord("9"):
                return 2
            if one == ord("S") and two == ord("U") and last - 3 >= start and ord("0") <= text[last - 3] <= ord("9"):
                return 3
        return 0
    place = last
    while place > start and stop - place <= MAX_UNIT_LENGTH:
        if ord("0") <= text[place - 1] <= ord("9"):
            key = hash_bytes(text, place, stop)
            for unit in rules.units:
                if unit == key:
                    return stop - place
            return 0
        place -= 1
    return 0


@compiled
def infix_size(text: np.ndarray, place: int, stop: int, before: int, rules: SplitterTables) -> int:
    """Bytes of the infix that begins at a place, 0 for none; `before`: bits of the character before it."""
    byte = text[place]
    bits, size = bits_at(text, place, rules.characters)
    following = 0
    if place + size < stop:
        following, _ = bits_at(text, place + size, rules.characters)
    if byte == ord("."):
        dots = 1
        while place + dots < stop and text[place + dots] == ord("."):
            dots += 1
        if dots > 1:
            return dots
        return 1 if before & (LOWER | QUOTE) and following & (UPPER | QUOTE) else 0
    if bits & ICON:
        return size
    if byte >= 0x80:
        code, _ = decode(text, place)
        if code == 0x2026:
            return size
    is_operator = byte == ord("+") or byte == ord("-") or byte == ord("*") or byte == ord("^")
    if is_operator and before & DIGIT and (following & DIGIT or (place + 1 < stop and text[place + 1] == ord("-"))):
        return 1
    if byte == ord(","):
        return 1 if before & ALPHABETIC and following & ALPHABETIC else 0
    if not before & (ALPHABETIC | DIGIT):
        return 0
    if bits & HYPHEN:
        if following & ALPHABETIC:
            return size
        # "--", "---" and a doubled em dash are hyphens too.
        code, _ = decode(text, place)
        most = 3 if code == ord("-") else 2 if code == 0x2014 else 1
        end = place + size
        for _ in range(most - 1):
            if end >= stop or decode(text, end)[0] != code:
                return 0
            end += size
            if end < stop and bits_at(text, end, rules.characters)[0] & ALPHABETIC:
                return end - place
        return 0
    if byte == ord(":") or byte == ord("<") or byte == ord(">") or byte == ord("=") or byte == ord("/"):
        return 1 if following & ALPHABETIC else 0
    return 0
