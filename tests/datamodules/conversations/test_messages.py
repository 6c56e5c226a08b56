"""Messages: every key of a turn is handed on, read, or a counted reason, and transcripts are turns."""

from typing import Any

import pytest

from datamodules.conversations.messages import Unusable, messages_of, transcript, unread_keys
from datamodules.conversations.row_formats import group_of, instruction, opening, preference, question

ASK, SAY = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}
MORE, OTHER = {"role": "user", "content": "So?"}, {"role": "assistant", "content": "No."}
SYSTEM = {"role": "system", "content": "Be kind."}
CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
CALLING = {"role": "assistant", "content": "", "tool_calls": [CALL]}
RESULT = {"role": "tool", "content": "18", "name": "f", "tool_call_id": "1"}


def unlearned(message: dict[str, Any]) -> dict[str, Any]:
    return message | {"weight": 0}


def reason(read: Any, row: Any) -> str:
    with pytest.raises(Unusable) as dropped:
        read(row)
    return str(dropped.value)


# Keys of a turn


def test_keys_that_templates_know_are_handed_on() -> None:
    thinking = SAY | {"reasoning_content": "Hm."}
    talk = [ASK | {"name": "Ann"}, CALLING, RESULT, thinking]
    assert messages_of(talk) == talk
    assert instruction({"messages": talk}) == talk
    assert question({"messages": talk}) == talk[:-1]
    assert preference({"chosen": talk, "rejected": [*talk[:-1], OTHER]}).sides() == (thinking, OTHER)
    assert unread_keys({"messages": talk}) == ()


def test_nothing_said_is_no_key() -> None:
    """A table, and many a program, gives every turn all keys."""
    empty = {"tool_calls": None, "name": "", "reasoning_content": None, "function_call": {}, "tool_call_id": None}
    assert messages_of([ASK | empty, SAY | empty | {"tool_calls": [], "weight": None}]) == [ASK, SAY]


@pytest.mark.parametrize("key", ["images", "image", "audio", "video", "prefix"])
def test_what_no_template_here_can_write_is_a_reason(key: str) -> None:
    for read in (instruction, question):
        assert reason(read, {"messages": [ASK | {key: ["x"]}, SAY]}) == f"unread_key: {key}"


def test_other_keys_are_counted() -> None:
    row = {"messages": [ASK | {"timestamp": 3, "weight": 1}, SAY | {"lang": "en", "id": None, "weight": 1}]}
    assert instruction(row) == [ASK, SAY]
    assert unread_keys(row) == ("lang", "timestamp", "weight of user")
    sides = {"prompt": [ASK | {"id": 1}], "chosen": [SAY | {"score": 2}], "rejected": "No."}
    assert unread_keys(sides) == ("id", "score")
    assert opening(messages_of(row["messages"])) == opening([ASK])


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([{"type": "text", "text": "Why?"}], "Why?"),
        ([{"type": "text", "text": "Wh"}, {"type": "text", "text": "y?"}], "Why?"),
    ],
)
def test_parts_of_text_are_text(content: Any, expected: str) -> None:
    assert instruction({"messages": [{"role": "user", "content": content}, SAY]}) == [ASK, SAY]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {}}], "content_part: image_url"),
        ([{"type": "text"}], "content_part: text"),
        ([3], "content_part: int"),
        ([], "invalid_messages"),
        (3, "invalid_messages"),
        ({"text": "a"}, "invalid_messages"),
        (None, "invalid_messages"),
    ],
)
def test_other_parts_are_a_reason(content: Any, expected: str) -> None:
    assert reason(instruction, {"messages": [{"role": "user", "content": content}, SAY]}) == expected


# Turns that are not learned, and rows that say so


@pytest.mark.parametrize("key", ["weight", "train", "training"])
def test_a_turn_of_no_weight_is_context(key: str) -> None:
    talk = [ASK, SAY | {key: 0 if key == "weight" else False}, MORE, OTHER | {key: 1 if key == "weight" else True}]
    assert instruction({"messages": talk}) == [ASK, unlearned(SAY), MORE, OTHER]
    # What was read is read again as the same.
    assert instruction({"messages": instruction({"messages": talk})}) == [ASK, unlearned(SAY), MORE, OTHER]
    assert question({"messages": talk}) == [ASK, SAY, MORE]
    assert preference({"chosen": talk, "rejected": [*talk[:3], SAY]}).prompt == [ASK, SAY, MORE]


@pytest.mark.parametrize("turn", [{"weight": 0.5}, {"weight": "0"}, {"train": "no"}, {"weight": 1, "train": False}])
def test_another_weight_is_a_reason(turn: dict[str, Any]) -> None:
    assert reason(instruction, {"messages": [ASK, SAY | turn]}) == "invalid_weight"


def test_a_row_whose_turns_have_no_weight_teaches_nothing() -> None:
    assert reason(instruction, {"messages": [ASK, SAY | {"weight": 0}]}) == "nothing_to_learn"
    pair = {"prompt": "Why?", "chosen": [SAY | {"weight": 0}], "rejected": [OTHER]}
    assert reason(preference, pair) == "nothing_to_learn"


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"label": False}, "label: false"),
        ({"label": 0}, "label: false"),
        ({"train": False}, "train: false"),
        ({"weight": 0}, "weight: 0"),
        ({"weight": 0.3}, "unread_key: weight"),
        ({"input": "the text"}, "unread_key: input"),
        ({"history": [["q", "a"]]}, "unread_key: history"),
        ({"system_prompt": "Be kind."}, "unread_key: system_prompt"),
        ({"tools": [{"type": "function"}]}, "unread_key: tools"),
        ({"functions": [{"name": "f"}]}, "unread_key: functions"),
        ({"images": ["x"]}, "unread_key: images"),
        ({"system": 3}, "unread_key: system"),
    ],
)
def test_keys_of_a_row_that_change_what_is_meant_are_a_reason(keys: dict[str, Any], expected: str) -> None:
    row = {"prompt": "Why?", "response": "Because.", "chosen": "Because.", "rejected": "No."} | keys
    assert reason(instruction, row) == expected
    if expected.startswith("unread_key") and expected != "unread_key: weight":
        assert reason(preference, row) == expected
        assert reason(question, row) == expected
    else:  # it says what is to be imitated; a reward may read it
        assert question(row) == [ASK]
        assert preference(row).prompt == [ASK] if "label" in keys else reason(preference, row) == expected


def test_keys_that_say_nothing_else_are_no_reason() -> None:
    row = {"prompt": "Why?", "response": "Because.", "input": "", "history": [], "system": None, "label": True}
    assert instruction(row | {"weight": 1.0, "train": True, "tools": None}) == [ASK, SAY]
    assert instruction({"messages": [ASK, SAY], "input": "Why?", "history": [["q", "a"]]}) == [ASK, SAY]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Why?", "response": "Because.", "chosen": "Because.", "rejected": "No."},
        {"prompt": [SYSTEM, ASK], "response": "Because.", "chosen": [SAY], "rejected": "No."},
        {"prompt": "Why?", "response": [ASK, SAY], "chosen": [ASK, SAY], "rejected": [SYSTEM, ASK, OTHER]},
        {"messages": [ASK, SAY], "chosen": [ASK, SAY], "rejected": [ASK, OTHER]},
        {"messages": [SYSTEM, ASK, SAY], "chosen": [SYSTEM, ASK, SAY], "rejected": [ASK, OTHER]},
    ],
)
def test_the_system_message_of_a_row_is_its_first(row: dict[str, Any]) -> None:
    row = row | {"system": "Be kind."}
    assert instruction(row) == [SYSTEM, ASK, SAY]
    assert preference(row).prompt == [SYSTEM, ASK]
    assert question(row) == [SYSTEM, ASK]
    assert len({group_of(row, found) for found in (instruction(row), preference(row).prompt, question(row))}) == 1


def test_two_system_messages_are_a_reason() -> None:
    row = {"system": "Be curt.", "messages": [SYSTEM, ASK, SAY]}
    assert reason(instruction, row) == reason(question, row) == "two_system_messages"


# Turns with nothing in them


def test_an_empty_turn_is_never_learned() -> None:
    empty = {"role": "assistant", "content": " \n"}
    assert reason(instruction, {"messages": [ASK, empty, MORE, SAY]}) == "empty_response"
    assert reason(instruction, {"messages": [ASK, SAY, MORE, empty]}) == "empty_response"
    assert reason(instruction, {"messages": [ASK, empty | {"reasoning_content": "Hm."}]}) == "empty_response"
    assert instruction({"messages": [ASK, unlearned(empty), MORE, SAY]})[1] == unlearned(empty)
    assert instruction({"messages": [ASK, CALLING]}) == [ASK, CALLING]
    null = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    assert instruction({"messages": [ASK, null, RESULT, SAY]}) == [ASK, null, RESULT, SAY]
    assert reason(preference, {"chosen": [ASK, empty], "rejected": [ASK, SAY]}) == "empty_response"
    assert preference({"chosen": [ASK, CALLING], "rejected": [ASK, SAY]}).sides() == (CALLING, SAY)


# Prompts


def test_of_a_prompt_and_a_response_only_the_response_is_learned() -> None:
    row = {"prompt": [ASK, SAY, MORE], "response": "No."}
    assert instruction(row) == [ASK, unlearned(SAY), MORE, OTHER]
    assert question(row) == [ASK, SAY, MORE]
    assert instruction({"prompt": [ASK], "response": [SAY, MORE, OTHER]}) == [ASK, SAY, MORE, OTHER]
    assert instruction({"prompt": [ASK, SAY, MORE], "response": [ASK, SAY, MORE, OTHER]}) == instruction(row)


HH = "\n\nHuman: Why?\n\nAssistant: Because.\n\nHuman: So?"


@pytest.mark.parametrize("end", ["", "\n\nAssistant:", "\n\nAssistant: "])
@pytest.mark.parametrize("start", ["", "\n\n"])
def test_a_transcript_as_prompt_is_its_turns(start: str, end: str) -> None:
    row = {"prompt": start + HH.removeprefix("\n\n") + end, "response": "No.", "chosen": " No.", "rejected": "Yes."}
    assert question(row) == preference(row).prompt == [ASK, SAY, MORE]
    assert instruction(row) == [ASK, unlearned(SAY), MORE, OTHER]
    whole = {"chosen": f"{HH}\n\nAssistant: No.", "rejected": f"{HH}\n\nAssistant: Yes."}
    assert preference(row | whole) == preference(whole)
    assert question(whole) == question(row)
    assert reason(instruction, row | {"response": HH.replace("Why", "Who") + "\n\nAssistant: No."}) == (
        "different_prompts"
    )


@pytest.mark.parametrize("text", ["Human: is that a word?", "What is\n\nHuman: here?", "Assistant: a play", "Humans"])
def test_text_that_only_mentions_a_speaker_is_one_turn(text: str) -> None:
    assert question({"prompt": text}) == [{"role": "user", "content": text}]


def test_a_transcript_may_begin_with_the_assistant() -> None:
    hello = {"role": "assistant", "content": "Hello."}
    assert question({"prompt": "\n\nAssistant: Hello.\n\nHuman: Why?\n\nAssistant:"}) == [hello, ASK]
    assert transcript("Human: Hi") == transcript("\n\nHuman: Hi")


@pytest.mark.parametrize("prompt", [[ASK, SAY], "\n\nHuman: Why?\n\nAssistant: Be"])
def test_a_prompt_that_ends_in_an_answer_is_a_reason(prompt: Any) -> None:
    row = {"prompt": prompt, "response": "x", "chosen": "x", "rejected": "y"}
    for read in (instruction, preference, question):
        assert reason(read, row) == "prompt_ends_with_a_response"


@pytest.mark.parametrize(
    ("prompt", "side"),
    [
        ("Why?", [SYSTEM, ASK]),
        ([SYSTEM, ASK], [ASK]),
        ("Who?", [ASK]),
        ([MORE, SAY, ASK], [ASK]),
        ("Why?", [ASK | {"name": "Ann"}]),
    ],
)
def test_a_prompt_is_never_said_twice(prompt: Any, side: list[Any]) -> None:
    row = {"prompt": prompt, "chosen": [*side, SAY], "rejected": [*side, OTHER], "response": [*side, SAY]}
    assert reason(preference, row) == reason(instruction, row) == "different_prompts"


@pytest.mark.parametrize("said", ["Why? ", " Why?\n", "Why?"])
def test_space_around_a_prompt_makes_no_other(said: str) -> None:
    pair = preference({"prompt": "Why?", "chosen": [ASK | {"content": said}, SAY], "rejected": [OTHER]})
    assert (pair.prompt, pair.chosen, pair.rejected) == ([ASK], "Because.", "No.")


# Groups


@pytest.mark.parametrize(("group", "name"), [(0, "0"), ("", ""), (3, "3"), (3.0, "3"), ("a", "a"), (False, "False")])
def test_any_group_but_null_is_one(group: Any, name: str) -> None:
    """A table makes a float of a whole number, and 0 is a number."""
    assert group_of({"group": group}, [ASK]) == name


@pytest.mark.parametrize("row", [{}, {"group": None}, {"group": float("nan")}])
def test_without_a_group_the_opening_is_it(row: dict[str, Any]) -> None:
    assert group_of(row, [ASK, SAY]) == opening([ASK, SAY]) == '[{"role": "user", "content": "Why?"}]'


def test_conversations_that_the_assistant_opens_have_openings_of_their_own() -> None:
    first, second = ([SAY, {"role": "user", "content": text}] for text in ("a", "b"))
    assert opening([*first, OTHER]) == opening(first) != opening(second)
    assert opening([SYSTEM, *first, OTHER, MORE]) == opening([SYSTEM, *first])
    assert opening([SYSTEM, SAY]) == opening([SYSTEM])
    assert opening([SAY]) != opening([OTHER])


# Refusals


@pytest.mark.parametrize("read", [instruction, preference, question])
@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "a", "input": "", "output": "b"},
        {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
        {"question": "a", "answer": "b #### 3"},
    ],
)
def test_rows_of_other_formats_say_what_they_have_and_what_is_read(read: Any, row: dict[str, Any]) -> None:
    with pytest.raises(Unusable) as dropped:
        read(row)
    assert str(dropped.value) in ("missing_keys", "no_prompt")
    assert f"a row has {', '.join(row)}: give it `" in dropped.value.advice
