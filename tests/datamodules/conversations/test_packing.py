"""Nothing is lost, split or mixed up on the way from examples to rows."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from common.constants import IGNORE
from datamodules.conversations.packing import fill_row, lay_out_conversation, lay_out_pair, pack


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


def test_a_pair_is_a_prompt_with_two_branches() -> None:
    part = lay_out_pair(np.array([1, 5, 6]), [np.array([7, 8, 2]), np.array([9, 2])])
    assert part["tokens"].tolist() == [1, 5, 6, 7, 8, 2, 6, 9, 2]
    assert part["branch_ids"].tolist() == [0, 0, 1, 1, 1, 1, 2, 2, 2]
    assert part["labels"].tolist() == [IGNORE, IGNORE, 7, 8, 2, IGNORE, 9, 2, IGNORE]
    assert part["response_ids"].tolist() == [-1, -1, 0, 0, 0, -1, 1, 1, -1]


def test_a_row_ends_in_padding_that_is_a_document_of_its_own() -> None:
    pair = lay_out_pair(np.array([1]), [np.array([7]), np.array([9])])
    row = fill_row([pair, pair], 12, pad=3)
    assert row["tokens"].tolist() == [1, 7, 1, 9, 1, 7, 1, 9, 3, 3, 3, 3]
    assert row["document_ids"].tolist() == [0] * 4 + [1] * 4 + [-1] * 4
    assert row["labels"].tolist()[8:] == [IGNORE] * 4
    assert row["response_ids"].tolist()[8:] == [-1] * 4
