"""Row formats: instruction, preference and prompt rows recognized by their keys.

Every public data set spells this differently; the spellings that are read here are those of the formats' own
documentation. A row that says neither is dropped under a reason, never repaired by guessing.
"""

import itertools
import json
from dataclasses import dataclass
from typing import Any

from common.constants import Messages

ROLES = ("system", "user", "assistant", "tool")
MAX_FLOAT32 = 3e38
"""Margins are stored as float32."""
HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"


class Unusable(Exception):  # noqa: N818 (no error: a row that is dropped)
    """Reason for dropping a row."""


@dataclass(frozen=True)
class Preference:
    """A prompt with the response that was preferred and the one that was not.

    Attributes:
        prompt: ends with what is to be responded to.
        chosen, rejected: the responses.
        margin: by how much chosen is better; 0 where the data does not say.
        probability: that chosen is the better one, 1 where the data does not doubt it.
    """

    prompt: Messages
    chosen: str
    rejected: str
    margin: float = 0.0
    probability: float = 1.0


def instruction(row: dict[str, Any]) -> Messages:
    """The conversation of a row with `messages`, or with `prompt` (text or messages) and `response`.

    Raises:
        Unusable: with the reason.
    """
    if row.get("messages") is not None:
        messages = _messages(row["messages"])
    elif "prompt" in row and "response" in row:
        messages = [*_prompt(row["prompt"]), {"role": "assistant", "content": _text(row["response"])}]
    else:
        raise Unusable("missing_keys")
    if not any(message["role"] == "assistant" and message["content"].strip() for message in messages):
        raise Unusable("empty_response")
    return messages


def preference(row: dict[str, Any]) -> Preference:
    """The pair of a row with `prompt`, `chosen` and `rejected`, or with two transcripts as HH-RLHF has them.

    Responses are text, or lists of messages that end with the response. `margin`, or the difference of `score_chosen`
    and `score_rejected`, is taken where it is given, and so is `preference_probability`, a soft label.

    Raises:
        Unusable: with the reason.
    """
    if "chosen" not in row or "rejected" not in row:
        raise Unusable("missing_keys")
    if row.get("prompt") is not None:
        head = _prompt(row["prompt"])
        sides = [_after(head, row[side]) for side in ("chosen", "rejected")]
    else:
        sides = [_split(row[side]) for side in ("chosen", "rejected")]
    (prompt, chosen), (other_prompt, rejected) = sides
    if prompt != other_prompt:
        raise Unusable("different_prompts")
    if not chosen.strip() or not rejected.strip():
        raise Unusable("empty_response")
    if chosen == rejected:
        raise Unusable("equal_responses")
    return Preference(prompt, chosen, rejected, _margin(row), _probability(row))


def question(row: dict[str, Any]) -> Messages:
    """The prompt of a row: its `prompt` (text or messages), the conversation in `messages` or in `chosen` (messages, or
    a transcript as HH-RLHF has them) up to its last response. Ends with a message that is not the assistant's.

    Raises:
        Unusable: with the reason.
    """
    if row.get("prompt") is not None:
        messages = _prompt(row["prompt"])
    elif row.get("messages") is not None:
        messages = _messages(row["messages"])
        messages = messages[:-1] if messages[-1]["role"] == "assistant" else messages
    elif row.get("chosen") is not None:
        messages, _ = _split(row["chosen"])
        if row.get("rejected") is not None and _split(row["rejected"])[0] != messages:
            raise Unusable("different_prompts")
    else:
        raise Unusable("no_prompt")
    if not messages or not any(message["content"].strip() for message in messages):
        raise Unusable("empty_prompt")
    if messages[-1]["role"] == "assistant":
        raise Unusable("prompt_ends_with_a_response")
    return messages


def transcript(text: str) -> Messages:
    """Messages of a transcript in Anthropic's HH format: turns begin with a blank line and `Human:` or `Assistant:`.

    Raises:
        Unusable: when the text does not begin with a turn.
    """
    messages: Messages = []
    rest = text if text.startswith("\n\n") else f"\n\n{text}"
    while rest:
        if rest.startswith(HUMAN):
            role, begin = "user", len(HUMAN)
        elif rest.startswith(ASSISTANT):
            role, begin = "assistant", len(ASSISTANT)
        else:
            raise Unusable("no_transcript")
        ends = [end for end in (rest.find(HUMAN, begin), rest.find(ASSISTANT, begin)) if end >= 0]
        end = min(ends, default=len(rest))
        messages.append({"role": role, "content": rest[begin:end].strip()})
        rest = rest[end:]
    return messages


def _split(side: Any) -> tuple[Messages, str]:
    """Prompt and response of a whole conversation: messages, or a transcript."""
    messages = transcript(side) if isinstance(side, str) else _messages(side)
    if len(messages) < 2 or messages[-1]["role"] != "assistant":
        raise Unusable("no_response")
    return messages[:-1], messages[-1]["content"]


def _after(prompt: Messages, side: Any) -> tuple[Messages, str]:
    """Prompt and response where the prompt is given apart: messages may repeat it, or add turns before the response."""
    if isinstance(side, str):
        return prompt, side
    messages = _messages(side)
    if messages[: len(prompt)] == prompt:
        messages = messages[len(prompt) :]
    if not messages or messages[-1]["role"] != "assistant":
        raise Unusable("no_response")
    return [*prompt, *messages[:-1]], messages[-1]["content"]


def _prompt(value: Any) -> Messages:
    return [{"role": "user", "content": _text(value)}] if isinstance(value, str) else _messages(value)


def _messages(value: Any) -> Messages:
    if not isinstance(value, list) or not value:
        raise Unusable("invalid_messages")
    messages = []
    for message in value:
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise Unusable("invalid_messages")
        messages.append({"role": message["role"], "content": _text(message.get("content"))})
    return messages


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise Unusable("invalid_messages")
    return value


def opening(messages: Messages) -> str:
    """Text before the first response: the group of conversations that begin alike."""
    said = itertools.takewhile(lambda message: message["role"] != "assistant", messages)
    return json.dumps(list(said), ensure_ascii=False)


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
