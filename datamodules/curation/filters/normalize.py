"""Text normalization: Unicode NFC, line ends and control characters, and repair of wrong decoding.

What may carry meaning stays: typographic quotes, ligatures and HTML entities are not simplified, in code and in
documents about text they are the matter itself. Only an encoding that was plainly read as another is put right.
"""

import re
import unicodedata
from typing import Any

import daft
import ftfy
from daft import DataType, Expression, Series
from daft.functions import regexp_replace
from ftfy.badness import is_bad

from datamodules.curation.filters.base import Transform

_LATIN_1_CONTROLS = re.compile(rb"\xc2[\x80-\x9f]")
"""Their UTF-8: bytes are searched many times as fast as characters."""
_NEXT_LINE = re.compile("(?<![\x80-\xf4])\x85+")
_CONTROLS = re.compile("(?<![\x80-\xf4])[\x80-\x9f]+")


def _canonical(text: str) -> str:
    """NFC, with control characters of Latin-1 taken out."""
    if text.isascii():
        return text
    if _LATIN_1_CONTROLS.search(text.encode("utf-8", "replace")):
        text = _CONTROLS.sub("", _NEXT_LINE.sub("\n", text))
    return unicodedata.normalize("NFC", text)


@daft.func.batch(return_dtype=DataType.string())
def _canonical_texts(texts: Series) -> list[str | None]:
    return [None if text is None else _canonical(text) for text in texts.to_pylist()]


class Normalize(Transform):
    """Unicode NFC, line feeds for all line ends, no control characters, no blanks at line ends, one final line feed.

    Line ends are those of Unicode (standard annex 14): form feed, vertical tab, next line (U+0085), line and paragraph
    separator too; the separators of ASCII (U+001C to U+001F) likewise part words. Control characters of Latin-1
    (U+0080 to U+009F) stay where they follow one of its letters: so UTF-8 looks that was read as Latin-1, which
    `RepairUnicode` puts right. Indentation and blank lines inside stay: in code they carry meaning.
    """

    summary = "Unicode NFC, line feeds for line ends, no control characters"

    def transform(self, text: Expression) -> Expression:
        """The normalized text."""
        text = regexp_replace(text, r"\r\n?|[\x0b\x0c\x1c-\x1f\u{2028}\u{2029}]", "\n")
        # Before NFC, since a control character may part a letter from its accent.
        text = _canonical_texts(regexp_replace(text, r"[\x00-\x08\x0e-\x1f\x7f\u{feff}]", ""))
        text = regexp_replace(text, r"[ \t]+\n", "\n")
        return regexp_replace(text, r"\s*\z", "\n")


ENCODING_ONLY = ftfy.TextFixerConfig(
    unescape_html=False,
    remove_terminal_escapes=False,
    fix_latin_ligatures=False,
    fix_character_width=False,
    uncurl_quotes=False,
    fix_line_breaks=False,
    fix_surrogates=False,
    remove_control_chars=False,
    normalization=None,
    # An explanation of every repair would be kept, and is not used.
    explain=False,
)
"""Of what ftfy can do, the repair of wrong decoding alone; the rest would change text that is as it was written."""
MAX_LINE_LENGTH = 100_000
"""Characters of a line looked at as one: the repair reads a piece once for every encoding and every layer of damage."""


def repair_unicode(text: str) -> tuple[str, int]:
    """The text with wrongly decoded lines repaired, and how many those were.

    Lines are repaired one by one: a page that mixes sound and damaged lines keeps the sound ones as they are.
    """
    if text.isascii() or not is_bad(text):
        return text, 0
    # Only here: the other signs that end a line are among those that wrong decoding makes.
    lines = text.split("\n")
    repaired = 0
    for number, line in enumerate(lines):
        if line.isascii() or not is_bad(line):
            continue
        pieces = [line[start : start + MAX_LINE_LENGTH] for start in range(0, len(line), MAX_LINE_LENGTH)]
        lines[number] = "".join(ftfy.fix_encoding(piece, ENCODING_ONLY) for piece in pieces)
        repaired += lines[number] != line
    return "\n".join(lines), repaired


@daft.func.batch(return_dtype=DataType.struct({"text": DataType.string(), "repaired_lines": DataType.int64()}))
def _repaired(texts: Series) -> list[dict[str, Any]]:
    rows = []
    for text in texts.to_pylist():
        new, lines = (None, 0) if text is None else repair_unicode(text)
        rows.append({"text": new, "repaired_lines": lines})
    return rows


class RepairUnicode(Transform):
    """Repairs text that was decoded as another encoding than its own ("donâ€™t" was "don’t"), with ftfy (Speer 2019).

    Only lines that ftfy's heuristic of unlikely sequences marks are touched, so that sound text costs one search and
    ASCII nothing. What cannot be decoded any more stays as it is.
    """

    summary = "text decoded as another encoding than its own, repaired (ftfy: Speer 2019)"

    def transform(self, text: Expression) -> Expression:
        """The repaired text."""
        return self.repaired(text).get("text")

    def repaired(self, text: Expression) -> Expression:
        """A struct of `text` and `repaired_lines` (int64), for a caller that counts."""
        return _repaired(text)
