"""Kind of personal data: a cheap pre-filter, a precise search, and the placeholder.

Two searches cost less than one: Rust's linear one runs over all text at hundreds of megabytes per second and leaves to
Python the few documents that may hold a match.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

SPACED_LETTERS = r"\u00c0-\u024f\u0370-\u052f\u0900-\u097f"
"""Latin's other letters, Greek, Cyrillic and Devanagari with its marks, for a class of characters."""
_ARABIC = r"\u0620-\u064a\u066e-\u06d3"
_LETTER = re.compile(rf"[A-Za-z{SPACED_LETTERS}{_ARABIC}]")
Span = tuple[int, int]
"""Where a match begins and ends, in characters."""


@dataclass(frozen=True)
class PersonalDataKind:
    """A kind of personal data.

    Attributes:
        candidate: linear-time expression, in Rust's syntax, that every text with a match contains.
        placeholder: what a match is replaced by.
        find: the matches in a text, in order, none within another.
    """

    candidate: str
    placeholder: str
    find: Callable[[str], Iterable[Span]]


def matches(pattern: re.Pattern[str], accepts: Callable[[str], bool]) -> Callable[[str], Iterator[Span]]:
    """A search for what a pattern matches and `accepts` confirms.

    Args:
        pattern: with bounded repeats behind a boundary, so that no text takes more than linear time.
        accepts: whether a match is what it looks like.
    """

    def find(text: str) -> Iterator[Span]:
        return (found.span() for found in pattern.finditer(text) if accepts(found[0]))

    return find


@dataclass(frozen=True)
class Announced:
    """A number that follows a word on the same line, with no other digit and at most 24 characters between.

    Words are looked for as they are and not as alternatives of a pattern, which takes fifty times as long.

    Attributes:
        words: lower case; beside a letter each is part of another word.
        number: pattern of the number.
        accepts: whether the number is what the word says.
        digits: pattern of the number from its first digit on, for the sieve: simpler, and it may match more; by
            default six digits with at most two other signs between any of them.
    """

    words: tuple[str, ...]
    number: str
    accepts: Callable[[str], bool]
    digits: str = r"[0-9](?:[ .()/+\-]{0,2}[0-9]){5}"

    def find(self, text: str, lowered: str) -> Iterator[Span]:
        """The numbers in a text.

        Args:
            text: any text.
            lowered: it as `lower_case` makes it.
        """
        # A placeholder left by another match says nothing about the number that follows it, nor does a function that is
        # called with it: sin(123456782).
        # As few characters as can be, so that a bracket belongs to the number: tel (11) 91234-5678.
        number = re.compile(
            rf"(?![A-Za-z{SPACED_LETTERS}{_ARABIC}(]|_NUMBER>|_CARD>)[^\d\n<]{{0,24}}?(?<![\d_.A-Za-z{SPACED_LETTERS}{_ARABIC}])({self.number})"
        )
        found = set()
        for word in self.words:
            place = lowered.find(word)
            while place >= 0:
                before, end = lowered[place - 1 : place], place + len(word)
                within = _LETTER.match(before) is not None or lowered.endswith("<credit_", 0, place)
                if not within and (match := number.match(text, end)) and self.accepts(match[1]):
                    found.add(match.span(1))
                place = lowered.find(word, end)
        yield from without_overlaps(found)

    @property
    def candidate(self) -> str:
        """The sieve."""
        # Without Unicode where there is a choice: its tables make the automaton many times larger.
        words = "|".join(f"(?i-u:{word})" if word.isascii() else f"(?i:{word})" for word in self.words)
        return rf"(?:{words})[^0-9\n<]{{0,28}}{self.digits}"


def lower_case(text: str) -> str:
    """The text in lower case, every character where it was: one grows when it is lowered."""
    return text.replace("\u0130", "I").lower()


def without_overlaps(spans: Iterable[Span]) -> Iterator[Span]:
    """Spans in order, the earlier and then the longer of those that overlap."""
    last = 0
    for start, end in sorted(spans, key=lambda span: (span[0], -span[1])):
        if start >= last:
            yield start, end
            last = end
