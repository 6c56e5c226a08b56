"""Readers on what is there, and on what people have: broken bytes, lines, archives and names."""

import codecs
import gzip
import http.server
import json
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from common.errors import InputError
from datamodules.readers import (
    Docstrings,
    Files,
    InputFile,
    Licenses,
    PythonSources,
    Readmes,
    html_to_text,
    looks_like_html,
)
from datamodules.readers.document import Document, text_or_reason


def read_all(reader: Files) -> list[Document]:
    return [document for file in reader.files() for document in reader.read(file)]


def outcomes(reader: Files) -> list[str]:
    return sorted(document.reason or document.text or "" for document in read_all(reader))


def test_a_docstring_with_a_lone_surrogate_is_dropped_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text('"""x \\ud800 y"""\n', encoding="utf-8")
    file = InputFile(str(tmp_path / "m.py"), "m.py", 20)
    assert list(Docstrings(distributions=[]).read(file)) == [Document(None, reason="invalid_utf8")]


def test_every_format_and_compression(tmp_path: Path) -> None:
    lines = "".join(json.dumps({"text": f"line {i}"}) + "\n" for i in range(3)).encode()
    (tmp_path / "a.jsonl").write_bytes(lines)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines))
    (tmp_path / "c.jsonl.zst").write_bytes(pyarrow.compress(lines, codec="zstd", asbytes=True))
    pyarrow.parquet.write_table(pyarrow.table({"text": ["row", None]}), tmp_path / "d.parquet")
    (tmp_path / "e.md").write_text("# note")
    (tmp_path / "ignored.bin").write_bytes(b"\0")
    expected = sorted([f"line {i}" for i in range(3)] * 3 + ["row", "missing_text_key", "# note"])
    assert outcomes(Files([str(tmp_path)])) == expected


def test_broken_documents_have_reasons(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(
        b'{"text": "good"}\n{"text": 3}\n{"other": "x"}\nnot json\n["text"]\n{"text": "\xff\xfe"}\n'
        b'{"text": "\\ud800"}\n\n{"text": "last"}'
    )
    (tmp_path / "b.txt").write_bytes(b"caf\xe9")
    (tmp_path / "empty.jsonl").write_bytes(b"")
    counts = outcomes(Files([str(tmp_path)]))
    assert counts == sorted(["good", "last", "invalid_json", *["missing_text_key"] * 3, *["invalid_utf8"] * 3])


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"text": "a"}\n{"text": "b"}\n', ["a", "b"]),
        ('\n{"text": "a"}\nnot json\n', ["a", "invalid_json"]),
        ('not json\n{"text": "a"}\n', ["a", "invalid_json"]),
        ('{"text": "a"}', ["a"]),
        ('{\n "text": "a"\n}\n', ["a"]),
        ('[{"text": "a"}, {"text": "b"}, 3]', ["a", "b", "missing_text_key"]),
        ('[\n {"text": "a"},\n {"text": "b"}\n]\n', ["a", "b"]),
        ('"text"', ["missing_text_key"]),
        ("", []),
    ],
)  # fmt: skip
@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
def test_json_is_lines_or_one_value(tmp_path: Path, mark: bytes, content: str, expected: list[str]) -> None:
    (tmp_path / "a.json").write_bytes(mark * bool(content) + content.encode())
    assert outcomes(Files([str(tmp_path)])) == expected


def test_a_byte_order_mark_costs_no_document(tmp_path: Path) -> None:
    for name, content in (("a.jsonl", '{"text": "a"}\n'), ("b.txt", "b")):
        (tmp_path / name).write_bytes(codecs.BOM_UTF8 + content.encode())
    assert outcomes(Files([str(tmp_path)])) == ["a", "b"]


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst", "a.parquet"])
def test_a_cut_archive_keeps_what_was_read_and_says_so(tmp_path: Path, name: str) -> None:
    lines = "".join(json.dumps({"text": f"{i} " * 50}) + "\n" for i in range(5000)).encode()
    path = tmp_path / name
    if name.endswith("gz"):
        path.write_bytes(gzip.compress(lines))
    elif name.endswith("zst"):
        path.write_bytes(pyarrow.compress(lines, codec="zstd", asbytes=True))
    else:
        pyarrow.parquet.write_table(pyarrow.table({"text": ["x"] * 100}), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    documents = read_all(Files([str(tmp_path)]))
    assert documents[-1].reason == "damaged_file"
    assert sum(document.reason is not None for document in documents) == 1


def test_missing_paths_and_empty_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        Files([str(tmp_path / "absent")]).files()
    with pytest.raises(InputError, match="holds no file ending in"):
        Files([str(tmp_path)]).files()
    with pytest.raises(InputError, match="no-such-distribution is not installed"):
        PythonSources(["no-such-distribution"]).files()


def test_strange_names_and_links(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "secret.txt").write_text("outside")
    (tmp_path / "inside/link.txt").symlink_to(tmp_path / "secret.txt")
    (tmp_path / "inside/new\nline.txt").write_text("a")
    Path(tmp_path / "inside", b"bad\xff.txt".decode("utf-8", "surrogateescape")).write_text("b")
    assert outcomes(Files([str(tmp_path / "inside")])) == ["a", "b"]


def test_the_cap_takes_the_same_files_whatever_the_folder(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder / "text").mkdir(parents=True)
        for i in range(40):
            (tmp_path / folder / f"text/{i}.txt").write_text("x" * 1000)
    chosen = [[f.name for f in Files([str(tmp_path / n / "text")], max_megabytes=0.01).files()] for n in ("one", "two")]
    assert chosen[0] == chosen[1]
    assert len(chosen[0]) == 10


def test_a_file_above_the_cap_hides_no_other(tmp_path: Path) -> None:
    for i in range(8):
        (tmp_path / f"large{i}.txt").write_text("x" * 2000)
    (tmp_path / "small.txt").write_text("x" * 500)
    assert [file.name for file in Files([str(tmp_path)], max_megabytes=0.001).files()] == [f"{tmp_path.name}/small.txt"]
    with pytest.raises(InputError, match="max_megabytes=0.0001 is less than each of the 9 files"):
        Files([str(tmp_path)], max_megabytes=0.0001).files()


def test_folders_of_one_name_keep_all_their_files(tmp_path: Path) -> None:
    for folder in ("2023/text", "2024/text"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "x.txt").write_text(folder)
    paths = [str(tmp_path / "2023/text"), str(tmp_path / "2024/text"), str(tmp_path / "2024/text/x.txt")]
    reader = Files(paths[:2])
    assert outcomes(reader) == ["2023/text", "2024/text"]
    assert sorted(file.name for file in reader.files()) == ["2023/text/x.txt", "2024/text/x.txt"]
    assert [file.name for file in Files([paths[0], paths[0] + "/"]).files()] == ["text/x.txt"]
    assert [file.name for file in Files(paths[2:]).files()] == ["x.txt"]


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    Path(tmp_path, b"\xff.txt".decode("utf-8", "surrogateescape")).write_text("a")
    (tmp_path / "\\xff.txt").write_text("b")
    with pytest.raises(InputError, match="are both called"):
        Files([str(tmp_path)]).files()


def test_a_distribution_installed_twice_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("first", "second"):
        information = tmp_path / folder / "twice-1.dist-info"
        information.mkdir(parents=True)
        (information / "METADATA").write_text("Name: twice\nVersion: 1\n\n" + folder)
        (information / "RECORD").write_text("twice-1.dist-info/METADATA,,\n")
        monkeypatch.syspath_prepend(tmp_path / folder)
    (file,) = [file for file in Readmes().files() if file.name.startswith("twice/")]
    assert file.location.startswith(str(tmp_path / "second"))


def test_docstrings_are_those_of_the_syntax_tree(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(
        '"""Top."""\nclass A:\n    """About A."""\n    def f(self):\n        """About f."""\n\nasync '
        'def g():\n    "About g."\n'
    )
    reader, file = Docstrings([]), InputFile(str(path), path.name, path.stat().st_size)
    (document,) = reader.read(file)
    assert document.text == "Top.\n\nmodule.A\n\nAbout A.\n\nmodule.A.f\n\nAbout f.\n\nmodule.g\n\nAbout g."
    path.write_text("def broken(:\n")
    assert next(iter(reader.read(file))).reason == "invalid_python"
    path.write_text("x = 1\n")
    assert list(reader.read(file)) == []
    path.write_text("(" * 5000 + ")" * 5000)
    assert next(iter(reader.read(file))).reason == "invalid_python"


def test_installed_text_is_found_on_this_machine() -> None:
    sources = PythonSources([], standard_library=True).files()
    assert sum(file.size for file in sources) > 5e6
    assert any(file.name == "python/json/__init__.py" for file in sources)
    readme = next(file for file in Readmes(["lightning"]).files())
    assert "Lightning" in (next(iter(Readmes().read(readme))).text or "")
    assert any("torch" in file.name for file in Licenses(["torch"]).files())


def test_html_is_reduced_to_text() -> None:
    html = "<div><p>Hello <b>there</b></p><script>alert(1)</script><ul><li>one</li><li>two</li></ul></div>"
    assert looks_like_html(html)
    assert not looks_like_html("# Markdown\n\n" + "With <b>one</b> tag" + " in a long text." * 30)
    text = html_to_text(html)
    assert "Hello there" in text
    assert "one" in text
    assert "alert" not in text
    assert "<" not in text


@settings(max_examples=200)
@given(raw=st.binary(max_size=50))
@example(raw=codecs.BOM_UTF8 + b"text")
def test_bytes_are_text_or_have_a_reason(raw: bytes) -> None:
    document = text_or_reason(raw)
    assert (document.text is None) == (document.reason == "invalid_utf8")
    if document.text is not None:
        assert document.text.encode() == raw.removeprefix(codecs.BOM_UTF8)


def serve(folder: Path) -> Iterator[str]:
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "served").mkdir()
    yield from serve(tmp_path / "served")


def test_a_url_is_downloaded_once_and_read_like_a_file(tmp_path: Path, address: str) -> None:
    served = tmp_path / "served" / "text.jsonl.gz"
    served.write_bytes(gzip.compress(b'{"text": "from afar"}\n'))
    for _ in range(2):  # the second time it is not there to be served
        reader = Files([f"{address}/text.jsonl.gz"], downloads=str(tmp_path / "downloads"))
        assert [document.text for document in read_all(reader)] == ["from afar"]
        served.unlink(missing_ok=True)


@pytest.mark.parametrize("path", ["/missing.jsonl", "no-such-protocol://x/y.jsonl", "http://127.0.0.1:1/y.jsonl"])
def test_a_url_that_cannot_be_had_is_one_line(tmp_path: Path, address: str, path: str) -> None:
    url = address + path if path.startswith("/") else path
    with pytest.raises(InputError, match="cannot be downloaded") as error:
        Files([url], downloads=str(tmp_path / "downloads")).files()
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "downloads").rglob("*.partial"))
