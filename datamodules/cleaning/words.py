"""Words of a text as compiled loops see them: white space parts them, and English punctuation is split off.

The published thresholds of Gopher and FineWeb were applied to words of a linguistic tokeniser, which takes a
millisecond a kilobyte. This is that tokeniser's algorithm (spaCy's, for English) over bytes, three orders of magnitude
faster: from each chunk between white space, prefixes and suffixes (punctuation, quotes, currency, units) are peeled off
one character at a time until none is left; what remains is one of English's special strings (`english.py`), a URL, or
is split at infixes (ellipses, hyphens and slashes between letters, "end.Begin"). It differs from spaCy in:

- letters are Unicode's (`str.isalpha`), pictures Unicode's category So; spaCy lists the scripts and pictures it knows;
- special strings that were split are joined longest first from the left, not longest first overall;
- private network addresses are addresses like all others; an address with several '@' is tried with two of them;
- a unit behind a number is one of `UNITS`; spaCy has Cyrillic and Arabic ones too.

Every step looks at a bounded number of characters beside its own, so that any text takes linear time.
"""

import functools
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from datamodules.cleaning.characters import (
    AFFIX,
    ALPHABETIC,
    ALPHANUMERIC,
    BEFORE_STOP,
    CURRENCY,
    DIGIT,
    HYPHEN,
    ICON,
    LOWER,
    PREFIX,
    PUNCTUATION,
    QUOTE,
    SPACE,
    SYMBOL,
    TERMINAL,
    UPPER,
    bits_at,
    character_table,
    decode,
    previous,
)
from datamodules.cleaning.english import special_cases

HAS_LETTER, HAS_NO_SYMBOL, ENDS_SENTENCE, IS_PUNCTUATION = 1, 2, 4, 8
"""Kinds of words: with a letter; with a character that is no punctuation; one terminal mark; punctuation throughout."""
UNITS = (
    "km km² km³ m m² m³ dm dm² dm³ cm cm² cm³ mm mm² mm³ ha µm nm yd in ft kg g mg µg t lb oz m/s km/h kmh mph hPa Pa "
    "mbar mb MB kb KB gb GB tb TB T G M K %"
)
LONGEST_UNIT = 5
HASH_START, HASH_FACTOR = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
SLOTS = 1 << 13


class Rules(NamedTuple):
    """What splitting looks up.

    Attributes:
        characters: bits of each code point, uint32 (`character_table`).
        keys: hashes of special strings, uint64 [slots], 0 where a slot is free.
        cuts: where each is cut, in bytes from its begin, uint8 [slots, 3]; 0 for no cut.
        longest: bytes of the longest special string that begins with a byte, uint8 [256].
        units: hashes of units of measurement, uint64.
        english: whether punctuation is split off at all; else white space alone parts words.
    """

    characters: np.ndarray
    keys: np.ndarray
    cuts: np.ndarray
    longest: np.ndarray
    units: np.ndarray
    english: bool


class Words(NamedTuple):
    """The words of one text, in arrays that are used again for the next; the first `count` entries hold.

    Attributes:
        starts, stops: their bytes, int32.
        hashes: equal for equal words, uint64.
        characters: their length, int32.
        kinds: bits, uint8.
    """

    starts: np.ndarray
    stops: np.ndarray
    hashes: np.ndarray
    characters: np.ndarray
    kinds: np.ndarray


@functools.cache
def splitting_rules(words: str) -> Rules:
    """Rules for `words`, "english" or "whitespace"."""
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
    return Rules(character_table(), keys, cuts, longest, units, words == "english")


def _hash_of(raw: bytes) -> np.uint64:
    # Compiled, it gives a Python number.
    return np.uint64(hash_bytes(np.frombuffer(raw, dtype=np.uint8), 0, len(raw)))


def empty_words(size: int) -> Words:
    """Room for the words of any text of up to `size` bytes; memory is touched only for words that there are."""
    return Words(
        np.empty(size + 1, dtype=np.int32),
        np.empty(size + 1, dtype=np.int32),
        np.empty(size + 1, dtype=np.uint64),
        np.empty(size + 1, dtype=np.int32),
        np.empty(size + 1, dtype=np.uint8),
    )


@njit(cache=True, nogil=True)
def hash_bytes(text: np.ndarray, start: int, stop: int) -> np.uint64:
    """FNV-1a of 64 bits."""
    value = HASH_START
    for place in range(start, stop):
        value = (value ^ np.uint64(text[place])) * HASH_FACTOR
    return value


@njit(cache=True, nogil=True)
def find_special(rules: Rules, key: np.uint64) -> int:
    """Slot of a special string by its hash, -1 for none."""
    slot: Any = np.int64(key & np.uint64(SLOTS - 1))
    while rules.keys[slot] != 0:
        if rules.keys[slot] == key:
            return slot
        slot = (slot + 1) & (SLOTS - 1)
    return -1


@njit(cache=True, nogil=True)
def is_special(text: np.ndarray, start: int, stop: int, rules: Rules) -> bool:
    """Whether bytes are a special string."""
    if start >= stop or stop - start > rules.longest[text[start]]:
        return False
    return find_special(rules, hash_bytes(text, start, stop)) >= 0


@njit(cache=True, nogil=True)
def prefix_size(text: np.ndarray, start: int, stop: int, rules: Rules) -> int:
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


@njit(cache=True, nogil=True)
def suffix_size(text: np.ndarray, start: int, stop: int, rules: Rules) -> int:
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
    while place > start and stop - place <= LONGEST_UNIT:
        if ord("0") <= text[place - 1] <= ord("9"):
            key = hash_bytes(text, place, stop)
            for unit in rules.units:
                if unit == key:
                    return stop - place
            return 0
        place -= 1
    return 0


@njit(cache=True, nogil=True)
def infix_size(text: np.ndarray, place: int, stop: int, before: int, rules: Rules) -> int:
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


@njit(cache=True, nogil=True)
def _is_host_byte(byte: int) -> bool:
    # U+00A1 to U+FFFF count as letters of a host; their UTF-8 begins at 0xC2.
    return (
        ord("a") <= byte <= ord("z") or ord("A") <= byte <= ord("Z") or ord("0") <= byte <= ord("9") or byte >= 0x80
    )  # fmt: skip


@njit(cache=True, nogil=True)
def is_host(text: np.ndarray, start: int, stop: int, rules: Rules) -> bool:
    """Whether bytes are a host or an address of IPv4, with or without a port and a path."""
    place = start
    labels, numbers = 0, 0
    while True:
        label = place
        letters, digits, all_lower = 0, 0, True
        while place < stop:
            byte = text[place]
            if not (_is_host_byte(byte) or (place > label and (byte == ord("-") or byte == ord("_")))):
                break
            bits, size = bits_at(text, place, rules.characters)
            all_lower &= bits & LOWER > 0
            digits += ord("0") <= byte <= ord("9")
            letters += 1
            place += size
        if letters == 0:
            return False
        if place < stop and text[place] == ord("."):
            if letters > 64 or not _is_host_byte(text[place - 1]):
                return False
            labels += 1
            numbers += digits == letters and letters <= 3
            place += 1
            continue
        is_name = labels >= 1 and all_lower and 2 <= letters <= 63
        is_address = labels == 3 and numbers == 3 and digits == letters and letters <= 3
        if not (is_name or is_address):
            return False
        break
    if place < stop and text[place] == ord(":"):
        digits = 0
        while place + 1 + digits < stop and ord("0") <= text[place + 1 + digits] <= ord("9"):
            digits += 1
        if not 2 <= digits <= 5:
            return False
        place += 1 + digits
    return place == stop or text[place] == ord("/") or text[place] == ord("?") or text[place] == ord("#")


@njit(cache=True, nogil=True)
def is_url(text: np.ndarray, start: int, stop: int, rules: Rules) -> bool:
    """Whether bytes are a URL, with or without a scheme, or an e-mail address."""
    begin, place = start, start
    while place < stop - 2:
        byte = text[place]
        if byte == ord(":"):
            if place - start >= 2 and text[place + 1] == ord("/") and text[place + 2] == ord("/"):
                begin = place + 3
            break
        bits, size = bits_at(text, place, rules.characters)
        is_mark = byte == ord("_") or byte == ord("+") or byte == ord("-") or byte == ord(".")
        if not (bits & ALPHANUMERIC or is_mark):
            break
        place += size
    if is_host(text, begin, stop, rules):
        return True
    first, last = -1, -1
    for place in range(begin + 1, stop):
        if text[place] == ord("@"):
            first = place if first < 0 else first
            last = place
    if last > 0 and is_host(text, last + 1, stop, rules):
        return True
    return first > 0 and first != last and is_host(text, first + 1, stop, rules)


@njit(cache=True, nogil=True)
def describe(text: np.ndarray, words: Words, index: int, rules: Rules) -> None:
    """Fill in what follows from a word's bytes."""
    start: Any = np.int64(words.starts[index])
    stop: Any = np.int64(words.stops[index])
    key, either, every, characters = HASH_START, 0, -1, 0
    symbols_only = True
    place = start
    while place < stop:
        bits, size = bits_at(text, place, rules.characters)
        for offset in range(size):
            key = (key ^ np.uint64(text[place + offset])) * HASH_FACTOR
        either |= bits
        every &= bits
        symbols_only &= bits & SYMBOL > 0
        characters += 1
        place += size
    words.hashes[index], words.characters[index] = key, characters
    kind = HAS_LETTER if either & ALPHABETIC else 0
    if not symbols_only:
        kind |= HAS_NO_SYMBOL
    if every & TERMINAL and characters == 1:
        kind |= ENDS_SENTENCE
    if every & PUNCTUATION:
        kind |= IS_PUNCTUATION
    words.kinds[index] = kind


@njit(cache=True, nogil=True)
def add_word(words: Words, count: int, start: int, stop: int) -> int:
    """Append a word if it has any bytes; the new count."""
    if stop <= start:
        return count
    words.starts[count], words.stops[count] = start, stop
    return count + 1


@njit(cache=True, nogil=True)
def add_special(words: Words, count: int, start: int, stop: int, slot: int, rules: Rules) -> int:
    """Append the parts of a special string."""
    begin = start
    for cut in rules.cuts[slot]:
        if cut:
            end: Any = start + np.int64(cut)
            count = add_word(words, count, begin, end)
            begin = end
    return add_word(words, count, begin, stop)


@njit(cache=True, nogil=True)
def split_chunk(text: np.ndarray, start: int, stop: int, words: Words, count: int, rules: Rules) -> int:
    """Append the words between two white spaces; the new count."""
    # Suffixes come to light in reverse: their starts wait at the far end of the array. A chunk has no more words than
    # bytes, so that the two ends never meet.
    top = len(words.starts) - 1
    waiting, last_size = top, 0
    end = stop
    while start < end and end - start != last_size:
        if is_special(text, start, end, rules):
            break
        last_size = end - start
        front = prefix_size(text, start, end, rules)
        if front and is_special(text, start + front, end, rules):
            count = add_word(words, count, start, start + front)
            start += front
            break
        back = suffix_size(text, start + front, end, rules)
        if back:
            words.starts[waiting] = end - back
            waiting -= 1
            if is_special(text, start, end - back, rules):
                end -= back
                break
        if front:
            count = add_word(words, count, start, start + front)
        start += front
        end -= back
    if start < end:
        slot = -1
        if end - start <= rules.longest[text[start]]:
            slot = find_special(rules, hash_bytes(text, start, end))
        if slot >= 0:
            count = add_special(words, count, start, end, slot, rules)
        else:
            count = split_infixes(text, start, end, words, count, rules)
    for index in range(waiting + 1, top + 1):
        begin: Any = np.int64(words.starts[index])
        behind: Any = np.int64(words.starts[index + 1]) if index < top else stop
        count = add_word(words, count, begin, behind)
    return count


@njit(cache=True, nogil=True)
def split_infixes(text: np.ndarray, start: int, stop: int, words: Words, count: int, rules: Rules) -> int:
    """Append a chunk without affixes, cut at its infixes unless it is a URL; the new count."""
    first_count, begin, place, before = count, start, start, 0
    while place < stop:
        bits, size = bits_at(text, place, rules.characters)
        # Letters and digits, which is nearly everything, begin no infix.
        length = 0 if bits & (ALPHABETIC | DIGIT) else infix_size(text, place, stop, before, rules)
        if length == 0:
            before = bits
            place += size
            continue
        if place > start:
            if count == first_count and is_url(text, start, stop, rules):
                break
            count = add_word(words, count, begin, place)
            count = add_word(words, count, place, place + length)
            begin = place + length
        before, _ = bits_at(text, previous(text, place + length), rules.characters)
        place += length
    return add_word(words, count, begin, stop)


@njit(cache=True, nogil=True)
def join_specials(text: np.ndarray, words: Words, first: int, count: int, rules: Rules) -> int:
    """Make neighbours of one chunk that spell a special string together that string's parts; the new count."""
    target, index = first, first
    while index < count:
        start: Any = np.int64(words.starts[index])
        longest = np.int64(rules.longest[text[start]])
        slot, end_index = -1, index
        if longest and index + 1 < count and words.stops[index + 1] - start <= longest:
            key, place = HASH_START, start
            for other in range(index, count):
                if words.stops[other] - start > longest:
                    break
                while place < words.stops[other]:
                    key = (key ^ np.uint64(text[place])) * HASH_FACTOR
                    place += 1
                if other > index:
                    found = find_special(rules, key)
                    if found >= 0:
                        slot, end_index = found, other
        stop: Any = np.int64(words.stops[end_index])
        if slot < 0:
            words.starts[target], words.stops[target] = start, stop
            target += 1
        else:
            # No special string has more parts than the words it is spelled by, or this would overwrite what follows.
            target = add_special(words, target, start, stop, slot, rules)
        index = end_index + 1
    return target


@njit(cache=True, nogil=True)
def split_words(text: np.ndarray, words: Words, rules: Rules) -> int:
    """Find the words of a text; how many there are.

    Args:
        text: UTF-8, uint8.
        words: room for as many words as bytes, filled in.
        rules: how to split.
    """
    count, place, size = 0, 0, len(text)
    while place < size:
        start, plain, key, characters, symbols_only = place, True, HASH_START, 0, True
        while place < size:
            bits, width = bits_at(text, place, rules.characters)
            if bits & SPACE:
                break
            for offset in range(width):
                key = (key ^ np.uint64(text[place + offset])) * HASH_FACTOR
            plain &= bits & ALPHABETIC > 0
            symbols_only &= bits & SYMBOL > 0
            characters += 1
            place += width
        if place > start:
            if plain and rules.english and place - start <= rules.longest[text[start]]:
                plain = find_special(rules, key) < 0
            if plain:
                # A word of letters, as most are: all about it is known by now.
                words.starts[count], words.stops[count] = start, place
                words.hashes[count], words.characters[count] = key, characters
                words.kinds[count] = HAS_LETTER if symbols_only else HAS_LETTER | HAS_NO_SYMBOL
                count += 1
            else:
                first = count
                if rules.english:
                    count = split_chunk(text, start, place, words, count, rules)
                    if count > first + 1:
                        count = join_specials(text, words, first, count, rules)
                else:
                    count = add_word(words, count, start, place)
                for index in range(first, count):
                    describe(text, words, index, rules)
        if place < size:
            place += bits_at(text, place, rules.characters)[1]
    return count


@njit(cache=True, nogil=True)
def _spans(text: np.ndarray, words: Words, rules: Rules) -> np.ndarray:
    count = split_words(text, words, rules)
    spans = np.empty((count, 2), dtype=np.int64)
    for index in range(count):
        spans[index, 0], spans[index, 1] = words.starts[index], words.stops[index]
    return spans


def words_of(text: str, words: str = "english") -> list[str]:
    """The words of a text, for people and tests."""
    raw = text.encode()
    spans = _spans(np.frombuffer(raw, dtype=np.uint8), empty_words(len(raw)), splitting_rules(words))
    return [raw[start:stop].decode() for start, stop in spans.tolist()]
