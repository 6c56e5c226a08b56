"""Word splitting in a compiled loop: at white space, at English punctuation, and between characters of some scripts.

The published thresholds of Gopher and FineWeb were applied to words of a linguistic tokenizer, which takes a
millisecond a kilobyte. This is that tokenizer's algorithm (spaCy's, for English) over bytes, three orders of magnitude
faster: from each chunk between white space, prefixes and suffixes (punctuation, quotes, currency, units) are peeled off
one character at a time until none is left; what remains is one of English's special strings (`english.py`), a URL, or
is split at infixes (ellipses, hyphens and slashes between letters, "end.Begin"). It differs from spaCy in:

- letters are Unicode's (`str.isalpha`), pictures Unicode's category So; spaCy lists the scripts and pictures it knows;
- special strings that were split are joined longest first from the left, not longest first overall;
- private network addresses are addresses like all others; an address with several '@' is tried with two of them;
- a unit behind a number is one of `UNITS`; spaCy has Cyrillic and Arabic ones too.

Every step looks at a bounded number of characters beside its own, so that any text takes linear time. A script without
spaces has no words here but its characters, with the marks on them: a dictionary would be exact for one language.
"""

from typing import Any, NamedTuple

import numpy as np

from common.compute.compiled import compiled
from common.compute.hashing import FNV_PRIME, FNV_START
from datamodules.curation.words.addresses import is_url
from datamodules.curation.words.affixes import infix_size, prefix_size, suffix_size
from datamodules.curation.words.characters import (
    ALPHABETIC,
    COMBINING,
    DIGIT,
    PUNCTUATION,
    SPACE,
    SYMBOL,
    TERMINAL,
    UNSPACED,
    bits_at,
    previous,
)
from datamodules.curation.words.tables import (
    SplitterTables,
    find_special,
    hash_bytes,
    is_special,
    splitting_rules,
)

HAS_LETTER, HAS_NO_SYMBOL, ENDS_SENTENCE, IS_PUNCTUATION = 1, 2, 4, 8
"""Kinds of words: with a letter; with a character that is no punctuation; one terminal mark; punctuation throughout."""


class WordSpans(NamedTuple):
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


def empty_words(size: int) -> WordSpans:
    """Room for the words of any text of up to `size` bytes; memory is touched only for words that there are."""
    return WordSpans(
        np.empty(size + 1, dtype=np.int32),
        np.empty(size + 1, dtype=np.int32),
        np.empty(size + 1, dtype=np.uint64),
        np.empty(size + 1, dtype=np.int32),
        np.empty(size + 1, dtype=np.uint8),
    )


@compiled
def describe(text: np.ndarray, words: WordSpans, index: int, rules: SplitterTables) -> None:
    """Fill in what follows from a word's bytes."""
    start: Any = np.int64(words.starts[index])
    stop: Any = np.int64(words.stops[index])
    key, either, every, characters = FNV_START, 0, -1, 0
    symbols_only = True
    place = start
    while place < stop:
        bits, size = bits_at(text, place, rules.characters)
        for offset in range(size):
            key = (key ^ np.uint64(text[place + offset])) * FNV_PRIME
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


@compiled
def add_word(words: WordSpans, count: int, start: int, stop: int) -> int:
    """Append a word if it has any bytes; the new count."""
    if stop <= start:
        return count
    words.starts[count], words.stops[count] = start, stop
    return count + 1


@compiled
def add_special(words: WordSpans, count: int, start: int, stop: int, slot: int, rules: SplitterTables) -> int:
    """Append the parts of a special string."""
    begin = start
    for cut in rules.cuts[slot]:
        if cut:
            end: Any = start + np.int64(cut)
            count = add_word(words, count, begin, end)
            begin = end
    return add_word(words, count, begin, stop)


@compiled
def split_chunk(text: np.ndarray, start: int, stop: int, words: WordSpans, count: int, rules: SplitterTables) -> int:
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


@compiled
def split_infixes(text: np.ndarray, start: int, stop: int, words: WordSpans, count: int, rules: SplitterTables) -> int:
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


@compiled
def join_specials(text: np.ndarray, words: WordSpans, first: int, count: int, rules: SplitterTables) -> int:
    """Make neighbors of one chunk that spell a special string together that string's parts; the new count."""
    target, index = first, first
    while index < count:
        start: Any = np.int64(words.starts[index])
        longest = np.int64(rules.longest[text[start]])
        slot, end_index = -1, index
        if longest and index + 1 < count and words.stops[index + 1] - start <= longest:
            key, place = FNV_START, start
            for other in range(index, count):
                if words.stops[other] - start > longest:
                    break
                while place < words.stops[other]:
                    key = (key ^ np.uint64(text[place])) * FNV_PRIME
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


@compiled
def split_words(text: np.ndarray, words: WordSpans, rules: SplitterTables) -> int:
    """Find the words of a text; how many there are.

    Args:
        text: UTF-8, uint8.
        words: room for as many words as bytes, filled in.
        rules: how to split.
    """
    count, place, size = 0, 0, len(text)
    bounds = SPACE | UNSPACED if rules.unspaced else SPACE
    while place < size:
        start, plain, key, characters, symbols_only = place, True, FNV_START, 0, True
        while place < size:
            bits, width = bits_at(text, place, rules.characters)
            if bits & bounds:
                break
            for offset in range(width):
                key = (key ^ np.uint64(text[place + offset])) * FNV_PRIME
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
            bits, width = bits_at(text, place, rules.characters)
            start = place
            place += width
            if not bits & SPACE:
                while place < size:
                    bits, width = bits_at(text, place, rules.characters)
                    if not bits & COMBINING:
                        break
                    place += width
                count = add_word(words, count, start, place)
                describe(text, words, count - 1, rules)
    return count


@compiled
def _spans(text: np.ndarray, words: WordSpans, rules: SplitterTables) -> np.ndarray:
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
