"""Chat messages of a row: roles, text, keys beside it that templates read, transcripts, and turns that are not learned.

Every key of a turn is handed to the chat template, read here, counted, or a reason to drop the row. A model that is
trained without a key would be trained on something else than the row says, while a dropped row is counted.
"""

from collections.abc import Iterator
from typing import Any

from common.constants import Messages

ROLES = ("system", "user", "assistant", "tool")
TEMPLATE_KEYS = (
    "tool_calls", "function_call", "reasoning_content", "reasoning", "thinking", "name", "tool_call_id",
)  # fmt: skip
"""Keys of a turn that chat templates read. Which of them a template writes, `ChatTemplate` finds out."""
CALLS = ("tool_calls", "function_call")
"""Keys that say something where the content is empty."""
REFUSED_KEYS = ("audio", "image", "images", "prefix", "video", "videos")
"""Keys of a turn that no template here can write."""
WEIGHT = "weight"
"""Key of an assistant's turn that is not learned, with the value 0, as in OpenAI's fine-tuning format."""
FLAGS = ("train", "training")
"""Other spellings of it, as booleans."""
HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"


class Unusable(Exception):  # noqa: N818 (no error: a row that is dropped)
    """Reason for dropping a row.

    Args:
        reason: counted under this name.
        advice: what a row would need, for the message when none is left.
    """

    def __init__(self, reason: str, advice: str = "") -> None:
        super().__init__(reason)
        self.advice = advice


def is_said(value: Any) -> bool:
    """False for a value that says as much as an absent key: null, and empty text, lists and objects."""
    return value is not None and value not in ("", [], {})


def messages_of(value: Any) -> Messages:
    """Messages of a list in a row: `role`, `content`, keys for the template, and `weight: 0` where it is not learned.

    Raises:
        Unusable: with the reason.
    """
    if not isinstance(value, list) or not value:
        raise Unusable("invalid_messages")
    return [_message(message) for message in value]


def _message(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or value.get("role") not in ROLES:
        raise Unusable("invalid_messages")
    said = {key: item for key, item in value.items() if is_said(item)}
    if refused := [key for key in REFUSED_KEYS if key in said]:
        raise Unusable(f"unread_key: {refused[0]}")
    is_call = any(key in said for key in CALLS)
    content = None if is_call and value.get("content") is None else text_of(value.get("content"))
    message = {"role": value["role"], "content": content}
    message |= {key: said[key] for key in TEMPLATE_KEYS if key in said}
    if message["role"] == "assistant" and not is_learned(said):
        message[WEIGHT] = 0
    return message


def text_of(value: Any) -> str:
    """Text of a content: text, or a list of parts that are text, joined.

    Raises:
        Unusable: with the reason.
    """
    if isinstance(value, list) and value:
        return "".join(map(_part, value))
    if not isinstance(value, str):
        raise Unusable("invalid_messages")
    return value


def _part(part: Any) -> str:
    kind = str(part.get("type")) if isinstance(part, dict) else type(part).__name__
    if kind != "text" or not isinstance(part.get("text"), str):
        raise Unusable(f"content_part: {kind}")
    return str(part["text"])


def is_learned(turn: dict[str, Any]) -> bool:
    """Whether a turn, or a row, is to be learned, by `weight` (0 or 1), `train` and `training`.

    Raises:
        Unusable: for another weight, or two that differ.
    """
    found = {turn[key] for key in (WEIGHT, *FLAGS) if isinstance(turn.get(key), bool | int | float)}
    others = [key for key in (WEIGHT, *FLAGS) if key in turn and not isinstance(turn[key], bool | int | float)]
    if others or found - {0, 1} or len(found) > 1:
        raise Unusable("invalid_weight")
    return found != {0}


def context_of(messages: Messages) -> Messages:
    """Messages as context, where the weight of a turn does not matter."""
    return [{key: value for key, value in message.items() if key != WEIGHT} for message in messages]


def unlearned(messages: Messages) -> Messages:
    """The same messages with none of the assistant's learned."""
    return [message | {WEIGHT: 0} if message["role"] == "assistant" else message for message in messages]


def is_empty(message: dict[str, Any]) -> bool:
    """Whether a response has nothing in it, neither text nor a call."""
    return not (message["content"] or "").strip() and not any(key in message for key in CALLS)


def alike(some: Messages, others: Messages) -> bool:
    """Whether messages say the same; space around a text does not count."""

    def said(messages: Messages) -> Messages:
        return [message | {"content": (message["content"] or "").strip()} for message in context_of(messages)]

    return said(some) == said(others)


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


def is_transcript(text: str) -> bool:
    """Whether a text is a transcript: it begins with a turn, after a blank line or before another turn."""
    turns = (HUMAN, ASSISTANT)
    return text.startswith(turns) or (f"\n\n{text}".startswith(turns) and any(turn in text for turn in turns))


def prompt_of(value: Any) -> Messages:
    """Messages of a prompt: text, a transcript up to where the assistant speaks, or messages.

    Raises:
        Unusable: with the reason.
    """
    if not isinstance(value, str):
        return messages_of(value)
    if not is_transcript(value):
        return [{"role": "user", "content": value}]
    messages = transcript(value)
    # `Assistant:` at the end of a prompt is where the response begins.
    return messages[:-1] if messages[-1] == {"role": "assistant", "content": ""} else messages


def unread_keys(row: dict[str, Any]) -> tuple[str, ...]:
    """Keys of a row's turns that are neither read nor handed to the template, sorted."""
    return tuple(sorted({key for value in row.values() for message in _turns(value) for key in _unread(message)}))


def _turns(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, list):
        yield from (message for message in value if isinstance(message, dict) and message.get("role") in ROLES)


def _unread(message: dict[str, Any]) -> Iterator[str]:
    for key, value in message.items():
        if key in (WEIGHT, *FLAGS):
            if message["role"] != "assistant" and value:
                yield f"{key} of {message['role']}"
        elif key not in ("role", "content", *TEMPLATE_KEYS) and is_said(value):
            yield key
