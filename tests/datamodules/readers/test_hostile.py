"""Input made to stop a run: each file becomes a reason, and costs little."""

import bz2
import gzip
import io
import json
import lzma
import random
import shutil
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputError
from datamodules.curation.passes.collect import read_file
from datamodules.readers import ArxivSources, Books, Files, HuggingFaceFolder, InputFile, Reader
from datamodules.readers.document import Document
from datamodules.readers.formats import bounded_streams as bounded
from datamodules.readers.formats import parquet
from datamodules.readers.formats.bounded_streams import RefusedError, bounded_lines, limited, open_bounded, read_whole
from tests.helpers.reading import outcomes, read_all


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".bz2", ".xz"])
def test_a_bomb_is_given_up_in_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    monkeypatch.setattr(bounded, "FREE_EXPANSION", 2**21)
    compress = {
        ".gz": gzip.compress,
        ".bz2": bz2.compress,
        ".xz": lzma.compress,
        ".zst": lambda data: pyarrow.compress(data, codec="zstd", asbytes=True),
    }[suffix]
    lines = b'{"text": "first"}\n'
    (tmp_path / f"a.jsonl{suffix}").write_bytes(compress(lines + b"x" * 40_000_000 + b"\n"))
    tracemalloc.start()
    found = outcomes(Files([str(tmp_path)], max_document_megabytes=1))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == ["first", "<compression_bomb>"]
    assert peak < 20e6
    (tmp_path / f"a.jsonl{suffix}").rename(tmp_path / f"a.txt{suffix}")
    assert outcomes(Files([str(tmp_path)], max_document_megabytes=1)) == ["<too_large>"]


def test_files_forged_to_break_a_parser_are_damaged_alone(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("é.xhtml", "<p>x")
    (tmp_path / "a.epub").write_bytes(buffer.getvalue().replace("é".encode(), b"\xff\xfe"))
    (tmp_path / "b.txt").write_bytes(b"Character set encoding: a\0b\n\nFr\xe4ulein")
    (tmp_path / "c.txt").write_bytes(b"Character set encoding: punycode\n\nFr\xe4ulein")
    (tmp_path / "d.txt").write_text("whole")
    assert outcomes(Books([str(tmp_path)])) == ["<damaged_file>", "<invalid_utf8>", "<invalid_utf8>", "whole"]
    (tmp_path / "e.tar").write_bytes(forged_tar())
    assert outcomes(ArxivSources([str(tmp_path / "e.tar")])) == ["<damaged_file>"]
    member = gzip.compress(forged_tar())
    assert [d.reason for d in ArxivSources(["x"])._bulk(io.BytesIO(tar({"2301.00001.gz": member})), "x")] == [
        "damaged_file"
    ]


def tar(files: dict[str, bytes], headers: dict[str, str] | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, pax_headers=headers) as archive:
        for name, content in files.items():
            information = tarfile.TarInfo(name)
            information.size = len(content)
            information.pax_headers = {"GNU.sparse.realsize": "1", "GNU.sparse.name": "x"} if headers else {}
            archive.addfile(information, io.BytesIO(content))
    return buffer.getvalue()


def forged_tar() -> bytes:
    """An archive whose sparse file has a size that is no number."""
    whole = tar({"main.tex": b"x" * 600}, {"comment": "x"})
    return whole.replace(b"GNU.sparse.realsize=1", b"GNU.sparse.realsize=x")


class Raising(Files):
    """Reads one document, then raises."""

    def __init__(self, paths: list[str], error: Exception) -> None:
        super().__init__(paths)
        self.error = error

    def documents(self, path: str, file: InputFile) -> Iterator[Document]:
        yield Document("before")
        raise self.error


@pytest.mark.parametrize(
    "error",
    [
        UnicodeDecodeError("utf-8", b"x", 0, 1, "x"), ValueError(), KeyError(), IndexError(), OverflowError(),
        ZeroDivisionError(), RecursionError(), AssertionError(), NotImplementedError(), struct.error(),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_what_parsers_raise_is_counted(tmp_path: Path, error: Exception) -> None:
    (tmp_path / "a.txt").write_text("x")
    assert outcomes(Raising([str(tmp_path)], error)) == ["before", "<damaged_file>"]


@pytest.mark.parametrize("error", [TypeError(), AttributeError(), NameError(), InputError("x")])
def test_mistakes_of_a_program_or_a_user_stop_the_run(tmp_path: Path, error: Exception) -> None:
    (tmp_path / "a.txt").write_text("x")
    reader = Raising([str(tmp_path)], error)
    with pytest.raises(type(error)):
        read_all(reader)
    with pytest.raises(type(error)):
        list(read_file(OfAnyKind(error), "source", reader.files()[0]))


class OfAnyKind(Reader):
    """A reader that promises nothing."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def candidates(self) -> list[InputFile]:
        return []

    def read(self, file: InputFile) -> Iterator[Document]:
        yield Document("before")
        raise self.error


def test_readers_that_are_no_path_readers_stop_no_run_either() -> None:
    file = InputFile("x", "x", 1)
    rows = [row["reason"] for row in read_file(OfAnyKind(UnicodeError()), "source", file)]
    assert rows == [None, "damaged_file"]


def test_a_line_without_an_end_costs_no_memory(tmp_path: Path) -> None:
    with (tmp_path / "a.jsonl").open("wb") as file:
        file.write(b'{"text": "before"}\n')
        for _ in range(100):
            file.write(b"x" * 1_000_000)
        file.write(b'\n{"text": "after"}\n')
    tracemalloc.start()
    assert outcomes(Files([str(tmp_path)], max_document_megabytes=4)) == ["before", "<too_large>", "after"]
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


@settings(max_examples=200, deadline=None)
@given(lines=st.lists(st.binary(max_size=12).filter(lambda line: b"\n" not in line)), limit=st.integers(1, 12))
def test_lines_within_the_limit_are_all_there(tmp_path_factory: Any, lines: list[bytes], limit: int) -> None:
    path = tmp_path_factory.getbasetemp() / "lines"
    path.write_bytes(b"\n".join(lines))
    with path.open("rb") as stream:
        found = list(bounded_lines(stream, limit))
    expected = path.read_bytes().split(b"\n")
    expected = expected[:-1] if not expected[-1] else expected
    assert [None if line is None else line.rstrip(b"\n") for line in found] == [
        None if len(line) > limit else line for line in expected
    ]


def test_other_content_that_breaks_programs(tmp_path: Path) -> None:
    cases = {
        "a.txt": (b"", [""]),
        "b.txt": (b"x" * 1_000_000, ["x" * 1_000_000]),
        "c.txt": (b"a\0b", ["a\0b"]),
        "d.txt": (b"mixed " + b"caf\xe9 " + "naïve".encode("utf-16"), ["<invalid_utf8>"]),
        "e.jsonl": (b"[" * 100_000, ["<too_deep>"]),
        "f.json": (b'{"a":' * 100_000, ["<too_deep>"]),
        "g.jsonl": (b'{"text": "\\ud800"}\n{"text": "ok", "url": "\\ud800"}', ["<invalid_utf8>", "ok"]),
        "h.jsonl": (b'{"text": ' + b"1" * 10_000 + b"}", ["<missing_text_key>"]),
        "i.parquet": (b"PAR1", ["<damaged_file>"]),
        "j\nk.txt": (b"name with a newline", ["name with a newline"]),
        "l.jsonl.gz": (b"", []),
        "m.txt.bz2": (bz2.compress(b"x" * 1000)[:-9], ["<damaged_file>"]),
        "n.txt.gz": (b"no gzip", ["<damaged_file>"]),
    }
    for name, (content, _) in cases.items():
        (tmp_path / name).write_bytes(content)
    reader = Files([str(tmp_path)])
    for file in reader.files():
        name = file.name.partition("/")[2]
        found = [f"<{d.reason}>" if d.text is None else d.text for d in reader.read(file)]
        assert found == cases[name][1], name
    assert len(reader.files()) == len(cases)


def test_rows_above_the_limit_are_dropped_alone(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a", "x" * 2_000_000, "b"]}), tmp_path / "a.parquet")
    assert outcomes(Files([str(tmp_path)], max_document_megabytes=1)) == ["a", "<too_large>", "b"]


def parquet_sizes(path: Path) -> list[int]:
    with pyarrow.parquet.ParquetFile(path) as table:
        return [batch.nbytes for batch in parquet.parquet_batches(str(path), table, ["text"])]


@pytest.mark.parametrize("short", [0, 300])
def test_a_value_that_many_rows_share_does_not_fill_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short: int
) -> None:
    monkeypatch.setattr(parquet, "BYTES_IN_BATCH", 16_000_000)
    monkeypatch.setattr(parquet, "BYTES_OF_SHARED", 32_000_000)
    path = tmp_path / "a.parquet"
    table = pyarrow.table({"text": ["short"] * short + ["x" * 5_000_000] * 40})
    pyarrow.parquet.write_table(table, path, compression="zstd", dictionary_pagesize_limit=2**30)
    assert path.stat().st_size < 5000
    assert max(parquet_sizes(path)) < 33_000_000
    reader = Files([str(path)], max_document_megabytes=1)
    assert outcomes(reader) == ["short"] * short + ["<too_large>"] * 40


def test_batches_of_long_rows_stay_small_and_those_of_short_rows_grow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "BYTES_IN_BATCH", 4_000_000)
    letters = random.Random(0).randbytes(1_000_000).hex()
    texts = [letters[i:] + letters[:i] for i in range(20)] + ["short"] * 2000
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), tmp_path / "a.parquet", use_dictionary=False)
    sizes = parquet_sizes(tmp_path / "a.parquet")
    assert max(sizes) < 9_000_000
    assert len(sizes) < 40
    assert outcomes(Files([str(tmp_path)])) == texts


def test_columns_that_say_they_are_bombs_are_believed(tmp_path: Path) -> None:
    texts = ["x" * 1_000_000 + str(i) for i in range(80)]
    table = pyarrow.table({"text": texts})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet", use_dictionary=False, compression="zstd")
    assert outcomes(Files([str(tmp_path)])) == ["<compression_bomb>"]
    (tmp_path / "b").mkdir()
    for kind, new in (("a", pyarrow.ipc.new_stream), ("b", pyarrow.ipc.new_file)):
        options = pyarrow.ipc.IpcWriteOptions(compression="zstd")
        with new(str(tmp_path / f"b/{kind}.arrow"), table.schema, options=options) as writer:
            writer.write_table(table)
    before = pyarrow.total_allocated_bytes()
    assert outcomes(HuggingFaceFolder(str(tmp_path / "b"))) == ["<compression_bomb>"] * 2
    assert pyarrow.total_allocated_bytes() < before + 1e6


def test_dictionaries_of_arrow_files_are_not_unpacked(tmp_path: Path) -> None:
    table = pyarrow.table({"text": pyarrow.array(["x" * 3_000_000, "b", None] * 100).dictionary_encode()})
    for name, options in (("a", None), ("b", pyarrow.ipc.IpcWriteOptions(compression="lz4"))):
        with pyarrow.ipc.new_stream(str(tmp_path / f"{name}.arrow"), table.schema, options=options) as writer:
            writer.write_table(table)
    before = pyarrow.default_memory_pool().max_memory()
    found = outcomes(HuggingFaceFolder(str(tmp_path), max_document_megabytes=1))
    assert found == ["<too_large>", "b", "<missing_text_key>"] * 200
    assert pyarrow.default_memory_pool().max_memory() < before + 30e6


@pytest.mark.parametrize("when", ["before the walk", "before reading", "while reading"])
def test_a_folder_removed_meanwhile(tmp_path: Path, when: str) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    (folder / "a.jsonl").write_text('{"text": "a"}\n' * 2)
    reader = Files([str(folder)])
    if when == "before the walk":
        shutil.rmtree(folder)
        with pytest.raises(InputError, match="does not exist"):
            reader.files()
        return
    (file,) = reader.files()
    documents = reader.read(file)
    if when == "while reading":
        assert next(documents).text == "a"
    shutil.rmtree(folder)
    rest = [document.reason for document in documents]
    assert rest == (["unreadable_file"] if when == "before reading" else [None])


def test_links_in_a_circle_and_out_of_the_tree(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret.txt").write_text("SECRET")
    (tmp_path / "in/sub").mkdir(parents=True)
    (tmp_path / "in/a.txt").write_text("a")
    (tmp_path / "in/circle.txt").symlink_to(tmp_path / "in/circle.txt")
    (tmp_path / "in/sub/up").symlink_to(tmp_path / "in")
    (tmp_path / "in/out").symlink_to(tmp_path / "outside")
    (tmp_path / "in/out.txt").symlink_to(tmp_path / "outside/secret.txt")
    (tmp_path / "in/broken.txt").symlink_to(tmp_path / "nowhere.txt")
    assert outcomes(Files([str(tmp_path / "in")])) == ["a"]


def test_provenance_is_taken_where_it_is(tmp_path: Path) -> None:
    rows = [{"text": "a", "url": "http://a", "license": ["mit", "isc"], "date": "2024-01-01"}, {"text": "b", "url": {}}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    table = pyarrow.table({"text": ["c"], "u": ["http://c"], "date": [pyarrow.scalar(0, pyarrow.timestamp("s"))]})
    pyarrow.parquet.write_table(table, tmp_path / "b.parquet")
    found = read_all(Files([str(tmp_path)]))
    assert (found[0].url, found[0].license, found[0].date) == ("http://a", "mit, isc", "2024-01-01")
    assert (found[1].url, found[1].license, found[1].date) == (None, None, None)
    assert (found[2].url, found[2].date) == (None, "1970-01-01T00:00:00")
    assert read_all(Files([str(tmp_path / "b.parquet")], url_key="u"))[0].url == "http://c"


@settings(max_examples=100, deadline=None)
@given(texts=st.lists(st.text(st.characters(codec="utf-8"), max_size=30), max_size=8))
def test_json_lines_come_back_as_they_were(tmp_path_factory: Any, texts: list[str]) -> None:
    path = tmp_path_factory.getbasetemp() / "round.jsonl.gz"
    lines = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
    path.write_bytes(gzip.compress(lines.encode()))
    assert outcomes(Files([str(path)])) == texts


def test_the_limit_must_be_positive() -> None:
    with pytest.raises(InputError, match="max_document_megabytes=0"):
        Files(["x"], max_document_megabytes=0)


def test_streams_end_where_they_should(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(b"x" * 1000))
    with open_bounded(str(path)) as stream:
        assert read_whole(stream, 1000) == b"x" * 1000
    with open_bounded(str(path)) as stream, pytest.raises(RefusedError, match="too_large"):
        read_whole(stream, 999)
    with limited(path.open("rb"), 0) as stream:
        assert stream.read() == path.read_bytes()
