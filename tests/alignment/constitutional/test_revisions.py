"""Critiques and revisions by a scripted model: every request is what the record says, every row follows from it."""

from typing import Any

from alignment.constitutional.constitution import Constitution, Principle, WorkedCritique
from alignment.constitutional.llm_calls import PromptRecord, RecordedCalls
from alignment.constitutional.revisions import Revisions
from common.constants import Messages
from tests.helpers.scripted_judge import ScriptedJudge

LAW = Constitution(
    tuple(Principle(name, f"Critique {name}.", f"Revise {name}.", f"Which is {name}?") for name in ("kind", "true")),
    (WorkedCritique("true", "Q", "A", "C", "R"),),
)
SHOWN = ["Q", "A", "Critique true.", "C", "Revise true.", "R"]


def revised(stage: Revisions, count: int = 6, **settings: Any) -> tuple[ScriptedJudge, list[dict[str, Any]]]:
    judge = ScriptedJudge(**settings)
    prompts: list[Messages] = [[{"role": "user", "content": f"Prompt {number}"}] for number in range(count)]
    samples = [PromptRecord(number, prompt, f"group {number}") for number, prompt in enumerate(prompts)]
    llm = RecordedCalls({"generator": judge, "judge": judge}, stage.examples(LAW), seed=3)
    return judge, stage.make(samples, LAW, llm)


def said(messages: Messages) -> list[str]:
    return [message["content"] for message in messages]


def test_every_request_is_in_its_record() -> None:
    judge, records = revised(Revisions(rounds=2))
    examples = Revisions().examples(LAW)
    asked = {request.number: request.messages for request in judge.asked}
    assert len(asked) == len(judge.asked) == 6 * 5
    recorded = {
        call["number"]: [*(examples[call["examples"]] if "examples" in call else []), *call["messages"]]
        for record in records
        for call in record["calls"]
    }
    assert recorded == asked
    assert all(call["finish"] == "stop" and call["response"] for record in records for call in record["calls"])


def test_a_revision_takes_the_responses_place() -> None:
    _, records = revised(Revisions(rounds=2))
    for number, record in enumerate(records):
        response, (first, second) = record["response"], record["rounds"]
        by_purpose = {call["purpose"]: call for call in record["calls"]}
        assert list(by_purpose) == ["response", "critique 1", "revision 1", "critique 2", "revision 2"]
        assert said(by_purpose["response"]["messages"]) == [f"Prompt {number}"]
        for place, (made, before) in enumerate(((first, response), (second, first["revision"])), start=1):
            name = made["principle"]
            assert name == LAW.draw(3, number, f"round {place}")[0].name
            critique, revision = (by_purpose[f"{what} {place}"] for what in ("critique", "revision"))
            assert said(critique["messages"]) == [f"Prompt {number}", before, f"Critique {name}."]
            assert said(revision["messages"]) == [*said(critique["messages"]), made["critique"], f"Revise {name}."]
            assert made["critique"] == f"It could be better (Critique {name}.)."
            assert made["revision"] == f"{before} | Revise {name}."
        assert response == response.strip() == by_purpose["response"]["response"].strip()
    assert said(Revisions().examples(LAW)["critiques"]) == SHOWN


def test_rows_are_all_revisions_or_the_last() -> None:
    _, records = revised(Revisions(rounds=3))
    for record in records:
        rows = list(Revisions(rounds=3).rows(record))
        assert [row["response"] for row in rows] == [made["revision"] for made in record["rounds"]]
        assert [len(row["principles"]) for row in rows] == [row["round"] for row in rows] == [1, 2, 3]
        assert rows[0]["group"] == f"group {record['sample']}"
        assert list(Revisions(rounds=3, kept="last").rows(record)) == rows[-1:]
        cut = record | {"rounds": [*record["rounds"][:2], record["rounds"][2] | {"finish": "length"}]}
        assert list(Revisions(rounds=3).rows(cut)) == rows[:2]
        assert list(Revisions(rounds=3, unfinished="keep").rows(cut)) == rows
    described = Revisions(rounds=3).describe(records)
    assert described["unchanged"] == described["unfinished_revisions"] == 0.0
    assert described["length_ratio"] > 1


def test_an_empty_response_drops_its_sample_alone() -> None:
    whole = {record["sample"]: record for record in revised(Revisions(rounds=2), count=60)[1]}
    judge, records = revised(Revisions(rounds=2), count=60, empty=0.05)
    dropped = [record for record in records if record["dropped"]]
    assert 3 < len(dropped) < 40
    assert {record["dropped"] for record in dropped} <= {"response: empty", "critique: empty", "revision: empty"}
    for record in records:
        if record["dropped"]:
            assert record["calls"][-1]["response"] == " \n"
            assert not list(Revisions().rows(record))
            assert "rounds" not in record
        else:
            assert record == whole[record["sample"]]
    assert len(judge.asked) == sum(len(record["calls"]) for record in records) < 300
    assert Revisions().describe(dropped) == {}
