"""Gopher quality and repetition rules (Rae et al. 2021, appendix A1.1 and table A1).

The paper leaves open what a word, a line and a repeated character are; where it does, the code that FineWeb was made
with (datatrove 0.10) is followed, since the thresholds were tried with it. Every limit may be null, which turns it off.
"""

import re
from collections.abc import Sequence

import numpy as np
from daft import Expression

from common.compute.compiled import compiled
from common.errors import InputError
from datamodules.curation.filters.base import Filter, Threshold
from datamodules.curation.filters.measurements import active, longest, measurements
from datamodules.curation.words.characters import LINE_END, SPACE, bits_at, decode
from datamodules.curation.words.languages import STOP_WORDS, UNSPACED_LANGUAGES
from datamodules.curation.words.repetition import (
    duplicate_n_grams,
    duplicate_parts,
    rolling,
    slots_for,
    top_n_gram,
)
from datamodules.curation.words.split import HAS_LETTER, HAS_NO_SYMBOL, WordSpans, empty_words, split_words
from datamodules.curation.words.tables import SplitterTables, WordKind, contains, hash_bytes, splitting_rules

QUALITY = (
    "words", "mean_word_length", "hashes_per_word", "ellipses_per_word", "bullet_lines", "ellipsis_lines",
    "alphabetic_words", "stop_words",
)  # fmt: skip
TOP_SIZES, DUPLICATE_SIZES = (2, 3, 4), (5, 6, 7, 8, 9, 10)
PARTS = ("duplicate_lines", "duplicate_line_characters", "duplicate_paragraphs", "duplicate_paragraph_characters")
REPETITION = (
    *PARTS,
    *(f"top_{size}_gram" for size in TOP_SIZES),
    *(f"duplicate_{size}_grams" for size in DUPLICATE_SIZES),
)


@compiled
def _measure_lines(text: np.ndarray, table: np.ndarray, bullets: np.ndarray) -> tuple[int, int, int, int, int]:
    """Hashes, ellipses, lines, lines that begin with a bullet, lines that end in an ellipsis."""
    hashes, ellipses, lines, bullet_lines, ellipsis_lines = 0, 0, 0, 0, 0
    place, size = 0, len(text)
    while place < size:
        lines += 1
        is_first, ends, dots = True, False, 0
        while place < size:
            bits, width = bits_at(text, place, table)
            if bits & LINE_END:
                is_return = text[place] == 13
                place += width
                if is_return and place < size and text[place] == 10:
                    place += 1
                break
            code, _ = decode(text, place)
            place += width
            if code == 46:
                dots += 1
            else:
                ellipses += dots // 3
                dots = 0
            if bits & SPACE:
                continue
            if is_first:
                for bullet in bullets:
                    bullet_lines += code == bullet
                is_first = False
            ends = dots >= 3 or code == 0x2026
            ellipses += code == 0x2026
            hashes += code == 35
        ellipses += dots // 3
        ellipsis_lines += ends
    return hashes, ellipses, lines, bullet_lines, ellipsis_lines


@compiled
def _measure_quality(
    content: np.ndarray,
    offsets: np.ndarray,
    words: WordSpans,
    rules: SplitterTables,
    stop_words: np.ndarray,
    max_stop_characters: int,
    written: tuple[np.ndarray, np.ndarray],
    bullets: np.ndarray,
) -> np.ndarray:
    values = np.zeros((len(offsets) - 1, 8), dtype=np.float64)
    for row in range(len(offsets) - 1):
        text = content[offsets[row] : offsets[row + 1]]
        count = split_words(text, words, rules)
        proper, characters, alphabetic = 0, 0, 0
        found = np.zeros(len(stop_words), dtype=np.int64)
        for index in range(count):
            kind = words.kinds[index]
            alphabetic += kind & HAS_LETTER > 0
            if kind & HAS_NO_SYMBOL:
                proper += 1
                characters += words.characters[index]
                if words.characters[index] <= max_stop_characters:
                    for which in range(len(stop_words)):
                        found[which] |= words.hashes[index] == stop_words[which]
        hashes, ellipses, lines, bullet_lines, ellipsis_lines = _measure_lines(text, rules.characters, bullets)
        values[row, 0] = proper
        values[row, 1] = characters / max(proper, 1)
        values[row, 2], values[row, 3] = hashes / max(count, 1), ellipses / max(count, 1)
        values[row, 4], values[row, 5] = bullet_lines / max(lines, 1), ellipsis_lines / max(lines, 1)
        values[row, 6] = alphabetic / max(count, 1)
        begin = 0
        for which in range(len(written[1])):
            end = written[1][which]
            found[which] |= contains(text, written[0][begin:end])
            begin = end
        values[row, 7] = found.sum()
    return values


@compiled
def _measure_repetition(
    content: np.ndarray, offsets: np.ndarray, words: WordSpans, rules: SplitterTables
) -> np.ndarray:
    values = np.zeros((len(offsets) - 1, 13), dtype=np.float64)
    for row in range(len(offsets) - 1):
        text = content[offsets[row] : offsets[row + 1]]
        start, stop, characters = 0, len(text), 0
        for byte in text:
            characters += byte & 0xC0 != 0x80
        if characters == 0:
            continue
        parts, repeated, length = duplicate_parts(text, 0, len(text), 1)
        values[row, 0], values[row, 1] = repeated / parts, length / characters
        # Paragraphs are those of the text without white space around it.
        while start < stop:
            bits, size = bits_at(text, start, rules.characters)
            if not bits & SPACE:
                break
            start += size
        while stop > start:
            before = stop - 1
            while text[before] & 0xC0 == 0x80:
                before -= 1
            if not bits_at(text, before, rules.characters)[0] & SPACE:
                break
            stop = before
        parts, repeated, length = duplicate_parts(text, start, stop, 2)
        values[row, 2], values[row, 3] = repeated / parts, length / characters
        count = split_words(text, words, rules)
        sums, table = rolling(words.hashes, count), np.zeros(slots_for(count), dtype=np.uint64)
        ends = np.zeros(count + 1, dtype=np.int64)
        for index in range(count):
            ends[index + 1] = ends[index] + words.characters[index]
        for size in range(2, 5):
            values[row, 2 + size] = top_n_gram(sums, ends, size, table) / characters
        for size in range(5, 11):
            values[row, 2 + size] = duplicate_n_grams(sums, ends, size, table) / characters
    return values


CODE = re.compile(r"[A-Za-z]{2}(?:[-_][A-Za-z]{2,4})?")
"""The form of the code of a language or of its variety in a country."""


class GopherQuality(Filter):
    """Quality rules of Rae et al. 2021, appendix A1.1, with their thresholds.

    Taken from datatrove where the paper is silent: words are those of an English tokenizer, and the ones that consist
    of punctuation count for shares of words but neither as words nor for their mean length; stop words are compared as
    written, in lower case, and are distinct ones; empty lines are lines.

    Args:
        min_words, max_words: words in a document.
        min_mean_word_length, max_mean_word_length: characters.
        max_symbols_per_word: of '#' and of the ellipsis, each.
        max_bullet_lines: share of lines that start with a bullet.
        max_ellipsis_lines: share of lines that end in an ellipsis.
        min_alphabetic_words: share of words with a letter.
        min_stop_words: how many of the stop words occur.
        bullets: characters that are bullets, datatrove's; "•‣◦▪*-" takes more.
        words: "english" splits punctuation and contractions off, and serves other languages that part words by spaces;
            "whitespace" does not, for technical text in which every bracket would count as a word without a letter;
            "characters" takes each character of a script without spaces for a word, so that `min_mean_word_length` has
            to be null, and looks for stop words anywhere in the text.
        stop_words: code of a language in `languages.STOP_WORDS`, several of them, or the words themselves; the paper's
            are those of "en".

    Raises:
        InputError: for no stop words, or a mean length of words that are single characters.
    """

    summary = "Gopher's quality rules (Rae et al. 2021, appendix A1.1)"

    STOP_WORDS = STOP_WORDS["en"]

    def __init__(
        self,
        min_words: int | None = 50,
        max_words: int | None = 100_000,
        min_mean_word_length: float | None = 3.0,
        max_mean_word_length: float | None = 10.0,
        max_symbols_per_word: float | None = 0.1,
        max_bullet_lines: float | None = 0.9,
        max_ellipsis_lines: float | None = 0.3,
        min_alphabetic_words: float | None = 0.8,
        min_stop_words: int | None = 2,
        bullets: str = "•-",
        words: WordKind = "english",
        stop_words: str | Sequence[str] = "en",
    ) -> None:
        given = [stop_words] if isinstance(stop_words, str) else list(stop_words)
        if words == "characters" and min_mean_word_length is not None:
            raise InputError(
                f"min_mean_word_length={min_mean_word_length} with words=characters: each is one character long, "
                "set min_mean_word_length: null"
            )
        if not given or not all(word.strip() for word in given):
            raise InputError(f"stop_words={stop_words!r}: name a language or words, or set min_stop_words: null")
        self.languages = [word for word in given if word in STOP_WORDS]
        if isinstance(stop_words, str) and not self.languages:
            raise InputError(f"stop_words={stop_words!r}: give words, or a language of {' '.join(STOP_WORDS)}")
        # "ja on ei" are words of Finnish, "en zz" is a mistake: codes are meant where half are, or one is "pt-br".
        unknown = [word for word in given if word not in STOP_WORDS]
        known = sum(word.lower() in STOP_WORDS for word in given)
        is_code = known and (len(unknown) <= known or any(len(word) > 2 or not word.islower() for word in unknown))
        if unknown and is_code and all(CODE.fullmatch(word) for word in given):
            raise InputError(
                f"stop_words={given!r}: {' '.join(unknown)} is no language of {' '.join(STOP_WORDS)}; give codes of "
                "these alone, or words of which one is longer than two letters"
            )
        # All codes, or all words: "de" is a stop word of French and the code of German.
        self.languages = self.languages if len(self.languages) == len(given) else []
        self.stop_words = list(
            dict.fromkeys(word for code in self.languages for word in STOP_WORDS[code]) if self.languages else given
        )
        self.min_words, self.max_words = min_words, max_words
        self.min_mean_word_length = min_mean_word_length
        self.max_mean_word_length = max_mean_word_length
        self.max_symbols_per_word = max_symbols_per_word
        self.max_bullet_lines, self.max_ellipsis_lines = max_bullet_lines, max_ellipsis_lines
        self.min_alphabetic_words, self.min_stop_words = min_alphabetic_words, min_stop_words
        self.bullets, self.words = bullets, words

    def measures(self, text: Expression) -> dict[str, Expression]:
        """Words, mean word length, shares of symbols, bullet lines, ellipsis lines and alphabetic words, stop words."""
        return measurements(text, QUALITY, self.measure)

    def measure(self, content: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """`QUALITY` of texts in one buffer, float64 [texts, 8]."""
        stop_words = np.array([_hash_text(word) for word in self.stop_words], dtype=np.uint64)
        max_characters = max(map(len, self.stop_words))
        # A word of several characters is none where each is a word.
        raw = [word.encode() for word in self.stop_words if self.words == "characters"]
        written = np.frombuffer(b"".join(raw), dtype=np.uint8), np.cumsum([len(word) for word in raw], dtype=np.int64)
        bullets = np.array([ord(bullet) for bullet in self.bullets], dtype=np.int64)
        words = empty_words(longest(offsets))
        rules = splitting_rules(self.words)
        return _measure_quality(content, offsets, words, rules, stop_words, max_characters, written, bullets)

    def refuses(self, language: str) -> str | None:
        """Whether its words are those of a language."""
        if reason := unspaced_reason(language, self.words):
            return reason
        if not self.min_stop_words or not self.languages or language in self.languages:
            return None
        known = (
            f"stop_words: [{', '.join([*self.languages, language])}]" if language in STOP_WORDS else "its stop_words"
        )
        return f"has stop words of {', '.join(self.languages)} alone, set {known} or min_stop_words: null"

    def thresholds(self) -> dict[str, Threshold]:
        """One reason a threshold, `gopher_...`."""
        return active(
            {
                "gopher_too_few_words": ("words", "<", self.min_words),
                "gopher_too_many_words": ("words", ">", self.max_words),
                "gopher_short_words": ("mean_word_length", "<", self.min_mean_word_length),
                "gopher_long_words": ("mean_word_length", ">", self.max_mean_word_length),
                "gopher_hashes": ("hashes_per_word", ">", self.max_symbols_per_word),
                "gopher_ellipses": ("ellipses_per_word", ">", self.max_symbols_per_word),
                "gopher_bullet_lines": ("bullet_lines", ">", self.max_bullet_lines),
                "gopher_ellipsis_lines": ("ellipsis_lines", ">", self.max_ellipsis_lines),
                "gopher_few_alphabetic_words": ("alphabetic_words", "<", self.min_alphabetic_words),
                "gopher_few_stop_words": ("stop_words", "<", self.min_stop_words),
            }
        )


def unspaced_reason(language: str, words: WordKind) -> str | None:
    """Why words are not split in a language, or None; see `SummarizedStep.refuses`."""
    if language in UNSPACED_LANGUAGES and words != "characters":
        return f"takes a line without spaces for one word with words={words}, set words: characters"
    return None


def _hash_text(text: str) -> int:
    raw = np.frombuffer(text.encode(), dtype=np.uint8)
    return int(hash_bytes(raw, 0, len(raw)))


class GopherRepetition(Filter):
    """Repetition rules of Rae et al. 2021, table A1, with their thresholds.

    Lines are parted by line feeds, paragraphs by empty lines. Shares of characters are of all characters of the text,
    white space included. Taken from datatrove: the first occurrence of a repeated line or n-gram does not count as a
    repetition (the paper counts "all duplicate n-grams", which reads either way); a top n-gram's characters include the
    spaces between its words, those of duplicate n-grams do not.

    Args:
        max_duplicate_lines, max_duplicate_paragraphs: share of lines / paragraphs that repeat an earlier one.
        max_duplicate_line_characters, max_duplicate_paragraph_characters: share of characters in those.
        max_top_n_grams: share of characters in the most frequent 2-, 3- and 4-gram of words.
        max_duplicate_n_grams: share of characters in repeated 5- to 10-grams of words, overlaps counted once.
        words: as in `GopherQuality`.
    """

    summary = "Gopher's repetition rules (Rae et al. 2021, table A1)"

    def __init__(
        self,
        max_duplicate_lines: float | None = 0.30,
        max_duplicate_paragraphs: float | None = 0.30,
        max_duplicate_line_characters: float | None = 0.20,
        max_duplicate_paragraph_characters: float | None = 0.20,
        max_top_n_grams: tuple[float | None, float | None, float | None] = (0.20, 0.18, 0.16),
        max_duplicate_n_grams: tuple[
            float | None, float | None, float | None, float | None, float | None, float | None
        ] = (0.15, 0.14, 0.13, 0.12, 0.11, 0.10),
        words: WordKind = "english",
    ) -> None:
        self.max_duplicate_lines = max_duplicate_lines
        self.max_duplicate_paragraphs = max_duplicate_paragraphs
        self.max_duplicate_line_characters = max_duplicate_line_characters
        self.max_duplicate_paragraph_characters = max_duplicate_paragraph_characters
        self.max_top_n_grams = list(max_top_n_grams)
        self.max_duplicate_n_grams = list(max_duplicate_n_grams)
        self.words = words

    def measures(self, text: Expression) -> dict[str, Expression]:
        """Shares of repeated lines and paragraphs, by number and by characters, and of repeated n-grams."""
        return measurements(text, REPETITION, self.measure)

    def measure(self, content: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """`REPETITION` of texts in one buffer, float64 [texts, 13]."""
        return _measure_repetition(content, offsets, empty_words(longest(offsets)), splitting_rules(self.words))

    def refuses(self, language: str) -> str | None:
        """Whether its words are those of a language."""
        return unspaced_reason(language, self.words)

    def thresholds(self) -> dict[str, Threshold]:
        """One reason a threshold, `gopher_...`."""
        top = zip(TOP_SIZES, self.max_top_n_grams, strict=True)
        repeated = zip(DUPLICATE_SIZES, self.max_duplicate_n_grams, strict=True)
        maxima = {
            "duplicate_paragraphs": self.max_duplicate_paragraphs,
            "duplicate_paragraph_characters": self.max_duplicate_paragraph_characters,
            "duplicate_lines": self.max_duplicate_lines,
            "duplicate_line_characters": self.max_duplicate_line_characters,
            **{f"top_{size}_gram": most for size, most in top},
            **{f"duplicate_{size}_grams": most for size, most in repeated},
        }
        return active({f"gopher_{name}": (name, ">", most) for name, most in maxima.items()})
