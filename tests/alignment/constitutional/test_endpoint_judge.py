"""A judge behind an endpoint that fails, limits, hangs up and responses: a real server on this machine."""

import json
import math
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment import EndpointJudge
from alignment.constitutional.choice_parsing import Place, count_votes, letter_log_probabilities, letter_of
from alignment.constitutional.endpoint_judge import Journal, transcript
from alignment.constitutional.http_client import Pacing, StoppedError, seconds_to_wait
from alignment.constitutional.judge import Request, Response
from common.errors import InputError
from tests.helpers.http_server import Failure, chat, serving, token

ASK = [{"role": "user", "content": "Who?"}]
LETTERS = ("(A)", "(B)")


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server is on this machine."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def prepared(url: str, folder: Path, **changes: Any) -> EndpointJudge:
    fast: dict[str, Any] = {"first_wait_seconds": 0.01, "timeout_seconds": 5.0, "retries": 4}
    judge = EndpointJudge(url, "tiny", **fast | changes)
    judge.prepare(lambda *_: pytest.fail("no model of ours is needed"), folder / "journal.jsonl")
    return judge


def echo(body: dict[str, Any]) -> dict[str, Any]:
    return chat(f"{body['messages'][-1]['content']} {body['seed']}")


def asked(count: int) -> list[Request]:
    return [Request([{"role": "user", "content": f"Question {number}"}], number + 2**40) for number in range(count)]


def test_responses_come_in_the_order_of_the_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "sesame")
    with serving(echo, *[Failure(pause=0.02)] * 20) as server:
        judge = prepared(server.url, tmp_path, concurrency=4, api_key_variable="SECRET", temperature=0.5, stop=["!"])
        found = judge.complete(asked(20))
        assert found == [Response(f"Question {number} {number}", "stop", 11, 3) for number in range(20)]
        assert 1 < server.max_in_flight <= 4
        _, path, headers, body = server.seen[0]
        assert path == "/v1/chat/completions"
        assert headers["Authorization"] == "Bearer sesame"
        assert body.keys() == {"model", "messages", "max_tokens", "seed", "temperature", "top_p", "stop"}
    assert "sesame" not in json.dumps(judge.identity())
    assert "sesame" not in (tmp_path / "journal.jsonl").read_text()


def test_what_may_pass_is_tried_again(tmp_path: Path) -> None:
    failures = [
        Failure(500, "oops"), Failure(hang_up=True), Failure(503), Failure(200, "{half"), Failure(429),
        Failure(200, "[]"), Failure(pause=0.6),
    ]  # fmt: skip
    with serving(echo, *failures) as server:
        judge = prepared(server.url, tmp_path, timeout_seconds=0.3, concurrency=2)
        assert [c.text for c in judge.complete(asked(5))] == [f"Question {number} {number}" for number in range(5)]
        assert judge.attempts == len(server.seen) == 5 + len(failures)


def test_it_gives_up_in_one_line(tmp_path: Path) -> None:
    with serving(echo, *[Failure(500, "out of\nmemory")] * 30) as server:
        judge = prepared(server.url, tmp_path, retries=2, concurrency=3)
        with pytest.raises(InputError, match=r"failed 3 times \(status 500: out of memory\): .* start again") as raised:
            judge.complete(asked(9))
        assert "\n" not in str(raised.value)
        assert len(server.seen) < 20  # one thread's failure ends the others' attempts
    judge = prepared(server.url, tmp_path, retries=1)
    with pytest.raises(InputError, match=r"failed 2 times \(ConnectError: "):
        judge.complete(asked(1))


def test_what_is_wrong_for_good_is_not_tried_again(tmp_path: Path) -> None:
    for failure, message in (
        (Failure(401, '{"error": "no key"}'), r"refuses a request \(status 401: .*no key"),
        (Failure(200, '{"answer": "no model"}'), "responds without `choices`"),
    ):
        with serving(echo, failure) as server:
            with pytest.raises(InputError, match=message):
                prepared(server.url, tmp_path).complete(asked(1))
            assert len(server.seen) == 1


def test_requests_the_server_will_never_serve_are_refused_alone(tmp_path: Path) -> None:
    def reply(body: dict[str, Any]) -> dict[str, Any]:
        return chat("", "content_filter") if body["seed"] == 2 else echo(body)

    failure = Failure(400, json.dumps({"error": {"code": "context_length_exceeded", "message": "too long"}}))
    with serving(reply, failure) as server:
        judge = prepared(server.url, tmp_path, concurrency=1)
        found = judge.complete(asked(3))
        assert [c.finish for c in found] == ["refused", "stop", "refused"]
        assert [c.text for c in found] == ["context_length_exceeded", "Question 1 1", "content_filter"]
        server.failures.append(failure)
        assert judge.choose([Request(ASK, 0)], LETTERS)[0].reason == "context_length_exceeded"
    assert EndpointJudge("http://x", "m").identity()["model"] == "m"


@pytest.mark.parametrize(
    ("reason", "finish"),
    [("stop", "stop"), ("eos_token", "stop"), ("end_turn", "stop"), ("length", "length"), ("max_tokens", "length"),
     ("MAX_TOKENS", "length"), ("model_length", "length"), ("abort", "length"), (None, "stop")],
)  # fmt: skip
def test_a_response_that_did_not_end_by_itself_is_unfinished(tmp_path: Path, reason: Any, finish: str) -> None:
    """Whatever a server calls it: what is taken for finished teaches a model where to stop."""
    with serving(lambda body: chat("a", reason)) as server:
        assert prepared(server.url, tmp_path).complete(asked(1))[0].finish == finish


def test_what_a_server_asks_for_is_waited_for_by_all(tmp_path: Path) -> None:
    with serving(echo, Failure(429, headers={"Retry-After": "0.4"})) as server:
        judge = prepared(server.url, tmp_path, concurrency=1, first_wait_seconds=0.001)
        judge.complete(asked(3))
        times = [moment for moment, *_ in server.seen]
        assert times[1] - times[0] >= 0.39
        server.failures.append(Failure(429, "limit", {"Retry-After": "3600"}))
        with pytest.raises(InputError, match=r"asks to wait 3600 s \(status 429: limit\), more than max_wait_seconds"):
            judge.complete([Request(ASK, 9)])


def test_retry_after_is_read_in_both_forms() -> None:
    now = datetime.now(UTC)
    assert seconds_to_wait(None) == seconds_to_wait("soon") == seconds_to_wait("-3") == 0.0
    assert seconds_to_wait("2.5") == 2.5
    assert 28 < seconds_to_wait(format_datetime(now + timedelta(seconds=30), usegmt=True)) <= 30
    assert seconds_to_wait(format_datetime(now - timedelta(seconds=30), usegmt=True)) == 0.0
    assert seconds_to_wait("nan") == 0.0


def test_requests_are_spread_over_the_minute(tmp_path: Path) -> None:
    with serving(echo) as server:
        judge = prepared(server.url, tmp_path, concurrency=4, requests_per_minute=1200)
        judge.complete(asked(8))
        times = sorted(moment for moment, *_ in server.seen)
        # As a whole, because a busy machine delays one more than the next.
        assert times[-1] - times[0] >= 7 * 0.05 - 0.04


def test_a_pause_holds_those_who_wait_already() -> None:
    pacing, ended = Pacing(600, threading.Event()), list[float]()

    def take_turn() -> None:
        pacing.wait()
        ended.append(time.monotonic())

    start = time.monotonic()
    threads = [threading.Thread(target=take_turn) for _ in range(4)]
    pacing.wait()  # the next four begin 0.1 s after each other
    for thread in threads:
        thread.start()
    pacing.pause(0.25)
    for thread in threads:
        thread.join()
    ended.sort()
    assert ended[0] - start >= 0.25
    assert ended[-1] - ended[0] >= 0.29  # still one after another


def test_waiting_ends_when_another_thread_has_failed() -> None:
    stopped = threading.Event()
    pacing = Pacing(None, stopped)
    pacing.pause(30)
    threading.Timer(0.05, stopped.set).start()
    start = time.monotonic()
    with pytest.raises(StoppedError):
        pacing.wait()
    assert time.monotonic() - start < 29


def test_letters_are_read_from_log_probabilities(tmp_path: Path) -> None:
    places = [token("_", _=-0.1, A=-3.0), token("B", A=math.log(0.2), B=math.log(0.5), **{" B": math.log(0.1)})]
    with serving(lambda body: chat("(B", logprobs={"content": places})) as server:
        (verdict,) = prepared(server.url, tmp_path).choose([Request(ASK, 0)], LETTERS)
        assert verdict.log_probabilities == pytest.approx((math.log(0.2), math.log(0.6)))
        assert (verdict.prompt_tokens, verdict.response_tokens) == (11, 3)
        body = server.seen[0][3]
        assert (body["logprobs"], body["top_logprobs"], body["temperature"]) == (True, 20, 0.0)
    with serving(lambda body: chat("(B")) as server:
        with pytest.raises(InputError, match="serves no log-probabilities for tiny: set `votes`"):
            prepared(server.url, tmp_path, further={"seed": None}).choose([Request(ASK, 0)], LETTERS)
        assert "seed" not in server.seen[0][3]


def test_letters_are_counted_from_votes(tmp_path: Path) -> None:
    responses = iter(["(A)", "B", "Neither.", "(A) of course", "A good response"])
    with serving(lambda body: chat(next(responses))) as server:
        (verdict,) = prepared(server.url, tmp_path, votes=5, concurrency=1).choose([Request(ASK, 8)], LETTERS)
        assert len({body["seed"] for *_, body in server.seen}) == 5
    assert verdict.log_probabilities == pytest.approx((math.log(3 / 5), math.log(2 / 5)))
    assert verdict.prompt_tokens == 55


def test_base_models_are_asked_by_transcript(tmp_path: Path) -> None:
    likeliest = [None, {"A": -0.5, "B": -1.5, " B": None, "C": -math.inf}]

    def reply(body: dict[str, Any]) -> dict[str, Any]:
        served = {"tokens": [" (", "A"], "token_logprobs": [-0.1, -0.5], "top_logprobs": likeliest}
        choice = {"text": " (A", "finish_reason": "length", "logprobs": served if "logprobs" in body else None}
        return {"choices": [choice]}

    with serving(reply) as server:
        judge = prepared(server.url, tmp_path, api="completions", top_logprobs=5)
        assert judge.complete([Request(ASK, 1)]) == [Response(" (A", "length", 0, 0)]
        assert judge.choose([Request(ASK, 1)], LETTERS)[0].log_probabilities == (-0.5, -1.5)
        assert [path for _, path, *_ in server.seen] == ["/v1/completions"] * 2
        assert server.seen[1][3]["prompt"] == "\n\nHuman: Who?\n\nAssistant:"
        assert server.seen[1][3]["logprobs"] == 5
    system = [{"role": "system", "content": "Be kind."}, *ASK, {"role": "assistant", "content": "I."}]
    assert transcript(system) == "Be kind.\n\nHuman: Who?\n\nAssistant: I.\n\nAssistant:"


def test_what_was_answered_is_not_asked_again(tmp_path: Path) -> None:
    """Not after a failure, and not after a kill in the middle of a line; recorded responses are forgotten."""
    with serving(echo) as server:
        judge = prepared(server.url, tmp_path, concurrency=1, retries=0)
        server.failures = [Failure(pause=0.001)] * 5 + [Failure(500)]
        with pytest.raises(InputError, match="failed 1 times"):
            judge.complete(asked(12))
        assert server.answered == 5
        journal = tmp_path / "journal.jsonl"
        whole = journal.read_bytes()
        assert whole.count(b"\n") == 5
        journal.write_bytes(whole[: whole.rindex(b"\n", 0, -1) + 20])  # the fifth is half
        server.seen.clear()
        again = prepared(server.url, tmp_path, concurrency=1, retries=0)
        assert [c.text for c in again.complete(asked(12))] == [f"Question {number} {number}" for number in range(12)]
        assert sorted(body["seed"] for *_, body in server.seen) == list(range(4, 12))
        again.commit()
        assert journal.read_bytes() == b""
        again.complete(asked(1))
        assert Journal(journal).get(server.seen[-1][3]) == echo(server.seen[-1][3])


def test_a_damaged_journal_is_named(tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    Journal(journal).add({"asked": 1}, {"answered": 2})
    whole = journal.read_bytes()
    for damage in (b"no JSON\n", b"[1]\n", b"[[1], 2]\n", b"\xff\n"):
        journal.write_bytes(whole + damage + whole)
        with pytest.raises(InputError, match="line 2: no response of an endpoint"):
            Journal(journal)
        assert journal.read_bytes() == whole + damage + whole


letters = st.sampled_from(["A", " A", "(A", "(A)", "B", "(B)", "B.", "C", "the", ""])
likeliest_tokens = st.dictionaries(letters, st.floats(-30, 0), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(places=st.lists(st.tuples(letters, likeliest_tokens), max_size=4))
def test_the_first_letter_drawn_decides(places: list[tuple[str, dict[str, float]]]) -> None:
    found = letter_log_probabilities([Place(drawn, list(likely.items())) for drawn, likely in places], ("A", "B"))
    first = next((likely for drawn, likely in places if drawn.strip(" ().") in ("A", "B")), None)
    if first is None:
        assert found == ()
        return
    for letter, value in zip("AB", found, strict=True):
        total = sum(math.exp(v) for name, v in first.items() if name.strip(" ().") == letter)
        assert value == pytest.approx(math.log(total) if total else min(first.values()))


def test_letters_in_words() -> None:
    read = {
        "(B)": "B", "A": "A", " B.": "B", "The response is (A).": "A", "Response: B": "B", "B, because it": "B",
        "A good one": None, "Neither": None, "": None, "ABBA": None, "(A) or (B)?": "A",
    }  # fmt: skip
    assert {text: letter_of(text, ("A", "B")) for text in read} == read
    refused = count_votes([Response("(A)", "stop"), Response("filtered", "refused")], ("A", "B"))
    assert (refused.log_probabilities, refused.reason) == ((), "filtered")
    assert count_votes([Response("no", "stop")], ("A", "B")).reason == "no_letter"


def test_impossible_settings_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    for changes, named in (
        ({"base_url": "localhost:8000"}, "base_url=localhost:8000: must begin with"),
        ({"base_url": "http://localhost:port/v1"}, "port/v1': is not a valid URL"),
        ({"base_url": "http://local\x00host/v1"}, "is not a valid URL"),
        ({"votes": 4, "temperature": 0.0}, "votes=4 at temperature=0"),
        ({"api_key_variable": "NO_SUCH_KEY"}, "NO_SUCH_KEY: this environment variable is not set"),
        ({"concurrency": 0}, "concurrency=0"), ({"votes": -1}, "votes=-1"),
        ({"timeout_seconds": 0}, "timeout_seconds=0"),
        ({"requests_per_minute": -2.0}, "requests_per_minute=-2"), ({"top_p": 1.5}, "top_p=1.5"),
        ({"response_price": -0.1}, "response_price=-0.1"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=named):
            EndpointJudge(**{"base_url": "http://localhost:1/v1", "model": "m"} | changes)  # type: ignore[arg-type]
