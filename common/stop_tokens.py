"""Stop tokens: token ids that end a response, from a tokenizer and a chat template.

One function for generation, chat, comparison, judges and evaluation, so that a model is stopped at the same tokens
everywhere. What a template writes behind a response is read off its output, for no model says it in one place.
"""

from collections.abc import Collection
from itertools import takewhile
from typing import Any


def stop_tokens(tokenizer: Any, template: Any) -> set[int]:
    """Token ids that end a response: end of text, what `generation_config.json` lists beside it, and whatever control
    token the template puts behind a response.

    Args:
        tokenizer: `datamodules.tokenization.base.Tokenizer` of the model.
        template: `datamodules.conversations.chat_template.ChatTemplate`, None for a model that continues text.
    """
    if template is None:
        return {tokenizer.eos, *tokenizer.stops}
    control = set(tokenizer.control_ids().values())
    return {tokenizer.eos, *tokenizer.stops} | (control & set(response_tokens(template, "!", ())))


def response_tokens(template: Any, text: str, stop: Collection[int]) -> list[int]:
    """Token ids of a response as the template writes it, the same whatever it says, up to a stop token."""
    talk = [{"role": "user", "content": "?"}, {"role": "assistant", "content": text}]
    _, response = template.encode(talk).prompt_and_response()
    return list(takewhile(lambda token: token not in stop, response))
