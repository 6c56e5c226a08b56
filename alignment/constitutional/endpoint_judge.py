"""LLM judge behind an OpenAI-compatible endpoint: OpenAI, vLLM, llama.cpp's server and others of that protocol.

Whether it responds the same twice is the server's business: each request names its seed, and responses that are not yet
in the records are kept in a journal, so that what was paid for is not asked again after a kill. A letter's probability
is read where the first token that is one of the letters was drawn, from the likeliest tokens there; where none are
served, from votes.
"""

import json
import math
import os
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import xxhash

from alignment.constitutional.choice_parsing import (
    chat_places,
    completion_places,
    count_votes,
    letter_log_probabilities,
)
from alignment.constitutional.http_client import Client, RefusedError, require_address, secret_of
from alignment.constitutional.judge import (
    ChoiceLogProbs,
    Judge,
    OpenModel,
    Request,
    Response,
    require_prices,
    require_sizes,
)
from common.constants import Messages
from common.errors import InputError

REFUSALS = re.compile(r"context_length_exceeded|content_filter|content_policy|maximum context length|max_model_len")
"""In the body of a refused request: it is this request that cannot be served, not all of them."""

FINISHED = ("stop", "eos", "eos_token", "end_turn", "stop_sequence", "STOP", None)
"""Reasons by which servers say that a response ended by itself, or say nothing; any other one cut it off."""

MAX_VERDICT_TOKENS = 8
"""Tokens of a response in which a letter is looked for."""


class EndpointJudge(Judge):
    """A model served over HTTP.

    Args:
        base_url: with the version, as in `http://localhost:8000/v1`.
        model: name that the server knows.
        api: `chat`, or `completions` for base models, which get the conversation as a transcript of Human and
            Assistant.
        api_key_variable: environment variable that holds the key; null where none is needed.
        max_new_tokens: of a response, at most.
        temperature, top_p: of the sampling.
        stop: texts that end a response; at most four are allowed by OpenAI.
        votes: 0 reads letters' probabilities from log-probabilities; else the letter is asked for so many times, and
            its probability is (hits + 1) / (votes + options), Laplace's rule of succession.
        top_logprobs: likeliest tokens served with each token drawn; OpenAI allows 20 for chat, 5 for completions.
        further: added to the body of every request, as servers' own options are; null takes a key out, as `seed` for
            servers that refuse it.
        concurrency: requests in flight.
        requests_per_minute: at most; null for any number.
        timeout_seconds: for a connection, and for each piece of a response.
        retries: of a request that failed in a way that may pass: no connection, busy, limited, no JSON.
        first_wait_seconds, max_wait_seconds: between attempts, see `alignment.constitutional.http_client`.
        prompt_price, response_price: of a million tokens, in any currency.

    Raises:
        InputError: for sizes or an address that cannot be, or a key that is not there.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        api: Literal["chat", "completions"] = "chat",
        api_key_variable: str | None = None,
        max_new_tokens: int = 512,
        temperature: float = 1.0,
        top_p: float = 1.0,
        stop: list[str] | None = None,
        votes: int = 0,
        top_logprobs: int = 20,
        further: dict[str, Any] | None = None,
        concurrency: int = 8,
        requests_per_minute: float | None = None,
        timeout_seconds: float = 120.0,
        retries: int = 8,
        first_wait_seconds: float = 1.0,
        max_wait_seconds: float = 120.0,
        prompt_price: float = 0.0,
        response_price: float = 0.0,
    ) -> None:
        sizes = {"max_new_tokens": max_new_tokens, "concurrency": concurrency, "top_logprobs": top_logprobs}
        require_sizes(sizes, stop)
        require_prices(prompt_price, response_price)
        require_address("base_url", base_url)
        for name, value in (("votes", votes), ("retries", retries), ("temperature", temperature)):
            if value < 0:
                raise InputError(f"{name}={value}: must not be negative")
        if votes and not temperature:
            raise InputError(f"votes={votes} at temperature=0: all of them would be one, give a temperature above 0")
        waits = (timeout_seconds, first_wait_seconds, max_wait_seconds, requests_per_minute or 1.0)
        if not all(0 < wait < math.inf for wait in waits) or not 0 < top_p <= 1:
            raise InputError(
                f"timeout_seconds={timeout_seconds}, first_wait_seconds={first_wait_seconds}, "
                f"max_wait_seconds={max_wait_seconds}, requests_per_minute={requests_per_minute}, "
                f"top_p={top_p}: must be numbers above 0, top_p at most 1"
            )
        if api_key_variable is not None:
            secret_of(api_key_variable)
        self.base_url, self.model, self.api, self.key_variable = base_url.rstrip("/"), model, api, api_key_variable
        self.settings: dict[str, Any] = {"temperature": temperature, "top_p": top_p}
        if stop:
            self.settings["stop"] = stop
        self.max_new_tokens, self.votes, self.top_logprobs, self.further = (
            max_new_tokens,
            votes,
            top_logprobs,
            further or {},
        )
        self.connection: dict[str, Any] = {
            "concurrency": concurrency, "requests_per_minute": requests_per_minute, "timeout_seconds": timeout_seconds,
            "retries": retries, "first_wait_seconds": first_wait_seconds, "max_wait_seconds": max_wait_seconds,
        }  # fmt: skip
        self.prompt_price, self.response_price = prompt_price, response_price

    def prepare(self, open_model: OpenModel, journal: Path) -> None:
        """Open the connection and what an earlier process asked and did not record."""
        headers = {"Authorization": f"Bearer {secret_of(self.key_variable)}"} if self.key_variable else {}
        self._client = Client(self.base_url, headers, **self.connection)
        self._journal = Journal(journal)

    def commit(self) -> None:
        """All responses so far are in the records."""
        self._journal.clear()

    @property
    def attempts(self) -> int:
        """Requests sent by this process, those that failed included."""
        return self._client.attempts

    def identity(self) -> Any:
        """Server, model and sampling."""
        names = ("base_url", "model", "api", "max_new_tokens", "votes", "top_logprobs", "further")
        return {name: getattr(self, name) for name in names} | self.settings

    def complete(self, requests: Sequence[Request]) -> list[Response]:
        """A text in response to each request, in their order."""
        return self._client.map(self._complete, requests)

    def choose(self, requests: Sequence[Request], options: Sequence[str]) -> list[ChoiceLogProbs]:
        """Log-probabilities of each option's letter as the response to each request, in their order."""
        letters = [re.sub(r"\W", "", option) for option in options]
        if not self.votes:
            return self._client.map(lambda request: self._choose(request, letters), requests)
        ballots = [Request(r.messages, r.number ^ vote) for r in requests for vote in range(self.votes)]
        responses = self._client.map(lambda request: self._complete(request, MAX_VERDICT_TOKENS), ballots)
        return [
            count_votes(responses[place : place + self.votes], letters)
            for place in range(0, len(responses), self.votes)
        ]

    def _complete(self, request: Request, max_new_tokens: int | None = None) -> Response:
        body = self._body(request, max_new_tokens or self.max_new_tokens) | self.settings
        try:
            payload = self._ask(body)
        except _RefusedRequestError as refusal:
            return Response(str(refusal), "refused")
        choice = payload["choices"][0]
        if choice.get("finish_reason") == "content_filter":
            return Response("content_filter", "refused", *_usage(payload))
        text = (choice.get("message") or {}).get("content") if self.api == "chat" else choice.get("text")
        finish: Literal["stop", "length"] = "stop" if choice.get("finish_reason") in FINISHED else "length"
        # JSON may spell halves of characters, which no file and no further request could hold.
        return Response((text or "").encode("utf-8", "replace").decode(), finish, *_usage(payload))

    def _choose(self, request: Request, letters: Sequence[str]) -> ChoiceLogProbs:
        chat = {"logprobs": True, "top_logprobs": self.top_logprobs}
        asked = chat if self.api == "chat" else {"logprobs": self.top_logprobs}
        try:
            payload = self._ask(self._body(request, MAX_VERDICT_TOKENS) | {"temperature": 0.0} | asked)
        except _RefusedRequestError as refusal:
            return ChoiceLogProbs((), str(refusal))
        served = payload["choices"][0].get("logprobs") or {}
        places = chat_places(served) if self.api == "chat" else completion_places(served)
        if not places:
            raise InputError(
                f"endpoint {self.base_url} serves no log-probabilities for {self.model}: set `votes` to ask for the "
                "letter several times instead"
            )
        return ChoiceLogProbs(letter_log_probabilities(places, letters), "no_letter", *_usage(payload))

    def _body(self, request: Request, max_new_tokens: int) -> dict[str, Any]:
        # Below 2^31, which every server can hold.
        seed = request.number % 2**31
        body: dict[str, Any] = {"model": self.model, "max_tokens": max_new_tokens, "seed": seed}
        if self.api == "chat":
            body["messages"] = request.messages
        else:
            body["prompt"] = transcript(request.messages)
        return body

    def _ask(self, body: dict[str, Any]) -> dict[str, Any]:
        """What the server says, or said before a kill."""
        body = {name: value for name, value in (body | self.further).items() if value is not None}
        known = self._journal.get(body)
        if known is not None:
            return known
        path = "/chat/completions" if self.api == "chat" else "/completions"
        try:
            payload = self._client.post(path, body, REFUSALS)
        except RefusedError as refusal:
            if refused := REFUSALS.search(refusal.body):
                raise _RefusedRequestError(refused[0].replace(" ", "_")) from refusal
            raise InputError(
                f"endpoint {self.base_url} refuses a request ({refusal}): correct the configuration"
            ) from (refusal)
        if not isinstance(payload.get("choices"), list) or not payload["choices"]:
            raise InputError(f"endpoint {self.base_url} responds without `choices`: it is not OpenAI-compatible")
        self._journal.add(body, payload)
        return payload


class _RefusedRequestError(Exception):
    """One request that this server will never serve, with the reason."""


class Journal:
    """Responses by their requests, on disk before anyone uses them, until they are in the records.

    Args:
        path: of JSON lines; a half line that a kill left is forgotten.

    Raises:
        InputError: for a line that is damaged in another way.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        self._known: dict[str, dict[str, Any]] = {}
        whole = 0
        for line in path.read_bytes().splitlines(keepends=True) if path.exists() else []:
            if not line.endswith(b"\n"):
                break
            try:
                key, payload = json.loads(line)
                self._known[key] = payload
            except (ValueError, TypeError) as error:
                raise InputError(
                    f"{path}, line {len(self._known) + 1}: no response of an endpoint, the file is damaged: delete it"
                ) from error
            whole += len(line)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab")
        self._file.truncate(whole)

    def get(self, body: dict[str, Any]) -> dict[str, Any] | None:
        """The response to a request, if there was one."""
        return self._known.get(_key(body))

    def add(self, body: dict[str, Any], payload: dict[str, Any]) -> None:
        """Keep a response."""
        with self._lock:
            self._known[_key(body)] = payload
            self._file.write(json.dumps([_key(body), payload]).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._known.clear()
            self._file.truncate(0)


def transcript(messages: Messages) -> str:
    """A conversation as text for a base model, up to where the assistant speaks; a system message comes first."""
    speakers = {"user": "\n\nHuman: ", "assistant": "\n\nAssistant: "}
    return "".join(speakers.get(m["role"], "") + m["content"] for m in messages) + "\n\nAssistant:"


def _usage(payload: dict[str, Any]) -> tuple[int, int]:
    usage = payload.get("usage") or {}
    return int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)


def _key(body: dict[str, Any]) -> str:
    return xxhash.xxh3_128_hexdigest(json.dumps(body, sort_keys=True).encode())
