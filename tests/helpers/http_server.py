"""An OpenAI-compatible server in a thread, that fails on demand."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass
class Failure:
    """What is done instead of answering: a status with headers and a body, a hang-up, or a pause in seconds."""

    status: int = 0
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    hang_up: bool = False
    pause: float = 0.0


@dataclass
class Server:
    """A running server.

    Attributes:
        url: with the version.
        failures: taken one per request, in turn, before anything is answered.
        seen: (time, path, headers, body) of every request.
        answered: requests answered with success.
        in_flight, max_in_flight: requests being answered, now and at most.
    """

    url: str
    reply: Reply
    failures: list[Failure] = field(default_factory=list)
    seen: list[tuple[float, str, dict[str, str], dict[str, Any]]] = field(default_factory=list)
    answered: int = 0
    in_flight: int = 0
    max_in_flight: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextmanager
def serving(reply: Reply, *failures: Failure) -> Iterator[Server]:
    """Serve on a free port of this machine until the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 2**16  # head and body in one packet: apart they wait for each other

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with server.lock:
                server.seen.append((time.monotonic(), self.path, dict(self.headers), body))
                failure = server.failures.pop(0) if server.failures else None
                server.in_flight += 1
                server.max_in_flight = max(server.max_in_flight, server.in_flight)
            try:
                self._answer(body, failure)
            finally:
                with server.lock:
                    server.in_flight -= 1

        def _answer(self, body: dict[str, Any], failure: Failure | None) -> None:
            if failure is not None and failure.pause:
                time.sleep(failure.pause)
            if failure is not None and failure.hang_up:
                self.close_connection = True
                self.connection.close()
                return
            status, headers = 200, {}
            if failure is not None and failure.status:
                status, content, headers = failure.status, failure.body.encode(), failure.headers
            else:
                content = json.dumps(server.reply(body)).encode()
                with server.lock:
                    server.answered += 1
            try:
                self.send_response(status)
                for name, value in (headers | {"Content-Length": str(len(content))}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)
            except OSError:  # the client waited no longer
                self.close_connection = True

        def log_message(self, *arguments: Any) -> None: ...

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.daemon_threads = True
    server = Server(f"http://127.0.0.1:{listening.server_port}/v1", reply, list(failures))
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listening.shutdown()
        listening.server_close()


def chat(text: str, finish: str = "stop", **further: Any) -> dict[str, Any]:
    """What a chat completion looks like."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish, **further}
    return {"id": "x", "choices": [choice], "usage": {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}}


def token(drawn: str, **likely: float) -> dict[str, Any]:
    """A token of `logprobs`, with the likeliest ones that might have stood there; `_` is a parenthesis."""
    named = {name.replace("_", "("): value for name, value in likely.items()}
    top = [{"token": name, "logprob": value, "bytes": None} for name, value in named.items()]
    return {"token": drawn, "logprob": named.get(drawn, -1.0), "bytes": None, "top_logprobs": top}
