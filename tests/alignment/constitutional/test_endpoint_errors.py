"""Endpoints' keys, which nothing prints, and errors that come with a status of success."""

import json
from pathlib import Path
from typing import Any

import pytest

from alignment import EndpointJudge
from alignment.constitutional.http_client import Client
from alignment.constitutional.judge import Request
from common.errors import InputError
from tests.helpers.http_server import Failure, chat, serving

ASKED = [Request([{"role": "user", "content": "Who?"}], number) for number in range(3)]


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server is on this machine."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def prepared(url: str, folder: Path, **changes: Any) -> EndpointJudge:
    fast: dict[str, Any] = {"first_wait_seconds": 0.01, "timeout_seconds": 5.0, "retries": 4, "concurrency": 1}
    judge = EndpointJudge(url, "tiny", **fast | changes)
    judge.prepare(lambda *_: pytest.fail("no model of ours is needed"), folder / "journal.jsonl")
    return judge


@pytest.mark.parametrize("ending", ["\r", "\n", "\r\n", " "])
def test_a_key_is_taken_without_the_line_end_of_its_file(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", f"sk-sesame{ending}")
    with serving(lambda body: chat("yes")) as server:
        prepared(server.url, tmp_path, api_key_variable="SECRET").complete(ASKED[:1])
        assert server.seen[0][2]["Authorization"] == "Bearer sk-sesame"


@pytest.mark.parametrize("key", ["sk-se\nsame", "sk-se\x01same", "sk-se same", "sk-sésame"])
def test_a_key_that_no_header_can_carry_is_refused_at_once_and_not_printed(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", key)
    with pytest.raises(InputError, match="api_key_variable=SECRET: the key holds") as raised:
        EndpointJudge("http://localhost:1/v1", "tiny", api_key_variable="SECRET")
    assert "sk-" not in str(raised.value)


def test_a_header_that_breaks_http_is_sent_once_and_not_printed() -> None:
    with serving(lambda body: chat("yes")) as server:
        client = Client(server.url, {"Authorization": "Bearer sk-sesame\r"}, 1, None, 5.0, 4, 0.01, 0.01)
        with pytest.raises(InputError, match="a request cannot be sent") as raised:
            client.post("/chat/completions", {})
    assert client.attempts == 1
    assert "sesame" not in str(raised.value)


@pytest.mark.parametrize("url", ["https://me:sesame@host/v1", "http://sesame@host:8000/v1", "me:sesame@host/v1"])
def test_an_address_with_a_password_is_refused_and_not_printed(url: str) -> None:
    with pytest.raises(InputError, match="base_url holds a user or password") as raised:
        EndpointJudge(url, "tiny")
    assert "sesame" not in str(raised.value)
    assert EndpointJudge("http://host/v1/@me", "tiny").base_url == "http://host/v1/@me"


def error(**described: Any) -> Failure:
    return Failure(200, json.dumps({"error": {"message": "the provider is busy"} | described}))


def test_an_error_with_a_status_of_success_may_pass(tmp_path: Path) -> None:
    failures = [
        error(),
        error(code=502),
        error(code="429"),
        error(code="overloaded"),
        Failure(200, '{"error": "busy"}'),
    ]
    with serving(lambda body: chat("yes"), *failures) as server:
        judge = prepared(server.url, tmp_path, retries=5)
        assert [completion.text for completion in judge.complete(ASKED)] == ["yes"] * 3
        assert judge.attempts == 3 + len(failures)


def test_an_error_with_a_status_of_success_has_the_meaning_of_its_code(tmp_path: Path) -> None:
    with serving(lambda body: chat("yes"), error(code=401)) as server:
        judge = prepared(server.url, tmp_path)
        with pytest.raises(InputError, match=r"refuses a request \(status 401: .*the provider is busy"):
            judge.complete(ASKED)
        assert judge.attempts == 1
    with serving(lambda body: chat("yes"), error(code="context_length_exceeded")) as server:
        found = prepared(server.url, tmp_path).complete(ASKED)
        assert [completion.finish for completion in found] == ["refused", "stop", "stop"]
