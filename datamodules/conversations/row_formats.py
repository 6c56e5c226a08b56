"""Row formats: instruction, preference and prompt rows recognized by their keys.

Every public data set spells this differently; the spellings that are read here are those of the formats' own
documentation. A row that says neither, or something else beside it, is dropped under a reason, never repaired by
guessing.
"""

import itertools
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from common.constants import Messages
from datamodules.conversations.messages import (
    FLAGS,
    WEIGHT,
    Unusable,
    alike,
    context_of,
    is_empty,
    is_said,
    is_transcript,
    messages_of,
    prompt_of,
    text_of,
    transcript,
    unlearned,
)

MAX_FLOAT32 = 3e38
"""Margins are stored as float32."""
UNREAD = ("audio", "documents", "functions", "image", "images", "tools", "video", "videos")
"""Keys of a row that no template here writes, though a response may rest on them."""
UNREAD_BESIDE_PROMPT = ("context", "history", "input", "instruction", "system_prompt")
"""Keys of a row that belong to its `prompt` where that is text, unless their text is in it."""
UNREAD_BESIDE_RESPONSE = ("function_call", "reasoning", "reasoning_content", "thinking", "tool_calls")
"""Keys of a row that belong to its `response`."""
YES, NO = frozenset({"true", "1", "1.0", "yes"}), frozenset({"false", "0", "0.0", "no"})
"""What booleans and numbers of a row are where a table has made text of them."""


@dataclass(frozen=True)
class Preference:
    """A prompt with the response that was preferred and the one that was not.

    Attributes:
        prompt: ends with what is to be responded to.
        chosen, rejected: the responses.
        margin: by how much chosen is better; 0 where the data does not say.
        probability: that chosen is the better one, 1 where the data does not doubt it.
        further: keys of either response beside its text, which the template writes.
    """

    prompt: Messages
    chosen: str
    rejected: str
    margin: float = 0.0
    probability: float = 1.0
    further: tuple[dict[str, Any], dict[str, Any]] = field(default_factory=lambda: ({}, {}))

    def sides(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Both responses as messages."""
        chosen, rejected = (
            {"role": "assistant", "content": text} | keys
            for text, keys in zip((self.chosen, self.rejected), self.further, strict=True)
        )
        return chosen, rejected


def instruction(row: dict[str, Any]) -> Messages:
    """The conversation of a row with `messages`, or with `prompt` (text or messages) and `response`.

    The assistant's turns are learned, but for those of a `prompt` and those of no weight, which have `weight: 0`.

    Raises:
        Unusable: with the reason.
    """
    _refuse_unread(row)
    _refuse_unlearned(row, "label", *FLAGS, WEIGHT)
    if row.get("messages") is not None:
        messages = _with_system(row, messages_of(row["messages"]))
        _refuse_another_prompt(row, messages)
        _refuse_another_response(row, messages)
    elif row.get("prompt") is not None and row.get("response") is not None:
        prompt = _with_system(row, prompt_of(row["prompt"]))
        _refuse_said(row, UNREAD_BESIDE_RESPONSE)
        response = _after(row, prompt, row["response"])
        _refuse_answered(prompt if response[0]["role"] == "assistant" else [])
        messages = [*unlearned(prompt), *response]
    else:
        raise _missing_keys(row, "`messages`, or `prompt` and `response`")
    responses = [message for message in messages if message["role"] == "assistant"]
    learned = [message for message in responses if WEIGHT not in message]
    if not responses or any(map(is_empty, learned)):
        raise Unusable("empty_response" if responses else "no_response")
    if not learned:
        raise Unusable("nothing_to_learn")
    return messages


def preference(row: dict[str, Any]) -> Preference:
    """The pair of a row with `prompt`, `chosen` and `rejected`, or with two transcripts as HH-RLHF has them.

    Responses are text, or lists of messages that end with the response. `margin`, or the difference of `score_chosen`
    and `score_rejected`, is taken where it is given, and so is `preference_probability`, a soft label.

    Raises:
        Unusable: with the reason.
    """
    if row.get("chosen") is None or row.get("rejected") is None:
        raise _missing_keys(row, "`prompt`, `chosen` and `rejected`, or two conversations as `chosen` and `rejected`")
    _refuse_unread(row)
    _refuse_unlearned(row, *FLAGS, WEIGHT)
    if row.get("prompt") is not None:
        head = _with_system(row, prompt_of(row["prompt"]))
        sides = [_ends([*head, *_after(row, head, row[side])]) for side in ("chosen", "rejected")]
    else:
        sides = [_split(row, side) for side in ("chosen", "rejected")]
    (prompt, chosen), (other_prompt, rejected) = sides
    if prompt != other_prompt:
        raise Unusable("different_prompts")
    _refuse_answered(prompt)
    if is_empty(chosen) or is_empty(rejected):
        raise Unusable("empty_response")
    if WEIGHT in chosen or WEIGHT in rejected:
        raise Unusable("nothing_to_learn")
    if chosen == rejected:
        raise Unusable("equal_responses")
    first, second = (
        {key: value for key, value in response.items() if key not in ("role", "content")}
        for response in (chosen, rejected)
    )
    texts = (chosen["content"] or "", rejected["content"] or "")
    return Preference(prompt, *texts, _margin(row), _probability(row), (first, second))


def question(row: dict[str, Any]) -> Messages:
    """The prompt of a row: its `prompt` (text, transcript or messages), the conversation in `messages` or in `chosen`
    (messages, or a transcript as HH-RLHF has them) up to its last response. Ends with a message that is not the
    assistant's.

    Raises:
        Unusable: with the reason.
    """
    _refuse_unread(row)
    if row.get("prompt") is not None:
        messages = context_of(_with_system(row, prompt_of(row["prompt"])))
        if row.get("messages") is not None:
            _refuse_another_prompt(row, messages_of(row["messages"]))
    elif row.get("messages") is not None:
        messages = context_of(_with_system(row, messages_of(row["messages"])))
        messages = messages[:-1] if messages[-1]["role"] == "assistant" else messages
    elif row.get("chosen") is not None:
        messages, _ = _split(row, "chosen")
        if row.get("rejected") is not None and _split(row, "rejected")[0] != messages:
            raise Unusable("different_prompts")
    else:
        raise _missing_keys(row, "`prompt`, `messages` or `chosen`", "no_prompt")
    if not messages or all(map(is_empty, messages)):
        raise Unusable("empty_prompt")
    _refuse_answered(messages)
    return messages


def opening(messages: Messages) -> str:
    """Text before the first response to a user: the group of conversations that begin alike."""
    asked = next((number for number, message in enumerate(messages) if message["role"] == "user"), 0)
    responses = (n for n, message in enumerate(messages) if n >= asked and message["role"] == "assistant")
    said = messages[: next(responses, len(messages))] or messages
    return json.dumps([{"role": one["role"], "content": one["content"]} for one in said], ensure_ascii=False)


def group_of(row: dict[str, Any], messages: Messages) -> str:
    """Name of the group that a row never leaves: its `group`, else the opening of its conversation."""
    group = row.get("group")
    if isinstance(group, float):
        # A table makes floats of whole numbers where one is missing.
        group = None if math.isnan(group) else int(group) if group.is_integer() else group
    return opening(messages) if group is None else str(group)


def _with_system(row: dict[str, Any], messages: Messages) -> Messages:
    """A conversation with the row's `system` in front, unless it is there."""
    if not is_said(row.get("system")):
        return messages
    if not isinstance(row["system"], str):
        raise Unusable("unread_key: system")
    system = [{"role": "system", "content": text_of(row["system"])}]
    if messages[0]["role"] != "system":
        return [*system, *messages]
    if not alike(system, messages[:1]):
        raise Unusable("two_system_messages")
    return messages


def _conversation(value: Any) -> Messages:
    """A conversation: messages, or a transcript."""
    return transcript(value) if isinstance(value, str) else messages_of(value)


def _split(row: dict[str, Any], side: str) -> tuple[Messages, dict[str, Any]]:
    """Prompt and response of a whole conversation."""
    messages = _conversation(row[side])
    if len(messages) < 2:
        raise Unusable("no_response")
    return _ends(_with_system(row, messages))


def _ends(messages: Messages) -> tuple[Messages, dict[str, Any]]:
    """Prompt and response of a conversation that ends with the response."""
    if messages[-1]["role"] != "assistant":
        raise Unusable("no_response")
    return context_of(messages[:-1]), messages[-1]


def _after(row: dict[str, Any], prompt: Messages, value: Any) -> Messages:
    """Messages after a prompt that is given apart: a response, or a conversation that repeats the prompt or goes on."""
    if isinstance(value, str) and not is_transcript(value):
        return [{"role": "assistant", "content": value}]
    messages = _conversation(value)
    if messages[-1]["role"] != "assistant":
        raise Unusable("no_response")
    if messages[0]["role"] != "assistant" or alike(messages[: len(prompt) - 1], prompt[1:]):
        # It repeats the prompt, which has the row's system message.
        messages = _with_system(row, messages)
    if len(messages) > len(prompt) and alike(messages[: len(prompt)], prompt):
        return messages[len(prompt) :]
    if messages[0]["role"] != "assistant":
        raise Unusable("different_prompts")
    return messages


def _refuse_unread(row: dict[str, Any]) -> None:
    """Refuse a row with a key that changes what is meant and is not read."""
    prompt = row.get("prompt")
    keys = (*UNREAD, *UNREAD_BESIDE_PROMPT) if isinstance(prompt, str) else UNREAD
    prompt = prompt if isinstance(prompt, str) else ""
    _refuse_said(row, (key for key in keys if not (isinstance(row.get(key), str) and row[key].strip() in prompt)))


def _refuse_said(row: dict[str, Any], keys: Iterable[str]) -> None:
    for key in keys:
        if is_said(row.get(key)):
            raise Unusable(f"unread_key: {key}")


def _refuse_unlearned(row: dict[str, Any], *keys: str) -> None:
    """Refuse a row that says of itself, under one of the keys, that it is not to be learned, or half."""
    for key in keys:
        value = row.get(key)
        said = str(value).strip().lower() if isinstance(value, str | bool | int | float) else None
        if said in NO:
            raise Unusable(f"{key}: {'0' if key == WEIGHT else 'false'}")
        if is_said(value) and said not in YES:
            raise Unusable(f"unread_key: {key}")


def _refuse_another_prompt(row: dict[str, Any], messages: Messages) -> None:
    """Refuse a row whose `prompt` is not what its `messages` begin with; the system message is said once."""
    if not is_said(row.get("prompt")):
        return
    said, given = (
        [message for message in each if message["role"] != "system"] for each in (prompt_of(row["prompt"]), messages)
    )
    if not alike(said, given[: len(said)]):
        raise Unusable("messages_and_prompt_differ")


def _refuse_another_response(row: dict[str, Any], messages: Messages) -> None:
    """Refuse a row whose `response` is not what its `messages` end with."""
    if not is_said(row.get("response")):
        return
    response = _after(row, messages[:-1], row["response"])
    if not alike(response, messages[-len(response) :]):
        raise Unusable("messages_and_response_differ")


def _refuse_answered(prompt: Messages) -> None:
    """Refuse a prompt whose last turn is the assistant's: it would be closed, and a second one opened."""
    if prompt and prompt[-1]["role"] == "assistant":
        raise Unusable("prompt_ends_with_a_response")


def _missing_keys(row: dict[str, Any], accepted: str, reason: str = "missing_keys") -> Unusable:
    keys = [str(key) for key in itertools.islice(row, 12)]
    return Unusable(reason, f"a row has {', '.join(keys) or 'no key'}: give it {accepted}")


def _margin(row: dict[str, Any]) -> float:
    if row.get("margin") is not None:
        return _number(row["margin"])
    scores = [row.get("score_chosen"), row.get("score_rejected")]
    return 0.0 if None in scores else _number(_number(scores[0]) - _number(scores[1]))


def _probability(row: dict[str, Any]) -> float:
    value = row.get("preference_probability")
    if value is None:
        return 1.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise Unusable("invalid_preference_probability")
    return float(value)


def _number(value: Any) -> float:
    """A number that float32 can hold."""
    if not isinstance(value, int | float) or not abs(value) <= MAX_FLOAT32:
        raise Unusable("invalid_margin")
    return float(value)
