"""Code quality rules (Kocetkov et al. 2022, The Stack; Li et al. 2023, StarCoder): generated files, data, markup.

Everything is measured on characters, nothing is parsed: a rule that needs a parser for each of 300 languages would
be exact for one of them. Rules for one kind of file look at the end of its path.
"""

import daft
import numpy as np
from daft import Expression, col, lit
from daft.functions import left, lower, regexp, regexp_extract, when

from common.compute.compiled import compiled
from datamodules.curation.filters.base import Filter, Threshold
from datamodules.curation.filters.measurements import active, measurements
from datamodules.curation.words.characters import ALPHABETIC, ALPHANUMERIC, LINE_END, bits_at, character_table
from datamodules.readers.formats.generated_code import (
    DATA_CHARACTERS,
    DATA_LETTERS,
    DATA_SUFFIXES,
    GENERATED,
    HTML_SUFFIXES,
    HTML_TEXT_CHARACTERS,
    HTML_TEXT_SHARE,
    XML_CHARACTERS,
    XML_MARK,
    XML_SUFFIXES,
)
from datamodules.readers.formats.html_visible_text import MARKS, visible_characters

MEASURES = (
    "longest_line", "mean_line_length", "alphanumeric", "alphabetic", "code_characters", "visible",
    "visible_characters",
)  # fmt: skip


@compiled
def _measure_code(
    content: np.ndarray,
    offsets: np.ndarray,
    table: np.ndarray,
    script: np.ndarray,
    style: np.ndarray,
    comment: np.ndarray,
    comment_end: np.ndarray,
) -> np.ndarray:
    values = np.zeros((len(offsets) - 1, 7), dtype=np.float64)
    for row in range(len(offsets) - 1):
        text = content[offsets[row] : offsets[row + 1]]
        size, place = len(text), 0
        characters, alphanumeric, alphabetic, lines, length, longest, total = 0, 0, 0, 0, 0, 0, 0
        while place < size:
            bits, width = bits_at(text, place, table)
            characters += 1
            alphanumeric += bits & ALPHANUMERIC > 0
            alphabetic += bits & ALPHABETIC > 0
            is_end = bits & LINE_END > 0
            place += width
            if is_end:
                if text[place - 1] == 13 and place < size and text[place] == 10:
                    characters += 1
                    place += 1
            else:
                length += 1
            if is_end or place >= size:
                lines += 1
                total += length
                longest = max(longest, length)
                length = 0
        values[row, 0], values[row, 1] = longest, total / max(lines, 1)
        values[row, 2], values[row, 3] = alphanumeric / max(characters, 1), alphabetic / max(characters, 1)
        values[row, 4] = characters
        values[row, 6] = visible_characters(text, script, style, comment, comment_end)
        values[row, 5] = values[row, 6] / max(characters, 1)
    return values


class CodeQuality(Filter):
    """Rules for source code, as The Stack and StarCoder apply them after Codex (Chen et al. 2021, section 3.1).

    What a note says that a file was generated is this project's own, see `readers.generated`, where all that holds for
    `CodeFiles` as well is defined; so is that Markdown and reStructuredText may begin with XML.

    Looks at the column `file` too: the rules for HTML hold where it ends in .html, .htm or .xhtml, those for data in
    .json, .yaml or .yml, none of them where rows of a table or JSON lines have no path of their own (`path_key` of
    `Files`). Visible text of HTML is text outside of tags, comments, scripts and styles; StarCoder
    parses the file, which differs where a tag is broken and in character references, one character there.

    Args:
        max_line_length: characters of the longest line; 1,000.
        max_mean_line_length: characters; 100.
        min_alphanumeric: share of letters and digits; 0.25 (The Stack).
        min_alphabetic: share of letters; 0.25 (StarCoder, for files of numbers).
        header_characters: where a note that the file was generated is looked for.
        drop_xml: whether a file that begins as XML within 100 characters goes (StarCoder).
        min_visible: share of an HTML file that is visible text; 0.2.
        min_visible_characters: of an HTML file; 100.
        min_data_characters, max_data_characters: of a JSON or YAML file; 50 and 5,000.
        min_data_alphabetic: share of letters of a JSON or YAML file; 0.5.

    Every maximum and minimum may be null, which turns its rule off.
    """

    summary = "rules for source code (The Stack, StarCoder; Chen et al. 2021, section 3.1)"

    def __init__(
        self,
        max_line_length: int | None = 1000,
        max_mean_line_length: float | None = 100.0,
        min_alphanumeric: float | None = 0.25,
        min_alphabetic: float | None = 0.25,
        header_characters: int = 500,
        drop_xml: bool = True,
        min_visible: float | None = HTML_TEXT_SHARE,
        min_visible_characters: int | None = HTML_TEXT_CHARACTERS,
        min_data_characters: int | None = DATA_CHARACTERS[0],
        max_data_characters: int | None = DATA_CHARACTERS[1],
        min_data_alphabetic: float | None = DATA_LETTERS,
    ) -> None:
        self.max_line_length, self.max_mean_line_length = max_line_length, max_mean_line_length
        self.min_alphanumeric, self.min_alphabetic = min_alphanumeric, min_alphabetic
        self.header_characters, self.drop_xml = header_characters, drop_xml
        self.min_visible, self.min_visible_characters = min_visible, min_visible_characters
        self.min_data_characters, self.max_data_characters = min_data_characters, max_data_characters
        self.min_data_alphabetic = min_data_alphabetic

    def measures(self, text: Expression) -> dict[str, Expression]:
        """Lines, shares of letters and digits, notes in the header; null: of another kind of file."""
        measured = measurements(text, MEASURES, self.measure)
        kind = regexp_extract(lower(col("file")), r"\.([a-z0-9]+)\z", 1)
        is_html, is_data = kind.is_in(list(HTML_SUFFIXES)), kind.is_in(list(DATA_SUFFIXES))
        nothing = lit(None).cast(daft.DataType.float64())
        return {
            **{name: measured[name] for name in MEASURES[:4]},
            "generated": regexp(left(text, self.header_characters), GENERATED),
            "xml": left(text, XML_CHARACTERS).contains(XML_MARK) & ~kind.fill_null(lit("")).is_in(list(XML_SUFFIXES)),
            "visible": when(is_html, measured["visible"]).otherwise(nothing),
            "visible_characters": when(is_html, measured["visible_characters"]).otherwise(nothing),
            "data_characters": when(is_data, measured["code_characters"]).otherwise(nothing),
            "data_alphabetic": when(is_data, measured["alphabetic"]).otherwise(nothing),
        }

    def measure(self, content: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """`MEASURES` of texts in one buffer, float64 [texts, 7]."""
        return _measure_code(content, offsets, character_table(), *MARKS)

    def thresholds(self) -> dict[str, Threshold]:
        """`code_...`."""
        return active(
            {
                "code_generated": ("generated", ">", 0),
                "code_xml": ("xml", ">", 0 if self.drop_xml else None),
                "code_long_line": ("longest_line", ">", self.max_line_length),
                "code_long_lines": ("mean_line_length", ">", self.max_mean_line_length),
                "code_few_alphanumerics": ("alphanumeric", "<", self.min_alphanumeric),
                "code_few_letters": ("alphabetic", "<", self.min_alphabetic),
                "code_little_visible_text": ("visible", "<", self.min_visible),
                "code_short_visible_text": ("visible_characters", "<", self.min_visible_characters),
                "code_small_data": ("data_characters", "<", self.min_data_characters),
                "code_large_data": ("data_characters", ">", self.max_data_characters),
                "code_data_few_letters": ("data_alphabetic", "<=", self.min_data_alphabetic),
            }
        )
