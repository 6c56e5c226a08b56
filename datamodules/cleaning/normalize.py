"""Text in one canonical form, before anything is measured or compared."""

import unicodedata

import daft
from daft import DataType, Expression, Series
from daft.functions import regexp_replace

from datamodules.cleaning.step import Rewrite


@daft.func.batch(return_dtype=DataType.string())
def _nfc(texts: Series) -> list[str | None]:
    return [
        text if text is None or text.isascii() else unicodedata.normalize("NFC", text) for text in texts.to_pylist()
    ]


class Normalize(Rewrite):
    """Unicode NFC, line feeds for all line ends, no control characters, no blanks at line ends, one final line feed.

    Indentation and blank lines inside stay: in code they carry meaning.
    """

    def rewrite(self, text: Expression) -> Expression:
        """The normalised text."""
        text = regexp_replace(_nfc(text), r"\r\n?", "\n")
        text = regexp_replace(text, r"[\x00-\x08\x0b-\x1f\x7f\u{feff}]", "")
        text = regexp_replace(text, r"[ \t]+\n", "\n")
        return regexp_replace(text, r"\s*\z", "\n")
