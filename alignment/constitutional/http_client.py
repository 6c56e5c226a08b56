"""HTTP client for JSON with retries, backoff and rate limits, from several threads.

Waiting times grow by powers of two and are drawn at random each time (full jitter: Brooker 2015, "Exponential backoff
and jitter"), so that clients that failed together do not come back together. What a server asks for by `Retry-After`
every thread waits for. Threads and not coroutines: the responses are needed all at once, and one thread per request in
flight is cheap beside a model's seconds.
"""

import random
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

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """JSON object of the response to a request.

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
            if isinstance(payload, dict):
                return payload
            problem = "the response is no JSON object"
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


def problem_of_url(url: str) -> str | None:
    """Why a URL cannot be one; None where it can."""
    import httpx  # see `Client`

    try:
        httpx.URL(url)
    except httpx.InvalidURL as error:
        return str(error)
    return None


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
