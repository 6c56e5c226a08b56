"""Toxicity filters: by a list of words, as in C4, or by a classifier.

A list is crude (Dodge et al. 2021 show whom C4's leaves out), so neither list nor classifier comes with the project:
the user names both, and with them what is offensive.
"""

from collections.abc import Sequence
from pathlib import Path

import daft
from daft import Expression, lit
from daft.functions import lower, regexp_count, when

from common.errors import InputError
from common.files import checksum
from common.path_lists import PathList, path_list
from datamodules.curation.filters.base import Filter, Threshold
from datamodules.curation.filters.quality_classifier import ClassifierFilter

WORDS_PER_PATTERN = 500
"""Alternatives in one expression; a list of any length becomes several, since Rust bounds the size of each."""


def read_words(paths: Sequence[str]) -> list[str]:
    """Words and phrases of some files, one per line, lower-cased, sorted and each once."""
    return sorted(
        {
            " ".join(line.lower().split())
            for path in paths
            for line in Path(path).read_text(encoding="utf-8").splitlines()
            if line.strip()
        }
    )


def escaped(word: str) -> str:
    """A word as an expression in Rust's syntax; white space in a phrase is any."""
    return (
        "".join(
            r"\s+"
            if character == " "
            else character
            if character.isalnum() or ord(character) > 127
            else f"\\{character}"
            for character in word.replace("<", "\x00").replace(">", "\x01")
        )
        .replace("\\\x00", "<")
        .replace("\\\x01", ">")
    )


class WordList(Filter):
    """Drops documents with words of a list (C4: Raffel et al. 2020, section 2.2, a page with any of them).

    Args:
        paths: files with a word or phrase a line, like LDNOOBW's (List of Dirty, Naughty, Obscene and Otherwise Bad
            Words), which C4 took.
        max_share: listed words to words; above it a document is dropped. 0 drops at the first, as C4.
        whole_words: count a word only between characters that are no letters or digits; false for languages written
            without spaces, as in C4's multilingual version.

    Raises:
        InputError: when a file is missing, the lists are empty, or the share is none.
    """

    summary = "words of a list (C4: Raffel et al. 2020, section 2.2)"
    LOCATIONS = ("paths",)

    def __init__(self, paths: PathList, max_share: float = 0.0, whole_words: bool = True) -> None:
        self.paths, self.max_share, self.whole_words = path_list(paths), max_share, whole_words
        if not 0 <= max_share < 1:
            raise InputError(f"max_share={max_share}: must be at least 0 and below 1")
        for path in self.paths:
            if not Path(path).is_file():
                raise InputError(f"paths: {path} is no file, give a list with one word per line")
        if not read_words(self.paths):
            raise InputError(f"paths={self.paths} hold no word, name a list or leave the rule out")
        # Part of the fingerprint: the same name may hold other words tomorrow.
        self.checksums = [checksum(Path(path)) for path in self.paths]

    def measures(self, text: Expression) -> dict[str, Expression]:
        """Listed words to words, 0 for a text without words."""
        lowered, words = lower(text), read_words(self.paths)
        listed: Expression = lit(0)
        for start in range(0, len(words), WORDS_PER_PATTERN):
            # Longest first: alternatives are tried in order.
            chosen = sorted(words[start : start + WORDS_PER_PATTERN], key=lambda word: (-len(word), word))
            alternatives = "|".join(map(escaped, chosen))
            pattern = rf"\b(?:{alternatives})\b" if self.whole_words else alternatives
            listed = listed + regexp_count(lowered, pattern)
        number = regexp_count(text, r"\S+")
        share = listed.cast(daft.DataType.float64()) / number.cast(daft.DataType.float64())
        return {"listed_words": when(number > lit(0), share).otherwise(lit(0.0))}

    def thresholds(self) -> dict[str, Threshold]:
        """`listed_words`."""
        return {"listed_words": Threshold("listed_words", ">", self.max_share)}


class ToxicityClassifier(ClassifierFilter):
    """Drops documents that a classifier finds like its positive examples, here offensive text.

    Args:
        folder: of a classifier that `main.py classifier` trained with offensive text as positive.
        max_score: documents scored higher are dropped; null takes the threshold chosen in training.

    Raises:
        InputError: when there is no classifier, it is damaged, or `max_score` is no probability.
    """

    summary = "toxicity by a trained classifier"

    measure = "toxicity_score"

    def __init__(self, folder: str, max_score: float | None = None) -> None:
        super().__init__(folder, max_score)

    def thresholds(self) -> dict[str, Threshold]:
        """`toxic`."""
        return {"toxic": Threshold(self.measure, ">", self.threshold)}
