"""Length filter: the cheapest rule, and therefore the first of every source."""

import daft
from daft import Expression, lit
from daft.functions import length, length_bytes

from datamodules.curation.filters.base import Filter, Threshold


class Length(Filter):
    """Documents of a useful length.

    Args:
        min_characters: shorter ones are dropped as `too_short`; FineWeb's code takes none below a few sentences,
            200 characters are about that.
        max_characters: longer ones are dropped as `too_long`; 1,000,000 is The Stack's bound of 1 MB per file.
    """

    summary = "length in characters"

    def __init__(self, min_characters: int = 200, max_characters: int = 1_000_000) -> None:
        self.min_characters, self.max_characters = min_characters, max_characters

    def measures(self, text: Expression) -> dict[str, Expression]:
        """Characters."""
        return {"characters": length(text)}

    def thresholds(self) -> dict[str, Threshold]:
        """`too_short`, `too_long`."""
        return {
            "too_short": Threshold("characters", "<", self.min_characters),
            "too_long": Threshold("characters", ">", self.max_characters),
        }


def bytes_of(text: Expression) -> Expression:
    """Bytes of UTF-8, 0 for no text."""
    return length_bytes(text).cast(daft.DataType.int64()).fill_null(lit(0).cast(daft.DataType.int64()))
