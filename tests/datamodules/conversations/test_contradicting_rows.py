"""Rows that say two things, or say by a key beside the conversation what it means."""

from typing import Any

import pytest

from datamodules.conversations.messages import Unusable
from datamodules.conversations.row_formats import instruction, preference, question

SYSTEM = {"role": "system", "content": "Be kind."}
HELLO = {"role": "assistant", "content": "Hello."}
ASK, SAY = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}
OTHER, MORE = {"role": "assistant", "content": "No."}, {"role": "user", "content": "So?"}
ROW = {"prompt": "Why?", "response": "Because."}


def reason(read: Any, row: dict[str, Any]) -> str:
    with pytest.raises(Unusable) as caught:
        read(row)
    return str(caught.value)


def test_the_system_message_of_a_row_is_before_a_conversation_that_the_assistant_begins() -> None:
    head = [SYSTEM, HELLO, ASK]
    row = {"system": "Be kind.", "messages": [HELLO, ASK, SAY]}
    assert instruction(row) == [*head, SAY]
    assert question(row) == head
    pair = {"system": "Be kind.", "chosen": [HELLO, ASK, SAY], "rejected": [HELLO, ASK, OTHER]}
    assert preference(pair).prompt == question(pair) == head
    apart = {"system": "Be kind.", "prompt": [HELLO, ASK], "response": "Because.", "chosen": [SAY], "rejected": "No."}
    assert instruction(apart)[:2] == [SYSTEM, HELLO | {"weight": 0}]
    assert preference(apart).prompt == question(apart) == head
    spoken = {"system": "Be kind.", "prompt": "\n\nAssistant: Hello.\n\nHuman: Why?\n\nAssistant:"}
    assert question(spoken) == head
    assert reason(preference, {"system": "Be kind.", "chosen": [SAY], "rejected": [OTHER]}) == "no_response"


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"label": "false"}, "label: false"),
        ({"label": "0"}, "label: false"),
        ({"label": "No"}, "label: false"),
        ({"label": -1}, "unread_key: label"),
        ({"label": "bad"}, "unread_key: label"),
        ({"label": [0]}, "unread_key: label"),
        ({"train": "false"}, "train: false"),
        ({"train": "no"}, "train: false"),
        ({"train": "perhaps"}, "unread_key: train"),
        ({"train": 2}, "unread_key: train"),
        ({"training": False}, "training: false"),
        ({"training": " FALSE "}, "training: false"),
        ({"weight": "0"}, "weight: 0"),
        ({"weight": "0.0"}, "weight: 0"),
        ({"weight": "heavy"}, "unread_key: weight"),
    ],
)
def test_a_row_that_is_not_to_be_learned_is_dropped_however_it_says_so(keys: dict[str, Any], expected: str) -> None:
    for row in (ROW, {"messages": [ASK, SAY]}):
        assert reason(instruction, row | keys) == expected
    if "label" not in keys:
        assert reason(preference, {"prompt": "Why?", "chosen": "a", "rejected": "b"} | keys) == expected


@pytest.mark.parametrize("yes", [True, 1, 1.0, "true", "True", "1", "1.0", "yes", None, ""])
def test_a_row_that_is_to_be_learned_is(yes: Any) -> None:
    for key in ("label", "train", "training", "weight"):
        assert instruction(ROW | {key: yes}) == [ASK, SAY]


@pytest.mark.parametrize(
    "keys",
    [
        {"messages": [ASK, SAY, MORE], "response": "No."},
        {"messages": [ASK, SAY], "response": "No."},
        {"messages": [ASK, SAY], "prompt": "So?"},
        {"messages": [ASK, SAY], "prompt": [MORE], "response": "Because."},
    ],
)
def test_messages_and_a_prompt_or_response_that_contradict_them_drop_the_row(keys: dict[str, Any]) -> None:
    assert reason(instruction, keys) in ("messages_and_prompt_differ", "messages_and_response_differ")
    if "prompt" in keys:
        assert reason(question, keys) == "messages_and_prompt_differ"


@pytest.mark.parametrize(
    "keys",
    [
        {"prompt": "Why?", "response": "Because."},
        {"prompt": " Why?\n"},
        {"response": " Because."},
        {"prompt": [ASK], "response": [SAY]},
        {"prompt": [SYSTEM, ASK]},
        {"prompt": "", "response": None},
    ],
)
@pytest.mark.parametrize("head", [[], [SYSTEM]])
def test_messages_beside_the_same_prompt_and_response_are_read(keys: dict[str, Any], head: list[Any]) -> None:
    assert instruction({"messages": [*head, ASK, SAY]} | keys) == [*head, ASK, SAY]


def test_the_first_prompt_of_longer_messages_is_no_contradiction() -> None:
    """As UltraChat has it."""
    row = {"prompt": "Why?", "messages": [ASK, SAY, MORE, OTHER]}
    assert instruction(row) == [ASK, SAY, MORE, OTHER]
    assert question(row) == [ASK]


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking", "tool_calls", "function_call"])
def test_what_a_response_says_beside_its_text_is_not_lost(key: str) -> None:
    assert reason(instruction, ROW | {key: "Hm."}) == f"unread_key: {key}"
    assert question(ROW | {key: "Hm."}) == [ASK]
    assert instruction(ROW | {key: None}) == instruction({"messages": [ASK, SAY], key: "Hm."}) == [ASK, SAY]


@pytest.mark.parametrize("key", ["context", "instruction", "documents", "input"])
def test_what_belongs_to_a_prompt_is_not_lost(key: str) -> None:
    pair = {"chosen": "a", "rejected": "b"}
    for read in (instruction, preference, question):
        assert reason(read, ROW | pair | {key: "The sky is blue."}) == f"unread_key: {key}"
    # What the prompt says already is there.
    row = ROW | {"prompt": "The sky is blue. Why?"} | {key: "The sky is blue."}
    assert question(row) == [{"role": "user", "content": "The sky is blue. Why?"}]
    assert reason(instruction, {"messages": [ASK, SAY], "documents": ["x"]}) == "unread_key: documents"
