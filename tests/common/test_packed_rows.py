"""Layout of a prompt with branched responses, token by token."""

import pytest

from common.constants import IGNORE
from common.packed_rows import branched_document, join_documents, response_ends


def test_every_branch_begins_with_the_last_token_of_the_prompt() -> None:
    document = branched_document([1, 2, 3], [[4, 5], [6]])
    assert document["tokens"].tolist() == [1, 2, 3, 4, 5, 3, 6]
    assert document["labels"].tolist() == [IGNORE, IGNORE, 4, 5, IGNORE, 6, IGNORE]
    assert document["branch_ids"].tolist() == [0, 0, 1, 1, 1, 2, 2]
    assert document["response_ids"].tolist() == [-1, -1, 0, 0, -1, 1, -1]


def test_a_single_response_continues_its_prompt() -> None:
    document = branched_document([1, 2], [[3, 4]])
    assert document["tokens"].tolist() == [1, 2, 3, 4]
    assert document["branch_ids"].tolist() == [0, 0, 0, 0]
    assert document["response_ids"].tolist() == [-1, 0, 0, -1]
    assert branched_document([1, 2], [[3, 4]], keep_last_token=False)["tokens"].tolist() == [1, 2, 3]


def test_responses_are_numbered_through_the_row() -> None:
    documents = [branched_document([1, 2], [[3], [4, 5]]), branched_document([6], [[7]])]
    row = join_documents(documents, length=10, pad=9)
    assert row["tokens"].tolist() == [1, 2, 3, 2, 4, 5, 6, 7, 9, 9]
    assert row["response_ids"].tolist() == [-1, 0, -1, 1, 1, -1, 2, -1, -1, -1]
    assert row["document_ids"].tolist() == [0, 0, 0, 0, 0, 0, 1, 1, -1, -1]
    assert row["labels"].tolist()[-2:] == [IGNORE, IGNORE]
    assert response_ends(row).tolist() == [2, 5, 7]


@pytest.mark.parametrize(
    ("prompt", "responses", "keep"), [([], [[1]], True), ([], [[1]], False), ([1], [[2], []], False)]
)
def test_empty_sequences_are_refused(prompt: list[int], responses: list[list[int]], keep: bool) -> None:
    with pytest.raises(ValueError, match="at least one token"):
        branched_document(prompt, responses, keep_last_token=keep)


def test_a_response_without_tokens_ends_where_its_prompt_does() -> None:
    row = join_documents([branched_document([1, 2], [[], [3], []]), branched_document([4], [[]])], length=8)
    assert row["tokens"].tolist() == [1, 2, 2, 3, 2, 4, 0, 0]
    assert row["response_ids"].tolist() == [-1, -1, 1, -1, -1, -1, -1, -1]
    assert response_ends(row).tolist() == [1, 3, 4, 5]
