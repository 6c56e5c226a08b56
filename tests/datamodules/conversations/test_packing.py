"""Nothing is lost, split or mixed up on the way from examples to rows."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from common.constants import IGNORE
from datamodules.conversations.packing import lay_out_conversation, pack


@settings(max_examples=100, deadline=None)
@given(lengths=st.lists(st.integers(1, 50), max_size=60), spare=st.integers(0, 30))
def test_every_example_is_in_one_row_that_holds_it(lengths: list[int], spare: int) -> None:
    capacity = max(lengths, default=1) + spare
    rows = pack(lengths, capacity)
    assert sorted(number for row in rows for number in row) == list(range(len(lengths)))
    assert all(sum(lengths[number] for number in row) <= capacity for row in rows)
    # No two rows would fit into one: at most one is half empty.
    assert sum(2 * sum(lengths[number] for number in row) <= capacity for row in rows) <= 1


def test_labels_of_a_conversation_are_the_learned_next_tokens() -> None:
    part = lay_out_conversation(np.array([1, 5, 6, 7, 2]), np.array([False, False, True, True, True]))
    assert part["tokens"].tolist() == [1, 5, 6, 7]
    assert part["labels"].tolist() == [IGNORE, 6, 7, 2]
