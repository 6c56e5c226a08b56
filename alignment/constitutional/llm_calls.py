"""LLM calls in batches for all samples of a stage, each recorded with its response.

A sample that one response is missing for is dropped under a reason, with all that was asked about it until then; the
others go on without it. What is asked is written out except for the worked examples in front, which are the same for
all and are kept once, under a name.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

import xxhash

from alignment.constitutional.constitution import Constitution
from alignment.constitutional.judge import Judge, Request, Response
from common.constants import Messages


@dataclass
class PromptRecord:
    """A prompt on its way through a stage.

    Attributes:
        number: of the row it came from.
        prompt: ends with what is to be responded to.
        group: samples of one group never part between training and validation; None where the row does not say.
        calls: all that models were asked about it, with their responses.
        dropped: why it is given up.
    """

    number: int
    prompt: Messages
    group: str | None = None
    calls: list[dict[str, Any]] = field(default_factory=list)
    dropped: str | None = None

    def record(self, **made: Any) -> dict[str, Any]:
        """Record of the sample: what was made of it, and by which calls."""
        head = {"sample": self.number, "dropped": self.dropped, "prompt": self.prompt}
        group = {} if self.group is None else {"group": self.group}
        return head | group | ({} if self.dropped else made) | {"calls": self.calls}


class LLMCall(NamedTuple):
    """LLM call about a sample."""

    sample: PromptRecord
    purpose: str
    """Of the question among all about the sample; with the seed and the sample's number it decides the draws."""
    messages: Messages
    examples: str | None = None
    """Name of the worked examples that come before the messages."""


class RecordedCalls:
    """Recorded calls to models.

    Args:
        models: by the names they have in the records.
        examples: worked examples by their names.
        seed: of all draws, with the number of the sample and the purpose of the question.

    Attributes:
        seconds: spent waiting for each model.
    """

    def __init__(self, models: Mapping[str, Judge], examples: Mapping[str, Messages], seed: int) -> None:
        self.models, self.examples, self.seed = models, examples, seed
        self.seconds = dict.fromkeys(models, 0.0)

    def complete(self, model: str, questions: Sequence[LLMCall]) -> list[Response]:
        """A text in response to each question, in their order; empty where the sample was dropped for want of one."""
        start = time.perf_counter()
        responses = self.models[model].complete([self._request(question) for question in questions])
        self.seconds[model] += time.perf_counter() - start
        found = []
        for question, response in zip(questions, responses, strict=True):
            refused = response.finish == "refused"
            self._note(question, model, {
                "response": None if refused else response.text,
                "finish": response.finish,
                "prompt_tokens": response.prompt_tokens,
                "response_tokens": response.response_tokens,
            })  # fmt: skip
            found.append(replace(response, text="" if refused else response.text.strip()))
            if not found[-1].text:
                reason = response.text if refused else "empty"
                question.sample.dropped = question.sample.dropped or f"{question.purpose.split()[0]}: {reason}"
        return found

    def choose(self, model: str, questions: Sequence[LLMCall], options: Sequence[str]) -> list[tuple[float, ...]]:
        """Log-probabilities of the options for each question; empty where the sample was dropped for want of them."""
        start = time.perf_counter()
        verdicts = self.models[model].choose([self._request(question) for question in questions], options)
        self.seconds[model] += time.perf_counter() - start
        for question, verdict in zip(questions, verdicts, strict=True):
            self._note(question, model, {
                "options": list(options),
                "log_probabilities": list(verdict.log_probabilities),
                "prompt_tokens": verdict.prompt_tokens,
                "response_tokens": verdict.response_tokens,
            })  # fmt: skip
            if not verdict.log_probabilities:
                question.sample.dropped = (
                    question.sample.dropped or f"{question.purpose.split()[0]}: {verdict.reason or 'no_verdict'}"
                )
        return [verdict.log_probabilities for verdict in verdicts]

    def _request(self, question: LLMCall) -> Request:
        examples = [] if question.examples is None else self.examples[question.examples]
        return Request([*examples, *question.messages], self._number(question))

    def _number(self, question: LLMCall) -> int:
        return xxhash.xxh3_64_intdigest(f"{question.sample.number}/{question.purpose}".encode(), seed=self.seed) >> 1

    def _note(self, question: LLMCall, model: str, response: dict[str, Any]) -> None:
        asked = {"purpose": question.purpose, "model": model, "number": self._number(question)}
        shown = {} if question.examples is None else {"examples": question.examples}
        question.sample.calls.append(asked | shown | {"messages": question.messages} | response)


class AnnotationStage(ABC):
    """Annotation stage: records made of samples, and the rows that are learned from."""

    name: ClassVar[str]

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Settings that records depend on, JSON-able."""

    @abstractmethod
    def examples(self, constitution: Constitution) -> dict[str, Messages]:
        """Worked examples by the names under which questions refer to them."""

    @abstractmethod
    def make(
        self, samples: Sequence[PromptRecord], constitution: Constitution, llm: RecordedCalls
    ) -> list[dict[str, Any]]:
        """A record for each of the samples, which are computed together."""

    @abstractmethod
    def rows(self, record: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Rows of a record; none of a dropped sample."""

    @abstractmethod
    def describe(self, records: Iterable[dict[str, Any]]) -> dict[str, float]:
        """Summary numbers of all records."""


def provenance(record: Mapping[str, Any]) -> dict[str, Any]:
    """Provenance of a row: keys of the record it comes from."""
    return {name: record[name] for name in ("sample", "group", "models") if name in record}


def kept(samples: Sequence[PromptRecord]) -> list[PromptRecord]:
    """Samples that are not dropped."""
    return [sample for sample in samples if sample.dropped is None]
