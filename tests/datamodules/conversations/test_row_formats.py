"""Rows of every documented spelling, and every reason to drop one."""

from typing import Any

import pytest

from datamodules.conversations.messages import Unusable, transcript
from datamodules.conversations.row_formats import Preference, instruction, preference

ASK, SAY = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}
OTHER = {"role": "assistant", "content": "No."}
HH = "\n\nHuman: Why?\n\nAssistant: Hm.\n\nHuman: So?\n\nAssistant: {}"


@pytest.mark.parametrize(
    "row", [{"messages": [ASK, SAY]}, {"prompt": "Why?", "response": "Because."}, {"prompt": [ASK], "response":
    "Because."}]
)  # fmt: skip
def test_instructions(row: dict[str, Any]) -> None:
    assert instruction(row) == [ASK, SAY]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Why?", "chosen": "Because.", "rejected": "No."},
        {"prompt": [ASK], "chosen": [SAY], "rejected": [OTHER]},
        {"prompt": "Why?", "chosen": [ASK, SAY], "rejected": [ASK, OTHER]},
        {"chosen": [ASK, SAY], "rejected": [ASK, OTHER]},
        {"chosen": "\n\nHuman: Why?\n\nAssistant: Because.", "rejected": "\n\nHuman: Why?\n\nAssistant: No."},
    ],
)
def test_preferences(row: dict[str, Any]) -> None:
    assert preference(row) == Preference([ASK], "Because.", "No.")


def test_margins() -> None:
    row = {"prompt": "a", "chosen": "b", "rejected": "c"}
    assert preference(row | {"margin": 2}).margin == 2.0
    assert preference(row | {"score_chosen": 3.5, "score_rejected": 1}).margin == 2.5
    with pytest.raises(Unusable, match="invalid_margin"):
        preference(row | {"margin": float("nan")})


def test_soft_labels() -> None:
    row = {"prompt": "a", "chosen": "b", "rejected": "c"}
    assert preference(row).probability == 1.0
    for value in (0, 0.5, 0.75, 1):
        assert preference(row | {"preference_probability": value}).probability == value
    for wrong in (-0.1, 1.5, "0.7", True, float("nan")):
        with pytest.raises(Unusable, match="invalid_preference_probability"):
            preference(row | {"preference_probability": wrong})


def test_transcripts_in_hh_format() -> None:
    pair = preference({"chosen": HH.format("Yes"), "rejected": HH.format("No")})
    assert [message["role"] for message in pair.prompt] == ["user", "assistant", "user"]
    assert (pair.chosen, pair.rejected) == ("Yes", "No")
    assert transcript("Human: Hi") == transcript("\n\nHuman: Hi")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "a", "chosen": "b"}, "missing_keys"),
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "equal_responses"),
        ({"prompt": "a", "chosen": "b", "rejected": " "}, "empty_response"),
        ({"prompt": "a", "chosen": 3, "rejected": "b"}, "invalid_messages"),
        ({"prompt": 3, "chosen": "c", "rejected": "b"}, "invalid_messages"),
        ({"chosen": "no turns", "rejected": "b"}, "no_transcript"),
        ({"chosen": HH.format("a"), "rejected": "\n\nHuman: Other\n\nAssistant: b"}, "different_prompts"),
        ({"chosen": "\n\nHuman: alone", "rejected": "\n\nHuman: alone"}, "no_response"),
        ({"prompt": "a", "chosen": [ASK], "rejected": [SAY]}, "no_response"),
        ({"chosen": [{"role": "wizard", "content": "x"}], "rejected": [SAY]}, "invalid_messages"),
    ],
)
def test_unusable_pairs_have_a_reason(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(Unusable, match=f"^{reason}$"):
        preference(row)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"text": "a"}, "missing_keys"),
        ({"messages": []}, "invalid_messages"),
        ({"messages": [ASK]}, "no_response"),
        ({"messages": [ASK, {"role": "assistant", "content": None}]}, "invalid_messages"),
        ({"prompt": "a", "response": ""}, "empty_response"),
    ],
)
def test_unusable_instructions_have_a_reason(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(Unusable, match=f"^{reason}$"):
        instruction(row)
