"""Multiple-choice questions: rows in the shapes of public benchmarks, and the tokens whose likelihood is compared.

Text, delimiters and the place where an answer's tokens begin are those of lm-evaluation-harness, so that accuracies can
be laid beside published ones. A question's context is computed once for all of its answers wherever they leave its
tokens alone.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from common import packed_rows
from datamodules.conversations.messages import Unusable
from datamodules.conversations.packing import stack
from datamodules.conversations.rows import Row
from datamodules.tokenization.base import Tokenizer

ACCEPTED = "HellaSwag's, ARC's or BLiMP's keys, or `context`, `choices` and `gold`"


@dataclass(frozen=True)
class Question:
    """A context and its possible continuations.

    Attributes:
        context: may be empty.
        choices: as they are scored, leading space included.
        gold: which one is right.
        lengths: characters of each choice as it is written, by which its likelihood is divided for `accuracy_norm`.
    """

    context: str
    choices: list[str]
    gold: int
    lengths: list[int]


def question(row: Row) -> Question:
    """The question of a row: HellaSwag's, ARC's or BLiMP's keys, or `context`, `choices` and `gold`.

    Raises:
        Unusable: with the reason.
    """
    try:
        if "sentence_good" in row:
            return _checked("", [row["sentence_good"], row["sentence_bad"]], 0)
        if "endings" in row:
            context = f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}"
            return _checked(_plain(context), [_plain(ending) for ending in row["endings"]], int(row["label"]))
        if "answerKey" in row:
            choices = row["choices"]
            gold = choices["label"].index(row["answerKey"])
            return _checked(f"Question: {row['question']}\nAnswer:", choices["text"], gold)
        return _checked(row["context"], row["choices"], int(row["gold"]), row.get("delimiter", " "))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        keys = ", ".join(map(str, row)) or "no key"
        raise Unusable("no_question", f"a row has {keys}: give it {ACCEPTED}") from error


def _checked(context: Any, choices: Any, gold: int, delimiter: str = " ") -> Question:
    if not isinstance(context, str) or len(choices) < 2 or not all(isinstance(c, str) and c for c in choices):
        raise Unusable("no_question")
    if not 0 <= gold < len(choices):
        raise Unusable("no_right_answer")
    return Question(context, [delimiter + choice for choice in choices], gold, [len(choice) for choice in choices])


def _plain(text: str) -> str:
    """WikiHow's marks taken out, as the harness does for HellaSwag."""
    text = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
    return text.replace("  ", " ")


def encode(question: Question, tokenizer: Tokenizer) -> list[tuple[list[int], list[int]]]:
    """(context, answer) in token ids for every choice.

    The whole text is encoded and cut where the context alone would end; trailing spaces of the context belong to the
    answer. An empty context is the beginning-of-text token, or the end-of-text one where there is none.
    """
    pairs = []
    context = question.context.rstrip()
    spaces = question.context[len(context) :]
    for choice in question.choices:
        if not context:
            before, answer = [tokenizer.before_text], tokenizer.encode(spaces + choice)
        else:
            alone = [*tokenizer.beginning, *tokenizer.encode(context)]
            whole = [*tokenizer.beginning, *tokenizer.encode(context + spaces + choice)]
            before, answer = whole[: len(alone)], whole[len(alone) :]
        if not answer:
            raise Unusable("answer_without_tokens")
        pairs.append((before, answer))
    return pairs


def shorten(context: list[int], answer: list[int], max_tokens: int) -> tuple[list[int], list[int]]:
    """At most `max_tokens` tokens: the context loses its beginning, then the answer its own."""
    answer = answer[-(max_tokens - 1) :]
    return context[-(max_tokens - len(answer)) :], answer


def question_batches(
    questions: Iterable[list[tuple[list[int], list[int]]]], tokens: int, pad: int, max_tokens: int
) -> Iterator[dict[str, Any]]:
    """Batches of about `tokens` tokens in one row [1, T]; answers are numbered through all questions.

    Args:
        questions: `encode` of every question.
        tokens: in a batch, unless one question has more.
        pad: fills the row.
        max_tokens: tokens of a context with one answer.

    Yields:
        `tokens`, `labels`, `document_ids`, `branch_ids`, `response_ids` [1, T], `response_ids` as numbers
        within the batch; and `number` [A], those through all questions.
    """
    parts: list[packed_rows.Row] = []
    numbers: list[int] = []
    count = 0
    for pairs in questions:
        shortened = [shorten(context, answer, max_tokens) for context, answer in pairs]
        for part, chosen in _documents(shortened):
            if parts and sum(len(p["tokens"]) for p in parts) + len(part["tokens"]) > tokens:
                yield _batch(parts, numbers, pad)
                parts, numbers = [], []
            parts.append(part)
            numbers += [count + choice for choice in chosen]
        count += len(pairs)
    if parts:
        yield _batch(parts, numbers, pad)


def _documents(pairs: list[tuple[list[int], list[int]]]) -> Iterator[tuple[packed_rows.Row, list[int]]]:
    """Answers with one context are branches of it."""
    by_context: dict[tuple[int, ...], list[int]] = {}
    for choice, (context, _) in enumerate(pairs):
        by_context.setdefault(tuple(context), []).append(choice)
    for shared, chosen in by_context.items():
        yield packed_rows.branched_document(shared, [pairs[choice][1] for choice in chosen]), chosen


def _batch(parts: list[packed_rows.Row], numbers: list[int], pad: int) -> dict[str, Any]:
    row = packed_rows.join_documents(parts, pad=pad)
    del row["is_end"]
    return stack([row]) | {"number": torch.tensor(numbers)}


def text_windows(ids: list[int], first: int, max_tokens: int) -> Iterator[tuple[list[int], list[int]]]:
    """(context, tokens to score) so that every token of a text is scored once: the first after `first`, later windows
    after the last token of the one before, what is left at the end after a whole window, as the harness's rolling
    likelihood.
    """
    for start in range(0, len(ids), max_tokens):
        end = min(start + max_tokens, len(ids))
        yield ids[end - max_tokens - 1 : start] if start else [first], ids[start:end]
