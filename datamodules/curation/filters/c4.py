"""C4 rules (Raffel et al. 2020, section 2.2): drop lines that are no sentences, and pages with too few left.

The rules on lines are a transform and those on pages a filter behind it. The published code (`c4_utils` of TensorFlow
Datasets) checks a page's rules while it passes over lines, and so sees only the lines that stay; the same order of
steps here sees the same lines. Put the rule first to look at whole pages, as the paper has it. C4 also discards all
but one of three sentences in a row that occur again anywhere; that compares documents and is left to `RepeatedSpans`,
whose spans are of words and so depend on no splitter of sentences.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import daft
import numpy as np
import pyarrow
from daft import DataType, Expression, Series, lit
from daft.functions import lower, regexp, when

from common.compute.compiled import compiled
from common.errors import InputError
from datamodules.curation.filters.base import Filter, Threshold, Transform
from datamodules.curation.filters.gopher import unspaced_reason
from datamodules.curation.filters.measurements import active, longest, measurements
from datamodules.curation.words.characters import LINE_END, SPACE, UNSPACED, bits_at, decode, previous
from datamodules.curation.words.languages import END_MARKS, WITHOUT_END_MARKS
from datamodules.curation.words.split import ENDS_SENTENCE, IS_PUNCTUATION, WordSpans, empty_words, split_words
from datamodules.curation.words.tables import SplitterTables, WordKind, splitting_rules
from datamodules.curation.words.utf8_buffers import utf8_buffers

NOTICES = (
    "javascript", "terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies",
)  # fmt: skip
"""A line with one of these in any case is boilerplate."""
CITATIONS = ("[edit]", "[citation needed]")
PAGE_MEASURES = ("sentences", "placeholder", "curly_brackets")


@compiled
def _starts_with(text: np.ndarray, place: int, stop: int, pattern: np.ndarray, fold: bool) -> bool:
    if stop - place < len(pattern):
        return False
    for offset in range(len(pattern)):
        byte = np.int64(text[place + offset])
        if fold and ord("A") <= byte <= ord("Z"):
            byte += 32
        if byte != pattern[offset]:
            return False
    return True


@compiled
def _contains(text: np.ndarray, start: int, stop: int, patterns: np.ndarray, ends: np.ndarray) -> bool:
    """True if one of the patterns (in lower case, one behind the other, with their ends) occurs in any case."""
    for place in range(start, stop):
        byte = np.int64(text[place])
        if ord("A") <= byte <= ord("Z"):
            byte += 32
        begin = 0
        for end in ends:
            if byte == patterns[begin] and _starts_with(text, place, stop, patterns[begin:end], True):
                return True
            begin = end
    return False


@compiled
def _citation_size(text: np.ndarray, place: int, stop: int, citations: np.ndarray, ends: np.ndarray) -> int:
    """Bytes of a citation that begins at a '[': digits or none, or one of the citations."""
    end = place + 1
    while end < stop and ord("0") <= text[end] <= ord("9"):
        end += 1
    if end < stop and text[end] == ord("]"):
        return end + 1 - place
    begin = 0
    for end in ends:
        if _starts_with(text, place, stop, citations[begin:end], False):
            return end - begin
        begin = end
    return 0


@compiled
def _strip(text: np.ndarray, start: int, stop: int, table: np.ndarray) -> tuple[int, int]:
    while start < stop:
        bits, size = bits_at(text, start, table)
        if not bits & SPACE:
            break
        start += size
    while stop > start:
        place = previous(text, stop)
        if not bits_at(text, place, table)[0] & SPACE:
            break
        stop = place
    return start, stop


@compiled
def _count_chunks(text: np.ndarray, start: int, stop: int, table: np.ndarray, alone: int) -> tuple[int, int]:
    """What is between white space: how many, and the characters of the longest; a character of `alone` is one."""
    count, most, length, place = 0, 0, 0, start
    while place < stop:
        bits, size = bits_at(text, place, table)
        if bits & SPACE:
            length = 0
        elif bits & alone:
            count, length = count + 1, 0
        else:
            count += length == 0
            length += 1
            most = max(most, length)
        place += size
    return count, most


@compiled
def _keep_lines(
    content: np.ndarray,
    offsets: np.ndarray,
    table: np.ndarray,
    end_marks: np.ndarray,
    notices: tuple[np.ndarray, np.ndarray],
    citations: tuple[np.ndarray, np.ndarray],
    min_words: int,
    max_word_length: int,
    alone: int,
) -> tuple[np.ndarray, np.ndarray]:
    kept, places = np.empty(len(content) + len(offsets), dtype=np.uint8), np.zeros(len(offsets), dtype=np.int64)
    size = 0
    for row in range(len(offsets) - 1):
        begin, place, stop = size, offsets[row], offsets[row + 1]
        while place < stop:
            start = place
            while place < stop:
                bits, width = bits_at(content, place, table)
                if bits & LINE_END:
                    break
                place += width
            first, last = _strip(content, start, place, table)
            if place < stop:
                place += bits_at(content, place, table)[1]
            if first == last or (
                max_word_length >= 0 and _count_chunks(content, first, last, table, alone)[1] > max_word_length
            ):
                continue
            # The line without citations is written behind what is kept, and forgotten if the line is not.
            line = size + (size > begin)
            end = line
            while first < last:
                skipped = 0
                if content[first] == ord("["):
                    skipped = _citation_size(content, first, last, citations[0], citations[1])
                if skipped == 0:
                    kept[end] = content[first]
                    end += 1
                first += max(skipped, 1)
            if end == line:
                continue
            is_ended = len(end_marks) == 0
            last_code, _ = decode(kept, previous(kept, end))
            for mark in end_marks:
                is_ended |= last_code == mark
            dots = (
                len(end_marks) > 0
                and end - line >= 3
                and kept[end - 1] == 46
                and kept[end - 2] == 46
                and kept[end - 3] == 46
            )
            if not is_ended or dots or _count_chunks(kept, line, end, table, alone)[0] < min_words:
                continue
            if _contains(kept, line, end, notices[0], notices[1]):
                continue
            if size > begin:
                kept[size] = 10
            size = end
        first, last = _strip(kept, begin, size, table)
        for offset in range(last - first):
            kept[begin + offset] = kept[first + offset]
        size = begin + last - first
        if size > begin and content[stop - 1] == 10:
            kept[size] = 10
            size += 1
        places[row + 1] = size
    return kept[:size], places


@compiled
def _measure_pages(
    content: np.ndarray, offsets: np.ndarray, words: WordSpans, rules: SplitterTables, placeholder: np.ndarray
) -> np.ndarray:
    values = np.zeros((len(offsets) - 1, 3), dtype=np.float64)
    ends = np.array([len(placeholder)])
    for row in range(len(offsets) - 1):
        text = content[offsets[row] : offsets[row + 1]]
        count = split_words(text, words, rules)
        sentences, is_ended, place = 0, False, 0
        for index in range(count):
            is_new_line = index == 0
            while place < words.starts[index]:
                bits, size = bits_at(text, place, rules.characters)
                is_new_line |= bits & LINE_END > 0
                place += size
            place = words.stops[index]
            kind = words.kinds[index]
            if is_new_line or (is_ended and not kind & (IS_PUNCTUATION | ENDS_SENTENCE)):
                sentences += 1
                is_ended = False
            is_ended |= kind & ENDS_SENTENCE > 0
        values[row, 0] = sentences
        values[row, 1] = len(placeholder) > 0 and _contains(text, 0, len(text), placeholder, ends)
        for byte in text:
            values[row, 2] += byte == ord("{")
    return values


def _joined(patterns: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Patterns one behind the other, uint8, and their ends, int64."""
    raw = [pattern.encode() for pattern in patterns]
    return np.frombuffer(b"".join(raw), dtype=np.uint8), np.cumsum([len(pattern) for pattern in raw], dtype=np.int64)


class C4Lines(Transform):
    """Line rules of Raffel et al. 2020: keeps lines that end like a sentence, and takes citations out of them.

    A line is kept if it ends in a terminal mark and not in "...", has enough words, no word that is too long, and
    no notice. White space around lines and "[1]", "[edit]", "[citation needed]" go.

    Args:
        min_words: between white space, in a line: 5 in the paper and its code, 3 in datatrove.
        max_word_length: characters; -1 for no limit. 1,000 in the code of the paper, which has no such rule.
        end_marks: characters; datatrove adds the apostrophe. With none, lines may end as they like, as in FineWeb
            (Penedo et al. 2024, section 3.5: terminal marks alone took away 30 % of all tokens). Of languages with
            other marks: `languages.END_MARKS`.
        words: "whitespace" parts words at white space; "characters" also takes each character of a script without
            spaces for a word.
        notices: lines with one of these are boilerplate; letters of ASCII in any case, others as written.

    Raises:
        InputError: for an empty notice, which is in every line.
    """

    summary = "C4's line rules (Raffel et al. 2020, section 2.2)"

    def __init__(
        self,
        min_words: int = 5,
        max_word_length: int = 1000,
        end_marks: str = '.?!"',
        words: Literal["whitespace", "characters"] = "whitespace",
        notices: Sequence[str] = NOTICES,
    ) -> None:
        self.min_words, self.max_word_length, self.end_marks = min_words, max_word_length, end_marks
        self.words, self.notices = words, list(notices)
        if not all(self.notices):
            raise InputError(f"notices={self.notices}: an empty one is in every line, leave it out")

    def transform(self, text: Expression) -> Expression:
        """The lines that are kept, possibly none; a line feed at the end stays."""
        keep = self.keep

        @daft.func.batch(return_dtype=DataType.string())
        def keep_batch(texts: Series) -> pyarrow.Array:
            kept, offsets = keep(*utf8_buffers(texts))
            buffers = [None, pyarrow.py_buffer(offsets), pyarrow.py_buffer(kept)]
            return pyarrow.Array.from_buffers(pyarrow.large_string(), len(texts), buffers)

        # A dropped document has no text, and gets none.
        return when(text.is_null(), lit(None)).otherwise(keep_batch(text))

    def keep(self, content: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Texts in one buffer, uint8 and int64, without the lines that go."""
        marks = np.array([ord(mark) for mark in self.end_marks], dtype=np.int64)
        table = splitting_rules("whitespace").characters
        notices, citations = _joined([notice.lower() for notice in self.notices]), _joined(CITATIONS)
        alone = UNSPACED if self.words == "characters" else 0
        return _keep_lines(
            content, offsets, table, marks, notices, citations, self.min_words, self.max_word_length, alone
        )

    def refuses(self, language: str) -> str | None:
        """Whether its words and marks are those of a language."""
        if self.min_words > 1 and (reason := unspaced_reason(language, self.words)):
            return reason
        if self.end_marks and language in WITHOUT_END_MARKS:
            return 'keeps lines with a mark at their end, which it has not: set end_marks: ""'
        marks = END_MARKS.get(language, self.end_marks)
        if self.end_marks and not set(self.end_marks) & (set(marks) - set("?!")):
            return f"keeps lines that end in one of {self.end_marks}, set end_marks: '{marks}' or none"
        return None


class C4Page(Filter):
    """Page rules of Raffel et al. 2020.

    Sentences are counted as datatrove does, line by line: a new one begins at a word behind a terminal mark that is a
    word of its own (not the full stop of "Mr."). The paper's code uses a trained model (Punkt) instead.

    Args:
        min_sentences: 3 in the paper's last version and its code, 5 in its first version and in datatrove.
        placeholder: text that marks a page as filler, in any case; empty for none.
        max_curly_brackets: of '{', which the paper takes for a sign of code; null where text may be technical.
        bad_words: words or phrases of which no page may contain one, or the path of a file of them, one per line; null
            for none. The paper takes the English list of github.com/LDNOOBW, which is not shipped here. Compared in
            lower case, between characters that are neither letters, digits nor '_'.
        words: how words are split, between which sentences are looked for; as in `GopherQuality`.

    Raises:
        InputError: for a file of words that cannot be read or is empty.
    """

    summary = "C4's page rules (Raffel et al. 2020, section 2.2)"

    def __init__(
        self,
        min_sentences: int | None = 3,
        placeholder: str = "lorem ipsum",
        max_curly_brackets: int | None = 0,
        bad_words: list[str] | str | None = None,
        words: WordKind = "english",
    ) -> None:
        self.words = words
        self.min_sentences, self.placeholder = min_sentences, placeholder
        self.max_curly_brackets = max_curly_brackets
        # The words themselves, so that another list in the same file is another setting.
        self.bad_words = _read_words(bad_words) if isinstance(bad_words, str) else list(bad_words or [])

    def measures(self, text: Expression) -> dict[str, Expression]:
        """Sentences, whether the placeholder occurs, curly brackets, and whether a bad word occurs."""
        measured = measurements(text, PAGE_MEASURES, self.measure)
        if self.bad_words:
            words = "|".join(re.escape(word.lower()).replace("\\ ", " ") for word in self.bad_words)
            measured["bad_words"] = regexp(lower(text), rf"(?:\W|^)(?:{words})(?:\W|$)")
        return measured

    def measure(self, content: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """`PAGE_MEASURES` of texts in one buffer, float64 [texts, 3]."""
        placeholder = np.frombuffer(self.placeholder.lower().encode(), dtype=np.uint8)
        words = empty_words(longest(offsets))
        return _measure_pages(content, offsets, words, splitting_rules(self.words), placeholder)

    def refuses(self, language: str) -> str | None:
        """Whether its sentences are those of a language."""
        if self.min_sentences is None:
            return None
        if language in WITHOUT_END_MARKS:
            return "counts sentences by the marks at their ends, which it has not: set min_sentences: null"
        return unspaced_reason(language, self.words)

    def thresholds(self) -> dict[str, Threshold]:
        """`c4_...`."""
        return active(
            {
                "c4_placeholder": ("placeholder", ">", 0 if self.placeholder else None),
                "c4_curly_bracket": ("curly_brackets", ">", self.max_curly_brackets),
                "c4_bad_words": ("bad_words", ">", 0 if self.bad_words else None),
                "c4_few_sentences": ("sentences", "<", self.min_sentences),
            }
        )


def _read_words(path: str) -> list[str]:
    try:
        words = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"bad_words={path}: cannot be read ({error}), give a text file with one word per line"
        ) from error
    if not words:
        raise InputError(f"bad_words={path}: holds no word, give one per line or leave it out")
    return words
