"""Soft labels of a scripted judge whose right answers are known, a bias toward a letter injected and canceled."""

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignment.constitutional.ai_feedback import DECIDE, Preferences, log_odds_of_first, soft_label
from alignment.constitutional.constitution import Constitution, Principle, WorkedComparison
from alignment.constitutional.judge import ChoiceLogProbs, Request, Response
from alignment.constitutional.llm_calls import PromptRecord, RecordedCalls
from common.errors import InputError
from tests.helpers.scripted_judge import SCALE, ScriptedJudge, quality

LAW = Constitution(
    tuple(Principle(name, "Critique.", "Revise.", f"Which is {name}?") for name in ("kind", "true", "short")),
    (),
    (WorkedComparison("kind", "Q", "good", "bad", "{better} beats {worse}"),) * 2,
)


def preferred(stage: Preferences, count: int = 40, judge: ScriptedJudge | None = None) -> list[dict[str, Any]]:
    judge = judge or ScriptedJudge()
    samples = [PromptRecord(number, [{"role": "user", "content": f"Prompt {number}"}]) for number in range(count)]
    llm = RecordedCalls({"generator": judge, "judge": judge}, stage.examples(LAW), seed=5)
    return stage.make(samples, LAW, llm)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize("bias", [0.0, 3.0, -8.0])
@pytest.mark.parametrize("principles", [1, 3])
def test_labels_are_right_and_a_bias_cancels(bias: float, principles: int) -> None:
    """One order alone would be wrong for every pair once the bias is larger than what there is to see."""
    stage = Preferences(principles_per_pair=principles)
    records = preferred(stage, judge=ScriptedJudge(bias=bias))
    alone = 0
    for record in records:
        first, second = map(quality, record["responses"])
        assert record["probability"] == pytest.approx(sigmoid(SCALE * (first - second)), abs=1e-9)
        assert len(record["judgments"]) == principles
        for judgment in record["judgments"]:
            assert judgment["position_bias"] == pytest.approx(bias, abs=1e-9)
            alone += (judgment["log_odds"][0] > 0) == (first > second)
        (row,) = stage.rows(record)
        assert quality(row["chosen"]) > quality(row["rejected"])  # label accuracy 100 %
        assert row["preference_probability"] == pytest.approx(sigmoid(SCALE * abs(first - second)), abs=1e-9)
        assert row["principles"] == [p.name for p in LAW.draw(5, record["sample"], "comparison", principles)]
    described = stage.describe(records)
    assert described["position_bias"] == pytest.approx(bias, abs=1e-9)
    assert described["decided_by_position"] == (1.0 if abs(bias) > SCALE else described["decided_by_position"])
    if abs(bias) > SCALE:
        assert 0.2 < alone / (len(records) * principles) < 0.8  # a coin


def test_every_request_is_in_its_record_in_both_orders() -> None:
    judge, stage = ScriptedJudge(), Preferences(chain_of_thought=True)
    records = preferred(stage, count=8, judge=judge)
    examples = stage.examples(LAW)
    recorded = {}
    for record in records:
        first, second = record["responses"]
        assert [call["purpose"].split()[0] for call in record["calls"]] == [
            "response", "response", "reasoning", "reasoning", "comparison", "comparison",
        ]  # fmt: skip
        for call in record["calls"]:
            turned = call["purpose"].endswith("BA")
            shown = examples[call["examples"]] if "examples" in call else []
            recorded[call["number"]] = [*shown, *call["messages"]]
            if "examples" in call:
                options = (second, first) if turned else (first, second)
                assert "(A) {}\n(B) {}\n".format(*options) in call["messages"][0]["content"]
                assert call["examples"].endswith("BA") == turned
            if "log_probabilities" in call:
                assert call["options"] == ["(A)", "(B)"]
                assert call["messages"][1]["content"].startswith("I reason about it")
                assert call["messages"][2]["content"] == DECIDE
    assert recorded == {request.number: request.messages for request in judge.asked}
    assert len(recorded) == len(judge.asked)


@pytest.mark.parametrize("clamp", [0.6, 0.75])
def test_labels_are_clamped_after_reasoning_only(clamp: float) -> None:
    sure = preferred(Preferences(chain_of_thought=False, clamp=clamp))
    clamped = preferred(Preferences(chain_of_thought=True, clamp=clamp))
    assert max(max(r["probability"], 1 - r["probability"]) for r in sure) > clamp
    for record in clamped:
        first, second = map(quality, record["responses"])
        free = sigmoid(SCALE * (first - second))
        assert record["probability"] == pytest.approx(min(max(free, 1 - clamp), clamp), abs=1e-9)
    assert {clamp, 1 - clamp} <= {round(r["probability"], 12) for r in clamped}


log_odds = st.floats(-800, 800)


@given(
    truths=st.lists(log_odds, min_size=1, max_size=4),
    bias=st.floats(-100, 100),
    clamp=st.one_of(st.none(), st.floats(0.51, 1)),
)
def test_a_label_is_a_probability_that_turns_round_with_its_responses(
    truths: list[float], bias: float, clamp: float | None
) -> None:
    asked = [[truth + bias, truth - bias] for truth in truths]
    label = soft_label(asked, clamp)
    assert label == pytest.approx(soft_label([[truth] for truth in truths], clamp), abs=1e-9)
    assert 0 <= label <= 1
    assert soft_label([[-x for x in orders] for orders in asked], clamp) == pytest.approx(1 - label, abs=1e-9)
    if clamp is not None:
        assert 1 - clamp <= label <= clamp


def test_log_odds_of_the_first_response() -> None:
    assert log_odds_of_first((-1.0, -3.0), turned=False) == 2.0
    assert log_odds_of_first((-1.0, -3.0), turned=True) == -2.0


def test_pairs_without_a_difference_or_a_verdict_are_dropped() -> None:
    class Same(ScriptedJudge):
        def _complete(self, request: Request) -> Response:
            return Response("Same.", "stop", 1, 1)

    class Silent(ScriptedJudge):
        def choose(self, requests: Any, options: Any) -> list[ChoiceLogProbs]:
            found = super().choose(requests, options)
            return [
                ChoiceLogProbs((), "no_letter") if place % 5 == 0 else verdict for place, verdict in enumerate(found)
            ]

    same = preferred(Preferences(), judge=Same())
    assert {record["dropped"] for record in same} == {"equal_responses"}
    assert all(len(record["calls"]) == 2 for record in same)
    silent = preferred(Preferences(), judge=Silent())
    assert {record["dropped"] for record in silent} == {None, "comparison: no_letter"}
    assert all(not list(Preferences().rows(record)) for record in silent if record["dropped"])


def test_impossible_settings_are_refused() -> None:
    for settings in ({"principles_per_pair": 0}, {"clamp": 0.5}, {"clamp": 1.1}):
        with pytest.raises(InputError, match="principles_per_pair=|clamp="):
            Preferences(**settings)  # type: ignore[arg-type]


class Cut(ScriptedJudge):
    """Runs out of tokens in one of three responses."""

    def _complete(self, request: Request) -> Response:
        completion = super()._complete(request)
        is_cut = request.number % 3 == 0 and "Options:" not in request.messages[-1]["content"]
        return replace(completion, finish="length") if is_cut else completion


def test_responses_that_ran_out_of_tokens_are_not_learned() -> None:
    """As the chosen one they would teach to stop in the middle, as the rejected one that it is wrong to go on."""
    assert Preferences().unfinished == "drop"
    judge = Cut()
    records = preferred(Preferences(), count=60, judge=judge)
    for record in records:
        finishes = [call["finish"] for call in record["calls"] if call["purpose"].startswith("response")]
        assert record["dropped"] == ("unfinished_response" if "length" in finishes else None)
        assert len(list(Preferences().rows(record))) == (record["dropped"] is None)
        assert len(record["calls"]) == (2 if record["dropped"] else 4)  # nothing is judged in vain
    assert 10 < sum(record["dropped"] is None for record in records) < 50
    kept = preferred(Preferences(unfinished="keep"), count=60, judge=Cut())
    assert all(len(list(Preferences().rows(record))) == 1 for record in kept)
    assert Preferences(unfinished="keep").settings() != Preferences().settings()
