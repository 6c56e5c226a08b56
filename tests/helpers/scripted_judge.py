"""A judge whose right answers are known: every response says how good it is, and comparisons are of that."""

import math
import re
import time
from collections.abc import Sequence
from typing import Any

from alignment.constitutional.judge import ChoiceLogProbs, Judge, Request, Response

SCALE = 4.0
"""Log-odds of two responses whose quality differs by 1."""


def quality(text: str) -> float:
    """How good a response says it is."""
    (found,) = re.findall(r"quality (0\.\d+)", text)
    return float(found)


class ScriptedJudge(Judge):
    """Responses by rule.

    Args:
        bias: added to the log-odds of (A), whatever is there.
        seconds: that every call takes.
        empty: share of responses that are empty, by their numbers.
    """

    def __init__(self, bias: float = 0.0, seconds: float = 0.0, empty: float = 0.0, prompt_price: float = 0.0) -> None:
        self.bias, self.seconds, self.empty, self.prompt_price = bias, seconds, empty, prompt_price
        self.asked: list[Request] = []
        self.commits = 0

    def identity(self) -> Any:
        return {"scripted": self.bias}

    def commit(self) -> None:
        self.commits += 1

    def complete(self, requests: Sequence[Request]) -> list[Response]:
        return [self._complete(request) for request in requests]

    def _complete(self, request: Request) -> Response:
        time.sleep(self.seconds)
        self.asked.append(request)
        last = request.messages[-1]["content"]
        if request.number % 1000 < 1000 * self.empty:
            return Response(" \n", "stop", 7, 1)
        if "step by step" in last:
            text = f"I reason about it, number {request.number}."
        elif last.startswith("Critique"):
            text = f"It could be better ({last})."
        elif last.startswith("Revise"):
            text = f"{request.messages[-4]['content']} | {last}"
        else:
            text = f" Näh: of quality 0.{request.number % 10**6:06d} "
        return Response(text, "stop", len(request.messages), len(text))

    def choose(self, requests: Sequence[Request], options: Sequence[str]) -> list[ChoiceLogProbs]:
        assert list(options) == ["(A)", "(B)"]
        verdicts = []
        for request in requests:
            time.sleep(self.seconds)
            self.asked.append(request)
            asked = next(m["content"] for m in request.messages[::-1] if "\n\nOptions:\n" in m["content"])
            first, second = asked.split("\n(A) ")[1].split("\n(B) ")
            log_odds = SCALE * (quality(first) - quality(second)) + self.bias
            verdicts.append(
                ChoiceLogProbs((-math.log1p(math.exp(-log_odds)), -math.log1p(math.exp(log_odds))), "", 5, 1)
            )
        return verdicts
