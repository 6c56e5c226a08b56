"""Verifiable rewards: exact match, pattern and arithmetic, decided by a rule.

What is checked is text against the row the prompt came from, by rules simple enough to be read here; whether the rule
means what was wanted is not checked by anything, and a policy finds the difference. A response that cannot be read is
wrong, never an error; a row that cannot be read is an error, found before training by `check`.
"""

import itertools
import math
import string
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, Literal

import regex
import torch
from torch import Tensor

from alignment.rewards.base import Response, Reward
from alignment.rewards.numbers import FINAL, final_number
from common.errors import InputError

Normalization = Literal["none", "whitespace", "squad"]


class VerifiableReward(Reward):
    """A response is right or wrong.

    Args:
        right, wrong: what either is worth.

    Raises:
        InputError: where right is not worth more than wrong.
    """

    def __init__(self, right: float = 1.0, wrong: float = 0.0) -> None:
        if not -math.inf < wrong < right < math.inf:
            raise InputError(f"right={right}, wrong={wrong}: must be numbers, that of right answers the larger one")
        self.right, self.wrong = right, wrong

    @abstractmethod
    def is_right(self, response: Response) -> bool:
        """Whether a response is."""

    def __call__(self, responses: Sequence[Response]) -> Tensor:
        return torch.tensor([self.right if self.is_right(response) else self.wrong for response in responses])


class ExactMatch(VerifiableReward):
    """Exact match of the response with the row's answer, or with one of its answers where they are a list.

    Args:
        answer_key: where the row says it: text, a number, or a list of them.
        normalize: what is made of both before they are compared. `none` compares them as they are; `whitespace` takes
            any run of it for one space and none at the ends; `squad` also ignores case, ASCII punctuation and English
            articles (Rajpurkar et al. 2016, section 6.1, as in the evaluation script).
        right, wrong: see `VerifiableReward`.
    """

    def __init__(
        self,
        answer_key: str = "answer",
        normalize: Normalization = "whitespace",
        right: float = 1.0,
        wrong: float = 0.0,
    ) -> None:
        super().__init__(right, wrong)
        self.answer_key, self.normalize = answer_key, normalize

    def check(self, row: Mapping[str, Any]) -> None:
        """Refuse a row without a response."""
        self._accepted(row)

    def is_right(self, response: Response) -> bool:
        return normalized(response.text, self.normalize) in self._accepted(response.row)

    def _accepted(self, row: Mapping[str, Any]) -> list[str]:
        value = value_of(row, self.answer_key)
        values = value if isinstance(value, list) else [value]
        if not values or any(isinstance(one, bool) or not isinstance(one, str | int | float) for one in values):
            raise InputError(
                f"{self.answer_key}={value!r:.100}: ExactMatch compares with text, a number or a list of them"
            )
        return [normalized(spelled, self.normalize) for one in values for spelled in spellings(one)]


class PrefixMatch(ExactMatch):
    """Share of words that are right up to the first wrong one: 1 for the very response, and for nothing else.

    Where responses are long and the policy weak, exact responses are too rare to learn from; what was right before the
    first mistake tells it apart from what was wrong from the start. Divided by the longer of the two, so that neither
    stopping early nor going on is rewarded.

    Args:
        answer_key, normalize: see `ExactMatch`.
    """

    def __init__(self, answer_key: str = "answer", normalize: Normalization = "whitespace") -> None:
        super().__init__(answer_key, normalize)

    def __call__(self, responses: Sequence[Response]) -> Tensor:
        return torch.tensor([self._share(response) for response in responses])

    def _share(self, response: Response) -> float:
        said = normalized(response.text, self.normalize).split()
        return max(leading_share(said, accepted.split()) for accepted in self._accepted(response.row))


class Pattern(VerifiableReward):
    """A regular expression is found in the response.

    Backtracking can take time exponential in the response's length, and a policy may write such responses, so a search
    that takes longer than `seconds` of this process's CPU time counts as finding nothing (`timed_out` counts them).

    Args:
        pattern: in the syntax of Python's `re`, of which that of the package `regex` is a superset; `(?s)`, `(?i)` and
            so on within it.
        whole: the pattern has to match all of the response.
        seconds: see above.
        right, wrong: see `VerifiableReward`.

    Raises:
        InputError: for a pattern that is none, or no time.
    """

    def __init__(
        self, pattern: str, whole: bool = False, seconds: float = 0.1, right: float = 1.0, wrong: float = 0.0
    ) -> None:
        super().__init__(right, wrong)
        try:
            compiled = regex.compile(pattern)
        except regex.error as error:
            raise InputError(f"pattern={pattern}: no regular expression ({error})") from error
        if not 0 < seconds < math.inf:
            raise InputError(f"seconds={seconds}: must be a number above 0")
        self.find = compiled.fullmatch if whole else compiled.search
        self.seconds, self.timed_out = seconds, 0

    def is_right(self, response: Response) -> bool:
        try:
            return self.find(response.text, timeout=self.seconds) is not None
        except TimeoutError:
            self.timed_out += 1
            return False


class Arithmetic(VerifiableReward):
    """The last number of the response is the row's (Cobbe et al. 2021, GSM8K).

    Where a text holds `####`, as GSM8K's solutions do, the number is the first behind the last one of them. Numbers are
    read exactly, as fractions: `-1,234.50`, `1 000`, `.5`, `3/4`, `6e23`, `10^3`; nothing else is evaluated.

    Args:
        answer_key: where the row holds the number, or a text in which it is the last one.
        tolerance: difference that is still right: relative above 1, absolute below.
        needs_mark: a response without `####` is wrong.
        right, wrong: see `VerifiableReward`.

    Raises:
        InputError: for a negative tolerance.
    """

    def __init__(
        self,
        answer_key: str = "answer",
        tolerance: float = 0.0,
        needs_mark: bool = False,
        right: float = 1.0,
        wrong: float = 0.0,
    ) -> None:
        super().__init__(right, wrong)
        if not 0 <= tolerance < math.inf:
            raise InputError(f"tolerance={tolerance}: must be a number, not negative")
        self.answer_key, self.tolerance, self.needs_mark = answer_key, Fraction(tolerance), needs_mark

    def check(self, row: Mapping[str, Any]) -> None:
        """Refuse a row without a number."""
        self._expected(row)

    def is_right(self, response: Response) -> bool:
        found = None if self.needs_mark and FINAL not in response.text else final_number(response.text)
        expected = self._expected(response.row)
        return found is not None and abs(found - expected) <= self.tolerance * max(Fraction(1), abs(expected))

    def _expected(self, row: Mapping[str, Any]) -> Fraction:
        value = value_of(row, self.answer_key)
        found = None if isinstance(value, bool) else final_number(str(value))
        if found is None:
            raise InputError(f"{self.answer_key}={value!r:.100}: no number is in it, which Arithmetic compares with")
        return found


_ARTICLES = regex.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalized(text: str, how: Normalization) -> str:
    """Text as it is compared, see `ExactMatch`."""
    if how == "none":
        return text
    if how == "squad":
        text = _ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION))
    return " ".join(text.split())


def spellings(value: str | float) -> list[str]:
    """Texts that a row's value accepts: itself, and of a whole number that a table holds as a float the number."""
    whole = [str(int(value))] if isinstance(value, float) and value.is_integer() else []
    return [str(value), *whole]


def leading_share(said: Sequence[str], wanted: Sequence[str]) -> float:
    """Equal words up to the first difference, over the larger number of words; 1 where there are none."""
    right = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(said, wanted, strict=False))
    most = max(len(said), len(wanted))
    return sum(1 for _ in right) / most if most else 1.0


def value_of(row: Mapping[str, Any], key: str) -> Any:
    """Value of a row under a key.

    Raises:
        InputError: when it holds nothing there, or null.
    """
    if key not in row:
        raise InputError(f"a row has no {key!r}, only {', '.join(map(str, row))}: name the key that a reward reads")
    value = row[key]
    if value is None or (isinstance(value, float) and math.isnan(value)):
        missing = "null" if value is None else "nan"
        raise InputError(f"{key!r} of a row is {missing}, which a reward reads: leave such rows out")
    return value
