"""ROUGE-N F1 as a reward: n-grams that a response shares with the row's answer.

It knows nothing of synonyms and cannot tell a good response from one that repeats the right words in the wrong order;
in return a model gains by nothing but the words of the row's answer.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from alignment.rewards.base import Response, Reward
from common.errors import InputError


class RougeN(Reward):
    """F1 of the n-grams that a response and its row's answer share: ROUGE-N (Lin 2004, section 2) with recall and
    precision weighed equally. Words are runs of letters and digits, in lower case.

    Args:
        answer_key: of the row's answer, text.
        words: in an n-gram.

    Raises:
        InputError: for no words.
    """

    def __init__(self, answer_key: str = "answer", words: int = 1) -> None:
        if words < 1:
            raise InputError(f"words={words}: must be at least 1")
        self.answer_key, self.words = answer_key, words

    def check(self, row: Mapping[str, Any]) -> None:
        """Refuse a row without a response."""
        if not isinstance(row.get(self.answer_key), str):
            raise InputError(f"answer_key={self.answer_key}: a row has {sorted(row)}, name the one with its response")

    def __call__(self, responses: Sequence[Response]) -> Tensor:
        """Between 0 and 1; 0 where either has no n-gram."""
        return torch.tensor([self._overlap(response) for response in responses], dtype=torch.float32)

    def _overlap(self, response: Response) -> float:
        right = response.row.get(self.answer_key)
        if not isinstance(right, str):
            raise InputError(
                f"answer_key={self.answer_key}: a row has {sorted(response.row)}, name the one with its response"
            )
        said, expected = self._ngrams(response.text), self._ngrams(right)
        # F1 = 2 shared / (said + expected).
        return 2 * (said & expected).total() / max((said + expected).total(), 1)

    def _ngrams(self, text: str) -> Counter[tuple[str, ...]]:
        words = re.findall(r"[^\W_]+", text.lower())
        return Counter(zip(*(words[start:] for start in range(self.words)), strict=False))
