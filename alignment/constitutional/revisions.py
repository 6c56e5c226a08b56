"""Critiques and revisions of responses by the principles of a constitution, for supervised fine-tuning.

The supervised stage of Bai et al. 2022, "Constitutional AI", section 3.1: a response, a critique of it by a principle
drawn at random, a revision; the revision takes the response's place in the next round, in a conversation of
its own. In return for that, a critique never sees the ones before it, and prompts stay short.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from alignment.constitutional.constitution import Constitution
from alignment.constitutional.llm_calls import AnnotationStage, LLMCall, PromptRecord, RecordedCalls, kept, provenance
from common.constants import Messages
from common.errors import InputError

EXAMPLES = "critiques"
"""Name of the worked examples."""


def worked_critiques(constitution: Constitution) -> Messages:
    """The worked examples as a conversation, one after another."""
    messages: Messages = []
    for example in constitution.critiques:
        principle = constitution[example.principle]
        prompt = [{"role": "user", "content": example.prompt}]
        messages += ask_revision(ask_critique(prompt, example.response, principle.critique), example.critique,
                                 principle.revision)  # fmt: skip
        messages.append({"role": "assistant", "content": example.revision})
    return messages


def ask_critique(prompt: Messages, response: str, request: str) -> Messages:
    """A conversation that ends with the request for a critique of the last response."""
    return [*prompt, {"role": "assistant", "content": response}, {"role": "user", "content": request}]


def ask_revision(asked: Messages, critique: str, request: str) -> Messages:
    """Conversation continued to the request for a revision."""
    return [*asked, {"role": "assistant", "content": critique}, {"role": "user", "content": request}]


@dataclass(frozen=True)
class Revisions(AnnotationStage):
    """Rows to fine-tune on: `prompt`, `response`.

    Args:
        rounds: critiques of each response, each with its revision; 4 as in the paper.
        kept: rows from `all` revisions of a sample, as in the paper, or from the `last`.
        unfinished: what becomes of revisions that ran out of tokens, which would teach a model to stop in the middle.

    Raises:
        InputError: for fewer than one round.
    """

    name: ClassVar[str] = "revisions"
    rounds: int = 4
    kept: Literal["all", "last"] = "all"
    unfinished: Literal["drop", "keep"] = "drop"

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise InputError(f"revisions.rounds={self.rounds}: must be at least 1")

    def settings(self) -> dict[str, Any]:
        """Number of rounds; `kept` changes rows, not records."""
        return {"rounds": self.rounds}

    def examples(self, constitution: Constitution) -> dict[str, Messages]:
        """The worked critiques."""
        return {EXAMPLES: worked_critiques(constitution)}

    def make(
        self, samples: Sequence[PromptRecord], constitution: Constitution, llm: RecordedCalls
    ) -> list[dict[str, Any]]:
        """Respond to every prompt with the model `generator`; let `judge` criticize and revise it, round after round.

        Returns:
            A record a sample: `sample`, `dropped`, `prompt`, `response`, `rounds` (`principle`, `critique`,
            `revision`, `finish` of the latter), `calls`.
        """
        asking = kept(samples)
        responses = llm.complete("generator", [LLMCall(sample, "response", sample.prompt) for sample in asking])
        first = {sample.number: response.text for sample, response in zip(asking, responses, strict=True)}
        rounds: dict[int, list[dict[str, str]]] = {sample.number: [] for sample in samples}
        for number in range(1, self.rounds + 1):
            asked = []
            for sample in kept(samples):
                earlier = rounds[sample.number]
                response = earlier[-1]["revision"] if earlier else first[sample.number]
                principle = constitution.draw(llm.seed, sample.number, f"round {number}")[0]
                asked.append((sample, principle, ask_critique(sample.prompt, response, principle.critique)))
            critiques = llm.complete(
                "judge", [LLMCall(sample, f"critique {number}", messages, EXAMPLES) for sample, _, messages in asked]
            )
            criticized = [
                (sample, principle, critique.text, ask_revision(messages, critique.text, principle.revision))
                for (sample, principle, messages), critique in zip(asked, critiques, strict=True)
                if sample.dropped is None
            ]
            revisions = llm.complete(
                "judge",
                [LLMCall(sample, f"revision {number}", messages, EXAMPLES) for sample, *_, messages in criticized],
            )
            for (sample, principle, critique, _), revision in zip(criticized, revisions, strict=True):
                made = {"principle": principle.name, "critique": critique, "revision": revision.text}
                rounds[sample.number].append(made | {"finish": revision.finish})
        return [sample.record(response=first.get(sample.number), rounds=rounds[sample.number]) for sample in samples]

    def rows(self, record: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Rows of a record, with the principles that made them."""
        rounds = [] if record["dropped"] else record["rounds"]
        for number, made in enumerate(rounds, start=1):
            if self.kept == "last" and number < len(rounds):
                continue
            if self.unfinished == "drop" and made["finish"] == "length":
                continue
            principles = [earlier["principle"] for earlier in rounds[:number]]
            row = {"prompt": record["prompt"], "response": made["revision"], "principles": principles, "round": number}
            yield row | provenance(record)

    def describe(self, records: Iterable[dict[str, Any]]) -> dict[str, float]:
        """Shares of responses that were left as they were and of revisions that ran out of tokens; change of length."""
        done = [record for record in records if not record["dropped"]]
        if not done:
            return {}
        last = [record["rounds"][-1]["revision"] for record in done]
        first = [record["response"] for record in done]
        unchanged = sum(before == after for before, after in zip(first, last, strict=True))
        finishes = [made["finish"] for record in done for made in record["rounds"]]
        return {
            "unchanged": unchanged / len(done),
            "unfinished_revisions": finishes.count("length") / len(finishes),
            "length_ratio": sum(map(len, last)) / sum(map(len, first)),
        }
