"""AI feedback (RLAIF): preference pairs with soft labels from a judge's choice probabilities.

The feedback of Bai et al. 2022, "Constitutional AI", section 4.1: a multiple-choice question, and the normalized
probabilities of (A) and (B) as a soft label. Models like one letter better than the other, so every pair is shown in
both orders, worked examples turned round as well, and log-odds are averaged: whatever adds to them for a letter's sake
cancels exactly, at twice the price.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, NamedTuple

from alignment.constitutional.constitution import BETTER, WORSE, Constitution, Principle
from alignment.constitutional.llm_calls import AnnotationStage, LLMCall, PromptRecord, RecordedCalls, kept, provenance
from common.constants import Messages
from common.errors import InputError

LETTERS = ("(A)", "(B)")
THINK = "Let us think about it step by step."
DECIDE = "So which one is it? Answer with (A) or (B) only."
ANSWER = "Answer with (A) or (B) only."
SPEAKERS = {"user": "Human", "assistant": "Assistant"}


class ComparisonPrompt(NamedTuple):
    """Comparison of a pair in one order."""

    sample: PromptRecord
    principle: Principle
    turned: bool
    """Whether the first response is shown as (B)."""

    def purpose(self, what: str) -> str:
        """Name of the request's purpose."""
        return f"{what} {self.principle.name} {'BA' if self.turned else 'AB'}"


def ask_comparison(prompt: Messages, responses: Sequence[str], question: str, turned: bool, thinking: bool) -> Messages:
    """The conversation and both responses as one question."""
    said = "\n\n".join(f"{SPEAKERS.get(turn['role'], turn['role'])}: {turn['content']}" for turn in prompt)
    first, second = reversed(responses) if turned else responses
    text = (
        f"Consider the following conversation between a human and an assistant:\n\n{said}\n\n{question}\n\nOptions:\n"
        f"{LETTERS[0]} {first}\n{LETTERS[1]} {second}\n\n{THINK if thinking else ANSWER}"
    )
    return [{"role": "user", "content": text}]


def ask_decision(asked: Messages, reasoning: str) -> Messages:
    """Conversation continued from a chain of thought to the request for a decision."""
    return [*asked, {"role": "assistant", "content": reasoning}, {"role": "user", "content": DECIDE}]


def examples_name(turned: bool, thinking: bool) -> str:
    """Name of the worked examples shown before a question."""
    return f"comparisons{' with reasoning' * thinking} {'BA' if turned else 'AB'}"


def worked_comparisons(constitution: Constitution, turned: bool, thinking: bool) -> Messages:
    """The worked examples as a conversation; the better response is (A) and (B) in turn, when turned (B) and (A)."""
    messages: Messages = []
    for number, example in enumerate(constitution.comparisons):
        is_second = turned ^ (number % 2 == 1)
        better, worse = LETTERS[is_second], LETTERS[not is_second]
        question = constitution[example.principle].comparison
        prompt = [{"role": "user", "content": example.prompt}]
        asked = ask_comparison(prompt, (example.better, example.worse), question, is_second, thinking)
        if thinking:
            asked = ask_decision(asked, example.reasoning.replace(BETTER, better).replace(WORSE, worse))
        messages += [*asked, {"role": "assistant", "content": better}]
    return messages


def log_odds_of_first(log_probabilities: Sequence[float], turned: bool) -> float:
    """log p / (1 - p) that the first response is better, of the letters' log-probabilities."""
    first, second = reversed(log_probabilities) if turned else log_probabilities
    return first - second


def soft_label(log_odds: Sequence[Sequence[float]], clamp: float | None) -> float:
    """Probability that the first response is better.

    Log-odds of both orders are averaged, then the probabilities of all principles, as an ensemble of judges.

    Args:
        log_odds: of the first response, for each principle in both orders.
        clamp: the probability is held between 1 - clamp and clamp; None leaves it.
    """
    probability = sum(sigmoid(sum(orders) / len(orders)) for orders in log_odds) / len(log_odds)
    return probability if clamp is None else min(max(probability, 1 - clamp), clamp)


def sigmoid(x: float) -> float:
    """1 / (1 + exp(-x)) without overflow."""
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


@dataclass(frozen=True)
class Preferences(AnnotationStage):
    """Rows for a reward model or a policy: `prompt`, `chosen`, `rejected`, `preference_probability`.

    Args:
        principles_per_pair: different ones each pair is judged by; the paper takes one at random.
        chain_of_thought: let the judge reason before it decides; its word is then nearly certain whatever it says, so
            that labels are clamped.
        clamp: largest probability of a label after reasoning; 0.6, and so 0.4 for the other response, is the paper's.
        unfinished: what becomes of pairs with a response that ran out of tokens, which would teach a model to stop in
            the middle.

    Raises:
        InputError: for a number of principles or a probability that cannot be.
    """

    name: ClassVar[str] = "preferences"
    principles_per_pair: int = 1
    chain_of_thought: bool = False
    clamp: float = 0.6
    unfinished: Literal["drop", "keep"] = "drop"

    def __post_init__(self) -> None:
        if self.principles_per_pair < 1 or not 0.5 < self.clamp <= 1:
            raise InputError(
                f"preferences.principles_per_pair={self.principles_per_pair}, clamp={self.clamp}: need at least 1, and "
                "0.5 < clamp <= 1"
            )

    def settings(self) -> dict[str, Any]:
        """All of them."""
        return asdict(self)

    def examples(self, constitution: Constitution) -> dict[str, Messages]:
        """The worked comparisons of both orders."""
        thinking = self.chain_of_thought
        return {
            examples_name(turned, thinking): worked_comparisons(constitution, turned, thinking)
            for turned in (False, True)
        }

    def make(
        self, samples: Sequence[PromptRecord], constitution: Constitution, llm: RecordedCalls
    ) -> list[dict[str, Any]]:
        """Respond to every prompt twice with the model `generator`; let `judge` say which response is better.

        Returns:
            A record a sample: `sample`, `dropped`, `prompt`, `responses`, `probability` (that the first is better),
            `judgments` (`principle`, `log_odds` of the first response in both orders, `position_bias`, by how much (A)
            is liked for being (A)), `calls`.
        """
        asking = kept(samples)
        both = llm.complete(
            "generator",
            [LLMCall(sample, f"response {number}", sample.prompt) for sample in asking for number in (1, 2)],
        )
        responses = {
            sample.number: [response.text for response in both[2 * place : 2 * place + 2]]
            for place, sample in enumerate(asking)
        }
        for place, sample in enumerate(asking):
            is_cut = any(response.finish == "length" for response in both[2 * place : 2 * place + 2])
            if is_cut and self.unfinished == "drop":
                sample.dropped = sample.dropped or "unfinished_response"
        for sample in kept(samples):
            if responses[sample.number][0] == responses[sample.number][1]:
                sample.dropped = "equal_responses"
        askings = [
            ComparisonPrompt(sample, principle, turned)
            for sample in kept(samples)
            for principle in constitution.draw(llm.seed, sample.number, "comparison", self.principles_per_pair)
            for turned in (False, True)
        ]
        log_odds: dict[int, dict[str, list[float]]] = {sample.number: {} for sample in samples}
        asked = self._reasoned(askings, responses, llm)
        verdicts = llm.choose(
            "judge",
            [
                LLMCall(a.sample, a.purpose("comparison"), messages, examples_name(a.turned, self.chain_of_thought))
                for a, messages in asked
            ],
            LETTERS,
        )
        for (a, _), values in zip(asked, verdicts, strict=True):
            if values:
                orders = log_odds[a.sample.number].setdefault(a.principle.name, [])
                orders.append(log_odds_of_first(values, a.turned))
        return [self._record(sample, responses.get(sample.number, []), log_odds[sample.number]) for sample in samples]

    def _reasoned(
        self, askings: list[ComparisonPrompt], responses: dict[int, list[str]], llm: RecordedCalls
    ) -> list[tuple[ComparisonPrompt, Messages]]:
        """What is asked of each pair up to the letter, with the judge's reasoning where it is to reason."""
        thinking = self.chain_of_thought
        asked = [
            (a, ask_comparison(a.sample.prompt, responses[a.sample.number], a.principle.comparison, a.turned, thinking))
            for a in askings
        ]
        if not thinking:
            return asked
        reasonings = llm.complete(
            "judge",
            [
                LLMCall(a.sample, a.purpose("reasoning"), messages, examples_name(a.turned, thinking))
                for a, messages in asked
            ],
        )
        return [
            (a, ask_decision(messages, reasoning.text))
            for (a, messages), reasoning in zip(asked, reasonings, strict=True)
            if a.sample.dropped is None
        ]

    def _record(self, sample: PromptRecord, responses: list[str], log_odds: dict[str, list[float]]) -> dict[str, Any]:
        if sample.dropped:
            return sample.record()
        judgments = [
            {"principle": name, "log_odds": orders, "position_bias": (orders[0] - orders[1]) / 2}
            for name, orders in log_odds.items()
        ]
        label = soft_label(list(log_odds.values()), self.clamp if self.chain_of_thought else None)
        return sample.record(responses=responses, probability=label, judgments=judgments)

    def rows(self, record: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The pair of a record, the likelier response chosen, with the principles it was judged by."""
        if record["dropped"]:
            return
        probability = record["probability"]
        chosen, rejected = record["responses"] if probability >= 0.5 else reversed(record["responses"])
        row = {"prompt": record["prompt"], "chosen": chosen, "rejected": rejected}
        row["preference_probability"] = max(probability, 1 - probability)
        row["principles"] = [judgment["principle"] for judgment in record["judgments"]]
        yield row | provenance(record)

    def describe(self, records: Iterable[dict[str, Any]]) -> dict[str, float]:
        """Mean label, position bias, and the share of judgments that the position decides."""
        labels: list[float] = []
        judgments: list[dict[str, Any]] = []
        for record in records:
            if not record["dropped"]:
                labels.append(max(record["probability"], 1 - record["probability"]))
                judgments += record["judgments"]
        if not labels:
            return {}
        contradicting = sum(first * second < 0 for first, second in (made["log_odds"] for made in judgments))
        return {
            "mean_label": sum(labels) / len(labels),
            "position_bias": sum(made["position_bias"] for made in judgments) / len(judgments),
            "decided_by_position": contradicting / len(judgments),
        }
