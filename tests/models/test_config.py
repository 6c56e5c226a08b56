"""Shapes that cannot work are refused."""

import pytest

from common.errors import InputError
from models.config import DecoderConfig


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"heads": 6, "key_value_heads": 4, "width": 48}, "key_value_heads=4 does not divide heads=6"),
        ({"heads": 3, "key_value_heads": 1}, "heads=3 does not divide width=64"),
        ({"layers": 0}, "layers=0"),
        ({"head_width": 7}, "head_width=7: rotary"),
    ],
)
def test_bad_shapes_are_refused(changes: dict[str, int], named: str) -> None:
    shape = {"vocabulary_size": 32, "width": 64, "layers": 1, "heads": 4, "key_value_heads": 2, **changes}
    with pytest.raises(InputError, match=named):
        DecoderConfig(**shape)
