"""Published quality rules, one class each, as vectorised measurements against named thresholds.

Words are what stands between white space, as in Gopher; a linguistic tokeniser would split punctuation off, at a
hundred times the cost (see datatrove), and move the thresholds away from the published ones.
"""

import daft
from daft import Expression, lit
from daft.functions import (
    left,
    length,
    length_bytes,
    list_distinct,
    list_filter,
    list_map,
    list_max,
    list_sum,
    lower,
    regexp,
    regexp_count,
    regexp_split,
    split,
    strip,
    when,
)

from datamodules.cleaning.step import Limit, Rule


def _share(part: Expression, whole: Expression) -> Expression:
    """part / whole as a float, 0 for an empty whole."""
    return when(whole > lit(0), part.cast(daft.DataType.float64()) / whole.cast(daft.DataType.float64())).otherwise(
        lit(0.0)
    )


class Length(Rule):
    """Documents of a useful length.

    Args:
        minimum_characters: shorter ones are dropped as `too_short`; FineWeb's code takes none below a few sentences,
            200 characters are about that.
        maximum_characters: longer ones are dropped as `too_long`; 1,000,000 is The Stack's bound of 1 MB a file.
    """

    def __init__(self, minimum_characters: int = 200, maximum_characters: int = 1_000_000) -> None:
        self.minimum_characters, self.maximum_characters = minimum_characters, maximum_characters

    def measures(self, text: Expression) -> dict[str, Expression]:
        """Characters."""
        return {"characters": length(text)}

    def limits(self) -> dict[str, Limit]:
        """`too_short`, `too_long`."""
        return {
            "too_short": Limit("characters", "<", self.minimum_characters),
            "too_long": Limit("characters", ">", self.maximum_characters),
        }


class GopherQuality(Rule):
    """Quality rules of Rae et al. 2021, appendix A1.1, with their thresholds.

    Args:
        minimum_words, maximum_words: words in a document.
        minimum_mean_word_length, maximum_mean_word_length: characters.
        maximum_symbols_per_word: of '#' and of the ellipsis, each.
        maximum_bullet_lines: share of lines that start with a bullet.
        maximum_ellipsis_lines: share of lines that end in an ellipsis.
        minimum_alphabetic_words: share of words with a letter. The paper counts letters of the Latin alphabet.
        minimum_stop_words: how many of the, be, to, of, and, that, have, with occur. The paper says "at least two"
            of them; two occurrences of the same one count as one here, as in the paper's wording.
    """

    STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")

    def __init__(
        self,
        minimum_words: int = 50,
        maximum_words: int = 100_000,
        minimum_mean_word_length: float = 3.0,
        maximum_mean_word_length: float = 10.0,
        maximum_symbols_per_word: float = 0.1,
        maximum_bullet_lines: float = 0.9,
        maximum_ellipsis_lines: float = 0.3,
        minimum_alphabetic_words: float = 0.8,
        minimum_stop_words: int = 2,
    ) -> None:
        self.minimum_words, self.maximum_words = minimum_words, maximum_words
        self.minimum_mean_word_length, self.maximum_mean_word_length = (
            minimum_mean_word_length,
            maximum_mean_word_length,
        )
        self.maximum_symbols_per_word = maximum_symbols_per_word
        self.maximum_bullet_lines, self.maximum_ellipsis_lines = maximum_bullet_lines, maximum_ellipsis_lines
        self.minimum_alphabetic_words, self.minimum_stop_words = minimum_alphabetic_words, minimum_stop_words

    def measures(self, text: Expression) -> dict[str, Expression]:
        """Words, mean word length, shares of symbols, bullet lines, ellipsis lines and alphabetic words, stop words."""
        words, lines = regexp_count(text, r"\S+"), regexp_count(text, r"(?m)^.*\S.*$")
        stop_words = lit(0)
        for word in self.STOP_WORDS:
            stop_words = stop_words + regexp(text, rf"(?i)(?:^|\s){word}(?:$|\s|[.,;:!?)])").cast(daft.DataType.int64())
        return {
            "words": words,
            "mean_word_length": _share(regexp_count(text, r"\S"), words),
            "hashes_per_word": _share(regexp_count(text, r"#"), words),
            "ellipses_per_word": _share(regexp_count(text, r"\.\.\.|…"), words),
            "bullet_lines": _share(regexp_count(text, r"(?m)^\s*[•‣◦▪*\-]\s.*$"), lines),
            "ellipsis_lines": _share(regexp_count(text, r"(?m)(?:\.\.\.|…)[ \t]*$"), lines),
            "alphabetic_words": _share(regexp_count(text, r"[^\sA-Za-z]*[A-Za-z]\S*"), words),
            "stop_words": stop_words,
        }

    def limits(self) -> dict[str, Limit]:
        """One reason a threshold, `gopher_...`."""
        return {
            "gopher_too_few_words": Limit("words", "<", self.minimum_words),
            "gopher_too_many_words": Limit("words", ">", self.maximum_words),
            "gopher_short_words": Limit("mean_word_length", "<", self.minimum_mean_word_length),
            "gopher_long_words": Limit("mean_word_length", ">", self.maximum_mean_word_length),
            "gopher_hashes": Limit("hashes_per_word", ">", self.maximum_symbols_per_word),
            "gopher_ellipses": Limit("ellipses_per_word", ">", self.maximum_symbols_per_word),
            "gopher_bullet_lines": Limit("bullet_lines", ">", self.maximum_bullet_lines),
            "gopher_ellipsis_lines": Limit("ellipsis_lines", ">", self.maximum_ellipsis_lines),
            "gopher_few_alphabetic_words": Limit("alphabetic_words", "<", self.minimum_alphabetic_words),
            "gopher_few_stop_words": Limit("stop_words", "<", self.minimum_stop_words),
        }


class GopherRepetition(Rule):
    """Repeated lines and paragraphs of Rae et al. 2021, appendix A1.1, table A1.

    Args:
        maximum_duplicate_lines, maximum_duplicate_paragraphs: share of lines / paragraphs that repeat an earlier one.
        maximum_duplicate_line_characters, maximum_duplicate_paragraph_characters: share of characters in those.
    """

    def __init__(
        self,
        maximum_duplicate_lines: float = 0.30,
        maximum_duplicate_paragraphs: float = 0.30,
        maximum_duplicate_line_characters: float = 0.20,
        maximum_duplicate_paragraph_characters: float = 0.20,
    ) -> None:
        self.maxima = {
            "duplicate_lines": maximum_duplicate_lines,
            "duplicate_paragraphs": maximum_duplicate_paragraphs,
            "duplicate_line_characters": maximum_duplicate_line_characters,
            "duplicate_paragraph_characters": maximum_duplicate_paragraph_characters,
        }

    def measures(self, text: Expression) -> dict[str, Expression]:
        """Shares of repeated lines and paragraphs, by number and by characters; empty ones do not count."""
        measured = {}
        for name, parts in (("line", regexp_split(text, r"\n+")), ("paragraph", regexp_split(text, r"\n{2,}"))):
            parts = list_filter(list_map(parts, strip(daft.element())), length(daft.element()) > lit(0))
            distinct = list_distinct(parts)
            measured[f"duplicate_{name}s"] = 1 - _share(length(distinct), length(parts))
            measured[f"duplicate_{name}_characters"] = 1 - _share(_characters(distinct), _characters(parts))
        return measured

    def limits(self) -> dict[str, Limit]:
        """One reason a threshold, `gopher_duplicate_...`."""
        return {f"gopher_{name}": Limit(name, ">", most) for name, most in self.maxima.items()}


def _characters(parts: Expression) -> Expression:
    # An empty list sums to null: it holds no characters.
    return list_sum(list_map(parts, length(daft.element()))).fill_null(0)


class C4Page(Rule):
    """Page rules of Raffel et al. 2020, section 2.2, that suit text which is not a web page.

    Left out: lines must end in punctuation (wrapped text does not), and pages with '{' (technical text has them).

    Args:
        minimum_sentences: sentence ends in a document; the paper drops pages with fewer than 3.
        placeholder: text that marks a page as filler.
    """

    def __init__(self, minimum_sentences: int = 3, placeholder: str = "lorem ipsum") -> None:
        self.minimum_sentences, self.placeholder = minimum_sentences, placeholder

    def measures(self, text: Expression) -> dict[str, Expression]:
        """Sentence ends, and whether the placeholder occurs."""
        return {
            "sentences": regexp_count(text, r"""[.!?]["')\]]*(?:\s|\z)"""),
            "placeholder": lower(text).contains(self.placeholder.lower()),
        }

    def limits(self) -> dict[str, Limit]:
        """`c4_few_sentences`, `c4_placeholder`."""
        return {
            "c4_few_sentences": Limit("sentences", "<", self.minimum_sentences),
            "c4_placeholder": Limit("placeholder", ">", 0),
        }


class CodeQuality(Rule):
    """Rules for source code: Chen et al. 2021 (Codex), section 3.1, as taken over by The Stack and StarCoder.

    Args:
        maximum_line_length: characters of the longest line; 1,000.
        maximum_mean_line_length: characters; 100.
        minimum_alphanumeric: share of letters and digits; 0.25 (Li et al. 2023, StarCoder, section 3.1).
        header_characters: where a note that the file was generated is looked for.
    """

    GENERATED = (
        r"(?i)auto-?generated|autogenerated|automatically generated|generated automatically|"
        r"generated by|do not edit|do not modify"
    )

    def __init__(
        self,
        maximum_line_length: int = 1000,
        maximum_mean_line_length: float = 100.0,
        minimum_alphanumeric: float = 0.25,
        header_characters: int = 500,
    ) -> None:
        self.maximum_line_length, self.maximum_mean_line_length = maximum_line_length, maximum_mean_line_length
        self.minimum_alphanumeric, self.header_characters = minimum_alphanumeric, header_characters

    def measures(self, text: Expression) -> dict[str, Expression]:
        """Longest and mean line, share of letters and digits, and whether the header says the file was generated."""
        lines = split(text, "\n")
        return {
            "longest_line": list_max(list_map(lines, length(daft.element()))),
            "mean_line_length": _share(length(text), length(lines)),
            "alphanumeric": _share(regexp_count(text, r"[\p{L}\p{N}]"), length(text)),
            "generated": regexp(left(text, self.header_characters), self.GENERATED),
        }

    def limits(self) -> dict[str, Limit]:
        """`code_...`."""
        return {
            "code_generated": Limit("generated", ">", 0),
            "code_long_line": Limit("longest_line", ">", self.maximum_line_length),
            "code_long_lines": Limit("mean_line_length", ">", self.maximum_mean_line_length),
            "code_few_alphanumerics": Limit("alphanumeric", "<", self.minimum_alphanumeric),
        }


def bytes_of(text: Expression) -> Expression:
    """Bytes of UTF-8, 0 for no text."""
    return length_bytes(text).cast(daft.DataType.int64()).fill_null(lit(0).cast(daft.DataType.int64()))
