"""Records that are cut anywhere and made again are the same to the byte; what else is wrong with them is named."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alignment.constitutional.ai_feedback import Preferences
from alignment.constitutional.constitution import Constitution, Principle
from alignment.constitutional.llm_calls import PromptRecord, RecordedCalls
from alignment.constitutional.record_log import Records, costs, json_lines, write_if_changed
from common.errors import InputError
from tests.helpers.scripted_judge import ScriptedJudge

LAW = Constitution((Principle("kind", "Critique.", "Revise.", "Which is kinder?"),))


def made(folder: Path, count: int = 11, batch: int = 4, judge: ScriptedJudge | None = None) -> tuple[Any, ...]:
    """Records of a stage, its judge and what it counted."""
    judge = judge or ScriptedJudge(prompt_price=2.0)
    stage = Preferences()
    samples = [PromptRecord(number, [{"role": "user", "content": f"Prompt {number}"}]) for number in range(count)]
    models = {"generator": judge, "judge": judge}
    llm = RecordedCalls(models, stage.examples(LAW), seed=1)
    with Records(folder) as records:
        records.require({"stage": "preferences"})
        records.make(samples, batch, lambda part: stage.make(part, LAW, llm), llm, "test")
        return (folder / "records.jsonl").read_bytes(), judge, costs(records, models)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    content: bytes = made(tmp_path_factory.mktemp("whole"))[0]
    return content


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1))
def test_cut_anywhere_and_made_again_it_is_the_same(share: float, whole: bytes, tmp_path: Path) -> None:
    place = int(share * len(whole))
    (tmp_path / "records.jsonl").write_bytes(whole[:place])
    content, judge, _ = made(tmp_path)
    assert content == whole
    # Whole batches before the cut are not asked about again.
    done = whole[:place].count(b"\n")
    missing = 11 - (done if done == 11 else done - done % 4)
    assert len(judge.asked) == 4 * missing
    assert judge.commits == -(-missing // 4)


def test_every_batch_is_recorded_before_the_next_begins(tmp_path: Path, whole: bytes) -> None:
    class Watching(ScriptedJudge):
        def complete(self, requests: Any) -> Any:
            path = tmp_path / "records.jsonl"
            lines.append(path.read_bytes().count(b"\n") if path.exists() else 0)
            return super().complete(requests)

    lines: list[int] = []
    assert made(tmp_path, judge=Watching())[0] == whole
    assert lines == [0, 4, 8]


def test_more_samples_go_on_from_the_last_whole_batch(tmp_path: Path, whole: bytes) -> None:
    made(tmp_path, count=6)
    content, judge, _ = made(tmp_path)
    assert content == whole
    assert len(judge.asked) == 4 * 7
    with pytest.raises(InputError, match="holds 11 records, there are 3 samples"):
        made(tmp_path, count=3)
    assert (tmp_path / "records.jsonl").read_bytes() == whole


def test_what_it_cost_is_counted_over_restarts(tmp_path: Path) -> None:
    made(tmp_path, count=4, judge=ScriptedJudge(seconds=0.002))
    seconds = json.loads((tmp_path / "seconds.json").read_text())
    _, judge, found = made(tmp_path)
    records = [json.loads(line) for line in (tmp_path / "records.jsonl").read_text().splitlines()]
    for name, calls in (("generator", 22), ("judge", 22)):
        mine = [call for record in records for call in record["calls"] if call["model"] == name]
        assert found[name]["calls"] == len(mine) == calls
        tokens = {kind: sum(call[kind] for call in mine) for kind in ("prompt_tokens", "response_tokens")}
        assert {kind: found[name][kind] for kind in tokens} == tokens
        assert found[name]["price"] == pytest.approx(2.0 * tokens["prompt_tokens"] / 1e6)
        assert found[name]["seconds"] > seconds[name] > 8 * 0.002
    assert judge.prompt_price == 2.0


def test_damage_and_strangers_are_refused(tmp_path: Path, whole: bytes) -> None:
    lines = whole.splitlines(keepends=True)
    path = tmp_path / "records.jsonl"
    for damaged in (lines[0] + b"{broken}\n", lines[1], lines[0] + lines[0], b"[1]\n"):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"records.jsonl, line \d: no record of sample \d, the file is damaged"):
            made(tmp_path)
        assert path.read_bytes() == damaged
    path.write_bytes(whole)
    with Records(tmp_path) as records:
        with pytest.raises(InputError, match=r"made with another seed, stage \(see identity.json there\)"):
            records.require({"stage": "revisions", "seed": 3})
        with pytest.raises(InputError, match="another process writes there"):
            Records(tmp_path)
    assert made(tmp_path)[0] == whole


def test_a_file_that_says_the_same_keeps_its_time(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    make: Callable[[], bytes] = lambda: json_lines([{"a": "ä"}, {"b": 1}])  # noqa: E731
    write_if_changed(path, [make()])
    before = path.stat()
    write_if_changed(path, iter([make()]))
    assert path.stat() == before
    assert path.read_text(encoding="utf-8") == '{"a": "ä"}\n{"b": 1}\n'
    write_if_changed(path, [b"{}\n"])
    assert path.read_bytes() == b"{}\n"
    assert [entry.name for entry in tmp_path.iterdir()] == ["rows.jsonl"]
