"""FineWeb quality rules (Penedo et al. 2024, section 3.6), against lists, menus and boilerplate."""

import numpy as np
from daft import Expression

from common.compute.compiled import compiled
from common.compute.hashing import FNV_PRIME, FNV_START, nonzero_mix
from datamodules.curation.filters.base import Filter, Threshold
from datamodules.curation.filters.gopher import unspaced_reason
from datamodules.curation.filters.measurements import active, longest, measurements
from datamodules.curation.words.characters import SPACE, TERMINAL, bits_at, decode
from datamodules.curation.words.languages import WITHOUT_END_MARKS
from datamodules.curation.words.repetition import add_to_set, slots_for
from datamodules.curation.words.split import WordSpans, empty_words, split_words
from datamodules.curation.words.tables import SplitterTables, WordKind, splitting_rules

MEASURES = ("terminal_lines", "short_lines", "characters_in_repeated_lines", "line_feeds_per_word")


@compiled
def _measure_lines(
    content: np.ndarray,
    offsets: np.ndarray,
    words: WordSpans,
    rules: SplitterTables,
    short_line: int,
    count_words: bool,
    end_marks: np.ndarray,
) -> np.ndarray:
    values = np.zeros((len(offsets) - 1, 4), dtype=np.float64)
    for row in range(len(offsets) - 1):
        text = content[offsets[row] : offsets[row + 1]]
        size, feeds, characters = len(text), 0, 0
        for byte in text:
            feeds += byte == 10
            characters += byte & 0xC0 != 0x80
        table = np.zeros(slots_for(feeds + 1), dtype=np.uint64)
        lines, terminal, short, repeated, place = 0, 0, 0, 0, 0
        while place < size:
            key, length, is_blank, last, last_code = FNV_START, 0, True, 0, 0
            while place < size and text[place] != 10:
                last, width = bits_at(text, place, rules.characters)
                for offset in range(width):
                    key = (key ^ np.uint64(text[place + offset])) * FNV_PRIME
                is_blank &= last & SPACE > 0
                if len(end_marks):
                    last_code, _ = decode(text, place)
                length += 1
                place += width
            place += 1
            if is_blank:
                continue
            lines += 1
            if len(end_marks) == 0:
                terminal += last & TERMINAL > 0
            else:
                for mark in end_marks:
                    terminal += mark == last_code
            short += length <= short_line
            if not add_to_set(table, nonzero_mix(key)):
                repeated += length
        values[row, 0], values[row, 1] = terminal / max(lines, 1), short / max(lines, 1)
        values[row, 2] = repeated / max(characters - feeds, 1)
        if count_words:
            values[row, 3] = feeds / max(split_words(text, words, rules), 1)
    return values


class FineWebQuality(Filter):
    """The three rules that FineWeb adds to C4's and Gopher's, and a fourth of its code.

    Blank lines do not count. The paper drops a share of terminal lines of at most 0.12, of short lines of at least 0.67
    and of repeated characters of at least 0.1; its code (datatrove 0.10), which made the data set, drops less than
    0.12, more than 0.67 and more than 0.01, and is followed here.

    Args:
        min_terminal_lines: share of lines that end in a terminal mark.
        max_short_lines: share of lines of at most `short_line` characters.
        max_repeated_characters: share of characters in lines that equal an earlier one; the paper's is 0.1.
        max_line_feeds_per_word: 0.3 in the code; not in the paper.
        short_line: characters.
        words: as in `GopherQuality`.
        end_marks: characters that are terminal marks; null for those of all scripts, as in the code.

    Every maximum and minimum may be null, which turns its rule off.
    """

    summary = "FineWeb's line rules (Penedo et al. 2024, section 3.6)"

    def __init__(
        self,
        min_terminal_lines: float | None = 0.12,
        max_short_lines: float | None = 0.67,
        max_repeated_characters: float | None = 0.01,
        max_line_feeds_per_word: float | None = 0.3,
        short_line: int = 30,
        words: WordKind = "english",
        end_marks: str | None = None,
    ) -> None:
        self.min_terminal_lines, self.max_short_lines = min_terminal_lines, max_short_lines
        self.max_repeated_characters = max_repeated_characters
        self.max_line_feeds_per_word = max_line_feeds_per_word
        self.short_line, self.words = short_line, words
        self.end_marks = end_marks

    def measures(self, text: Expression) -> dict[str, Expression]:
        """Shares of terminal lines, of short lines and of characters in repeated lines; line feeds to words."""
        return measurements(text, MEASURES, self.measure)

    def measure(self, content: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """`MEASURES` of texts in one buffer, float64 [texts, 4]."""
        count_words = self.max_line_feeds_per_word is not None
        words = empty_words(longest(offsets) if count_words else 0)
        marks = np.array([ord(mark) for mark in dict.fromkeys(self.end_marks or "")], dtype=np.int64)
        rules = splitting_rules(self.words)
        return _measure_lines(content, offsets, words, rules, self.short_line, count_words, marks)

    def refuses(self, language: str) -> str | None:
        """Whether its words and marks are those of a language."""
        if self.max_line_feeds_per_word is not None and (reason := unspaced_reason(language, self.words)):
            return reason
        if self.min_terminal_lines and self.end_marks is None and language in WITHOUT_END_MARKS:
            return "looks for marks at the ends of sentences, which it has not: set min_terminal_lines: null"
        return None

    def thresholds(self) -> dict[str, Threshold]:
        """`fineweb_...`."""
        return active(
            {
                "fineweb_few_terminal_lines": ("terminal_lines", "<", self.min_terminal_lines),
                "fineweb_short_lines": ("short_lines", ">", self.max_short_lines),
                "fineweb_repeated_lines": ("characters_in_repeated_lines", ">", self.max_repeated_characters),
                "fineweb_line_feeds": ("line_feeds_per_word", ">", self.max_line_feeds_per_word),
            }
        )
