"""HTTP client for JSON with retries, backoff and rate limits, from several threads.

Waiting times grow by powers of two and are drawn at random each time (full jitter: Brooker 2015, "Exponential backoff
and jitter"), so that clients that failed together do not come back together. What a server asks for by `Retry-After`
every thread waits for. Threads and not coroutines: the responses are needed all at once, and one thread per request in
flight is cheap beside a model's seconds.
"""

import os
import random
import re
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from common.errors import InputError

TRANSIENT = {408, 409, 425, 429, 500, 502, 503, 504, 529}
"""Status codes after which the same request may succeed."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class RefusedError(Exception):
    """A server understood a request and will not serve it, now or later."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(f"status {status}: {' '.join(body.split())[:200]}")
        self.status, self.body = status, body


class StoppedError(Exception):
    """Another thread has failed for good."""


class Pacing:
    """Rate limit: start times of requests.

    Args:
        requests_per_minute: at most, evenly spread; None for any number.
        stopped: ends all waiting.
    """

    def __init__(self, requests_per_minute: float | None, stopped: threading.Event) -> None:
        self._spacing = 0.0 if requests_per_minute is None else 60 / requests_per_minute
        self._lock, self._stopped = threading.Lock(), stopped
        self._next = self._not_before = 0.0

    def wait(self) -> None:
        """Wait for this thread's turn; a pause that begins meanwhile costs it the turn."""
        while True:
            with self._lock:
                start = max(self._next, self._not_before, time.monotonic())
                self._next = start + self._spacing
            self.sleep(start - time.monotonic())
            if self._not_before <= start:
                return

    def pause(self, seconds: float) -> None:
        """Let no request start for so long."""
        with self._lock:
            self._not_before = max(self._not_before, time.monotonic() + seconds)

    def sleep(self, seconds: float) -> None:
        """Wait, unless another thread has failed for good.

        Raises:
            StoppedError: when one has.
        """
        if self._stopped.wait(max(seconds, 0.0)):
            raise StoppedError


class Client:
    """Posts JSON until a response comes.

    Args:
        url: what paths are added to.
        headers: sent with every request.
        concurrency: requests in flight.
        requests_per_minute: see `Pacing`.
        timeout_seconds: for a connection, and for each piece of a response.
        retries: further attempts of a request that failed in a way that may pass.
        first_wait_seconds: longest wait before the first of them; it doubles each time.
        max_wait_seconds: no wait is longer, and a server that asks for a longer one is given up.

    Attributes:
        attempts: requests sent.
    """

    def __init__(
        self,
        url: str,
        headers: dict[str, str],
        concurrency: int,
        requests_per_minute: float | None,
        timeout_seconds: float,
        retries: int,
        first_wait_seconds: float,
        max_wait_seconds: float,
    ) -> None:
        import httpx  # a quarter of a second that other commands need not spend

        self._unsendable = httpx.LocalProtocolError
        self._errors = (httpx.TransportError, httpx.DecodingError)
        self._client = httpx.Client(
            base_url=url, headers=headers, timeout=timeout_seconds, limits=httpx.Limits(max_connections=concurrency)
        )
        self.url, self.concurrency, self.retries = url, concurrency, retries
        self._first_wait, self._max_wait = first_wait_seconds, max_wait_seconds
        self._stopped = threading.Event()
        self._pacing = Pacing(requests_per_minute, self._stopped)
        self._lock, self.attempts = threading.Lock(), 0

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """`function` of every item, `concurrency` at a time; the first failure ends the others' waiting."""

        def guarded(item: Item) -> Result:
            try:
                return function(item)
            except BaseException:
                self._stopped.set()
                raise

        with ThreadPoolExecutor(self.concurrency) as pool:
            futures = [pool.submit(guarded, item) for item in items]
            try:
                wait(futures)
            except BaseException:  # an interrupt ends the waiting for retries
                self._stopped.set()
                raise
        errors = [error for future in futures if (error := future.exception()) is not None]
        for error in errors:
            if not isinstance(error, StoppedError):
                raise error
        return [future.result() for future in futures]

    def post(self, path: str, body: dict[str, Any], refused: re.Pattern[str] | None = None) -> dict[str, Any]:
        """JSON object of the response to a request.

        A body that holds `error` in place of `choices` is a failure whatever its status, as gateways send them: of the
        status that it names as its code, else one that may pass.

        Args:
            path: behind the client's URL.
            body: of the request.
            refused: matches the body of an error that no repetition changes.

        Raises:
            RefusedError: for a status that no repetition changes.
            InputError: when no attempt succeeded.
        """
        problem = ""
        for attempt in range(self.retries + 1):
            if attempt:
                longest = min(self._first_wait * 2 ** (attempt - 1), self._max_wait)
                self._pacing.sleep(random.uniform(0, longest))
            self._pacing.wait()
            with self._lock:
                self.attempts += 1
            try:
                response = self._client.post(path, json=body)
            except self._unsendable:
                # Its text holds the headers, and so the key.
                raise InputError(
                    f"endpoint {self.url}: a request cannot be sent, it breaks HTTP: correct the address and the key"
                ) from None
            except self._errors as error:
                problem = f"{type(error).__name__}: {error}"
                continue
            if response.status_code in TRANSIENT:
                problem = f"status {response.status_code}: {' '.join(response.text.split())[:200]}"
                self._respect(response.headers.get("retry-after"), problem)
                continue
            if not response.is_success:
                raise RefusedError(response.status_code, response.text)
            try:
                payload = response.json()
            except ValueError as error:
                problem = f"no JSON in the response ({error})"
                continue
            if not isinstance(payload, dict):
                problem = "the response is no JSON object"
            elif payload.get("error") and not payload.get("choices"):
                status = status_of(payload["error"])
                if (status is not None and status not in TRANSIENT) or (refused and refused.search(response.text)):
                    raise RefusedError(status or response.status_code, response.text)
                problem = f"status {response.status_code}: {' '.join(response.text.split())[:200]}"
            else:
                return payload
        raise InputError(
            f"endpoint {self.url} failed {self.retries + 1} times ({problem}): what is recorded so far is kept, start "
            "again to go on"
        )

    def _respect(self, retry_after: str | None, problem: str) -> None:
        seconds = seconds_to_wait(retry_after)
        if seconds > self._max_wait:
            raise InputError(
                f"endpoint {self.url} asks to wait {seconds:.0f} s ({problem}), more than "
                f"max_wait_seconds={self._max_wait:g}: raise it, or start again later to go on"
            )
        self._pacing.pause(seconds)


def require_address(name: str, url: str) -> None:
    """Refuse a URL that cannot be one, or that holds a secret: it is recorded and printed.

    Args:
        name: of the setting.
        url: its value.

    Raises:
        InputError: for one.
    """
    import httpx  # see `Client`

    if "@" in re.sub(r"^[a-z]+:/+", "", url, flags=re.IGNORECASE).partition("/")[0]:
        raise InputError(f"{name} holds a user or password, which would be recorded: name a key by api_key_variable")
    if not re.match(r"https?://[^/]", url):
        raise InputError(f"{name}={url}: must begin with http:// or https:// and name a server")
    try:
        httpx.URL(url)
    except httpx.InvalidURL as error:
        raise InputError(f"{name}={url!r}: is not a valid URL ({error}), correct it") from error


def secret_of(variable: str) -> str:
    """A key from an environment variable, without white space around it, which files of keys end with.

    Raises:
        InputError: when it is not set, or holds what no header can; the key itself is never printed.
    """
    key = os.environ.get(variable, "").strip()
    if not key:
        raise InputError(f"api_key_variable={variable}: this environment variable is not set, export it")
    if not re.fullmatch(r"[!-~]+", key):
        raise InputError(
            f"api_key_variable={variable}: the key holds white space, control characters or letters beyond ASCII, "
            "which no header can carry: export it again"
        )
    return key


def status_of(error: Any) -> int | None:
    """The HTTP status that the error of a body names as its code; None where it names none."""
    code = str(error.get("code")) if isinstance(error, dict) else ""
    return int(code) if re.fullmatch(r"[45]\d\d", code) else None


def seconds_to_wait(retry_after: str | None) -> float:
    """Seconds that a `Retry-After` header asks for, from seconds or a date (RFC 9110, section 10.2.3); 0 where it says
    neither."""
    if retry_after is None:
        return 0.0
    try:
        return max(0.0, float(retry_after))  # in this order a NaN is 0
    except ValueError:
        pass
    try:
        date = parsedate_to_datetime(retry_after)
    except ValueError:
        return 0.0
    return max((date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds(), 0.0)
