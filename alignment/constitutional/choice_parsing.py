"""Choice parsing: verdicts A or B from an endpoint's log-probabilities, or from votes."""

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from alignment.constitutional.judge import ChoiceLogProbs, Response


class Place(NamedTuple):
    """A token of a response as an endpoint serves it."""

    drawn: str
    likeliest: list[tuple[str, float]]
    """Tokens that might have stood there, with their log-probabilities."""


def letter_log_probabilities(places: Sequence[Place], letters: Sequence[str]) -> tuple[float, ...]:
    """Log-probability of each letter where the first of them was drawn.

    Spellings of a letter (`A`, ` A`, `(A`, `(A)`) are summed. A letter that is not among the tokens served is less
    likely than the last of them, and gets that one's probability: the verdict is then nearer to a tie than the
    model's own.

    Args:
        places: of the response's tokens.
        letters: without parentheses.

    Returns:
        In the letters' order; empty where none of them was drawn.
    """
    for drawn, likeliest in places:
        if _bare(drawn) in letters and likeliest:
            sums = dict.fromkeys(letters, 0.0)
            for token, value in likeliest:
                if _bare(token) in sums:
                    sums[_bare(token)] += math.exp(value)
            least = min(value for _, value in likeliest)
            return tuple(math.log(sums[letter]) if sums[letter] else least for letter in letters)
    return ()


def _bare(token: str) -> str:
    return token.strip(" \n\t().:*\"'Ġ▁")


def chat_places(served: dict[str, Any]) -> list[Place]:
    """Tokens of `logprobs` as chat completions serve them."""
    return [
        Place(place["token"], _finite((entry["token"], entry["logprob"]) for entry in place.get("top_logprobs") or []))
        for place in served.get("content") or []
    ]


def completion_places(served: dict[str, Any]) -> list[Place]:
    """Tokens of `logprobs` as plain completions serve them."""
    columns = served.get("tokens") or [], served.get("top_logprobs") or []
    return [Place(token, _finite((likeliest or {}).items())) for token, likeliest in zip(*columns, strict=False)]


def _finite(tokens: Iterable[tuple[str, float | None]]) -> list[tuple[str, float]]:
    """Without those of no probability, which JSON has no number for."""
    return [(token, value) for token, value in tokens if value is not None and math.isfinite(value)]


def count_votes(ballots: Sequence[Response], letters: Sequence[str]) -> ChoiceLogProbs:
    """Probabilities from votes by Laplace's rule of succession; no verdict where no vote can be read."""
    refused = next((ballot for ballot in ballots if ballot.finish == "refused"), None)
    if refused is not None:
        return ChoiceLogProbs((), refused.text)
    read = [letter for ballot in ballots if (letter := letter_of(ballot.text, letters)) is not None]
    tokens = sum(ballot.prompt_tokens for ballot in ballots), sum(ballot.response_tokens for ballot in ballots)
    if not read:
        return ChoiceLogProbs((), "no_letter", *tokens)
    return ChoiceLogProbs(
        tuple(math.log((read.count(letter) + 1) / (len(read) + len(letters))) for letter in letters), "", *tokens
    )


def letter_of(text: str, letters: Sequence[str]) -> str | None:
    """The letter that a response gives: in parentheses, or first without a word behind it ("A good ..."), or last."""
    either = "|".join(map(re.escape, letters))
    forms = (rf"\(({either})\)", rf"^\W*({either})\b(?!\s\w)", rf"\b({either})\W*$")
    return next((found[1] for form in forms if (found := re.search(form, text))), None)
