"""One row that cannot be read costs itself: dates, bytes, depth, numbers, damage and arrays of any length."""

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.conversations.rows import FileRows
from datamodules.curation.filters.benchmark_texts import evaluation_files, evaluation_texts
from datamodules.readers import Files, HuggingFaceFolder
from datamodules.readers.formats import bounded_streams
from tests.helpers.reading import outcomes, read_all

NANOSECONDS = 1_700_000_000_123_456_789
FAR = [0, 569_000_000_000, -100_000_000_000]
"""Seconds: 1970, the year 20000, and one before the first."""


def write_parquet(path: Path, table: pyarrow.Table) -> None:
    pyarrow.parquet.write_table(table, path)


def write_arrow(path: Path, table: pyarrow.Table) -> None:
    with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)


def invalid_utf8(texts: list[bytes], kind: Any = None) -> Any:
    """Strings, one of which is no UTF-8, as a careless writer leaves them."""
    return pyarrow.array(texts, pyarrow.binary()).view(kind or pyarrow.string())


FORMATS = pytest.mark.parametrize(
    ("write", "reader", "name"),
    [(write_parquet, Files, "a.parquet"), (write_parquet, HuggingFaceFolder, "a.parquet"),
     (write_arrow, HuggingFaceFolder, "a.arrow")],
)  # fmt: skip


@FORMATS
def test_dates_that_python_cannot_hold_cost_no_text(
    tmp_path: Path, write: Callable[[Path, Any], None], reader: Callable[[str], Files], name: str
) -> None:
    texts = ["a", "b", "c"]
    for dates, expected in (
        (pyarrow.array([NANOSECONDS, 0, None], pyarrow.timestamp("ns")), "2023-11-14T22:13:20.123456"),
        (pyarrow.array([NANOSECONDS, 0, None], pyarrow.timestamp("ns", "UTC")), "2023-11-14T22:13:20.123456+00:00"),
        (pyarrow.array(FAR, pyarrow.timestamp("s")), "1970-01-01T00:00:00"),
        (pyarrow.array([0, 5_690_000, -5_690_000], pyarrow.date32()), "1970-01-01"),
        (invalid_utf8([b"caf\xe9", b"2024", b""]), "caf\\xe9"),
        (pyarrow.array([b"caf\xe9", b"2024", None]), "caf\\xe9"),
        (pyarrow.array([b"2020", b"2024", None]).dictionary_encode(), "2020"),
        (pyarrow.array([[b"\xff"], [], None]), "b'\\xff'"),
    ):
        write(tmp_path / name, pyarrow.table({"text": texts, "date": dates}))
        documents = read_all(reader(str(tmp_path)))
        assert [document.text for document in documents] == texts
        assert documents[0].date == expected


@FORMATS
@pytest.mark.parametrize(
    "kind",
    [pyarrow.binary(), pyarrow.large_binary(), pyarrow.string(), pyarrow.large_string(), pyarrow.binary_view()],
)
def test_a_text_of_invalid_utf8_costs_itself(
    tmp_path: Path, write: Callable[[Path, Any], None], reader: Callable[[str], Files], name: str, kind: Any
) -> None:
    if kind == pyarrow.string() or kind == pyarrow.large_string():
        wide = pyarrow.large_binary() if kind == pyarrow.large_string() else pyarrow.binary()
        column = pyarrow.array([b"a", b"caf\xe9", b"c", None], wide).view(kind)
    else:
        column = pyarrow.array([b"a", b"caf\xe9", b"c", None], kind)
    write(tmp_path / name, pyarrow.table({"text": column}))
    assert outcomes(reader(str(tmp_path))) == ["a", "<invalid_utf8>", "c", "<missing_text_key>"]


@pytest.mark.parametrize(
    "column",
    [
        pyarrow.array(["a", "b", "a"], pyarrow.string_view()),
        pyarrow.array(["a", "b", "a"]).dictionary_encode(),
        pyarrow.array([b"a", b"b", b"a"], pyarrow.large_binary()).dictionary_encode(),
        pyarrow.array([b"a", b"b", b"a"], pyarrow.binary(1)),
    ],
)
@FORMATS
def test_texts_of_every_type_that_holds_texts(
    tmp_path: Path, write: Callable[[Path, Any], None], reader: Callable[[str], Files], name: str, column: Any
) -> None:
    write(tmp_path / name, pyarrow.table({"text": column}))
    assert outcomes(reader(str(tmp_path))) == ["a", "b", "a"]


@pytest.mark.parametrize("column", [[1, 2], [["a"], ["b"]], [{"a": "b"}, None], [1.5, None], [None, None]])
def test_a_column_that_holds_no_texts_is_said(tmp_path: Path, column: list[Any]) -> None:
    write_parquet(tmp_path / "a.parquet", pyarrow.table({"text": column}))
    assert set(outcomes(Files(str(tmp_path)))) == {"<missing_text_key>"}


@pytest.mark.parametrize("codec", ["none", "snappy", "gzip", "brotli", "lz4", "zstd"])
def test_codecs_and_empty_tables_of_parquet(tmp_path: Path, codec: str) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a", "b"]}), tmp_path / "a.parquet", compression=codec)
    pyarrow.parquet.write_table(pyarrow.table({"text": pyarrow.array([], "str")}), tmp_path / "b.parquet")
    assert outcomes(Files(str(tmp_path))) == ["a", "b"]


def test_rows_of_conversations_keep_times_of_nanoseconds(tmp_path: Path) -> None:
    made = pyarrow.array([{"at": NANOSECONDS}, {"at": None}], pyarrow.struct({"at": pyarrow.timestamp("ns")}))
    times = pyarrow.array([[NANOSECONDS], []], pyarrow.list_(pyarrow.timestamp("ns")))
    table = pyarrow.table({"prompt": ["a", "b"], "response": ["x", "y"], "made": made, "times": times})
    write_parquet(tmp_path / "a.parquet", table)
    first, second = FileRows(str(tmp_path)).rows()
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    assert datetime.fromisoformat(first["made"]["at"]).year == 2023
    assert first["times"] == ["2023-11-14T22:13:20.123456"]
    assert (second["prompt"], second["made"]) == ("b", {})


def test_evaluation_rows_keep_the_texts_beside_what_cannot_be_read(tmp_path: Path) -> None:
    table = pyarrow.table(
        {
            "question": invalid_utf8([b"what is caf\xe9", b"second"]),
            "options": pyarrow.array([[b"one"], [b"two"]]),
            "at": pyarrow.array(FAR[1:], pyarrow.timestamp("s")),
            "made": pyarrow.array([NANOSECONDS, 0], pyarrow.timestamp("ns")),
        }
    )
    write_parquet(tmp_path / "a.parquet", table)
    ((path, _),) = evaluation_files([str(tmp_path)])
    found = list(evaluation_texts(path, None))
    assert found == [(1, "what is caf\ufffd"), (1, "one"), (2, "second"), (2, "two")]
    assert list(evaluation_texts(path, ["options"])) == [(1, "one"), (2, "two")]


def test_links_lead_out_of_no_folder_of_evaluation_sets(tmp_path: Path) -> None:
    (tmp_path / "outside.txt").write_text("outside")
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets/a.txt").write_text("inside")
    (tmp_path / "sets/b.txt").symlink_to(tmp_path / "outside.txt")
    (tmp_path / "sets/loop").symlink_to(tmp_path / "sets")
    assert [path.name for path, _ in evaluation_files([str(tmp_path / "sets")])] == ["a.txt"]


def test_deep_rows_and_long_numbers(tmp_path: Path) -> None:
    deep = '{"text": "deep", "x": ' + "[" * 990 + "]" * 990 + "}"
    number = '{"text": "number", "n": ' + "9" * 5000 + "}"
    lines = [deep, number, '{"text": "last"}']
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    (tmp_path / "b.json").write_text(f"[{', '.join(lines)}]")
    assert outcomes(Files(str(tmp_path))) == ["<too_deep>", "number", "last"] * 2
    rows = list(FileRows(str(tmp_path / "a.jsonl")).rows())
    assert rows[0] == "too_deep"
    assert isinstance(rows[1], dict)
    assert rows[1]["n"] == "9" * 5000


def test_an_array_larger_than_a_document_is_read_element_by_element(tmp_path: Path) -> None:
    texts = [f"{number} " + 'x"\\\n[{,]}é' * 300 for number in range(1000)]
    rows: list[Any] = [{"text": text} for text in texts]
    rows.insert(500, {"text": "y" * 200_000})
    for indent in (None, 1):
        (tmp_path / "a.json").write_text(json.dumps(rows, indent=indent))
        found = outcomes(Files(str(tmp_path / "a.json"), max_document_megabytes=0.1))
        assert found == [*texts[:500], "<too_large>", *texts[500:]]
        assert len(list(FileRows(str(tmp_path / "a.json")).rows())) == 1001


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'[{"text": "a"}, nothing, {"text": "b"}]', ["a", "<invalid_json>", "b"]),
        (b'[{"text": "a"}, {"text": "\xff"}, {"text": "b"}]', ["a", "<invalid_utf8>", "b"]),
        (b'[{"text": "a"}, {"text": "b"', ["a", "<invalid_json>"]),
        (b'[{"text": "a"},', ["a", "<invalid_json>"]),
        (b'[{"text": "a"},]', ["a", "<invalid_json>"]),
        (b' \r\n[ ]\r\n', []),
        (b'[]\n{"text": "a"}\n', ["a"]),
        (b'["a", ["text"]]\r\n{"text": "a"}\r\n', ["<missing_text_key>", "<missing_text_key>", "a"]),
        (b'[{"text": "a"}] trailing', ["a", "<invalid_json>"]),
    ],
)  # fmt: skip
def test_arrays_that_are_not_whole_keep_their_rows(tmp_path: Path, content: bytes, expected: list[str]) -> None:
    (tmp_path / "a.json").write_bytes(content)
    assert outcomes(Files(str(tmp_path))) == expected


VALUES = st.recursive(
    st.none() | st.integers() | st.text(st.sampled_from('ab"\\\n[]{},é')), lambda inner: st.lists(inner), max_leaves=6
)


@settings(max_examples=100, deadline=None)
@given(rows=st.lists(st.one_of(VALUES, st.fixed_dictionaries({"text": st.text('ab\\"[{,}]é')})), max_size=5))
def test_arrays_have_the_elements_that_json_finds(tmp_path_factory: Any, rows: list[Any]) -> None:
    path = tmp_path_factory.mktemp("rows") / "a.json"
    path.write_text(json.dumps(rows, ensure_ascii=len(rows) % 2 == 0))
    wanted = [row["text"] if isinstance(row, dict) else "<missing_text_key>" for row in rows]
    assert outcomes(Files(str(path))) == wanted


@pytest.mark.parametrize("suffix", ["gz", "xz", "bz2", "zst"])
@pytest.mark.parametrize("damage", ["cut", "trailing"])
def test_rows_before_the_damage_of_a_small_file_are_kept(tmp_path: Path, suffix: str, damage: str) -> None:
    lines = [json.dumps({"text": f"{number} {hash(str(number))}"}).encode() + b"\n" for number in range(4)]
    pack = {
        "gz": gzip.compress,
        "xz": lzma.compress,
        "bz2": bz2.compress,
        "zst": lambda raw: pyarrow.compress(raw, codec="zstd", asbytes=True),
    }[suffix]
    # Two parts as `cat` joins them: what is whole comes before the damage whatever the format.
    whole, last = pack(b"".join(lines)), pack(b"".join(lines))
    path = tmp_path / f"a.jsonl.{suffix}"
    path.write_bytes(whole + (last[: len(last) // 2] if damage == "cut" else b"garbage, no archive"))
    found = outcomes(Files(str(path)))
    texts = [json.loads(line)["text"] for line in lines]
    assert found[:4] == texts
    # bz2 and xz ignore what is no archive behind one, as their programs do.
    assert found[-1] == "<damaged_file>" or (suffix in ("bz2", "xz") and damage == "trailing" and found == texts)


def test_a_window_too_large_for_the_decompressor_has_a_reason_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n')
    for window, expected in ((27, ["a"]), (31, ["<zstd_window_too_large>"])):
        head = bytes.fromhex("28b52ffd") + b"\x00" + bytes([(window - 10) << 3])
        block = b'{"text": "a"}\n'
        # One raw block, the last: its size and that in three bytes.
        frame = head + (len(block) << 3 | 1).to_bytes(3, "little") + block
        (tmp_path / "b.jsonl.zst").write_bytes(frame)
        assert outcomes(Files(str(tmp_path / "b.jsonl.zst"))) == expected
    assert bounded_streams.MAX_ZSTD_WINDOW == 2**27


def test_hidden_files_and_copies_of_notebooks_are_not_read(tmp_path: Path) -> None:
    for name in ("a.txt", "._a.txt", ".hidden.txt", ".ipynb_checkpoints/a-checkpoint.txt", "__MACOSX/b.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    assert outcomes(Files(str(tmp_path))) == ["a.txt"]
    assert outcomes(Files(str(tmp_path / ".hidden.txt"))) == [".hidden.txt"]  # it was named


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_lines_of_windows(tmp_path: Path, mark: bytes) -> None:
    (tmp_path / "a.jsonl").write_bytes(mark + b'{"text": "a\\r\\nb"}\r\n\r\n{"text": "c"}\r\n')
    assert outcomes(Files(str(tmp_path))) == ["a\r\nb", "c"]


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_a_damaged_row_group_costs_itself(tmp_path: Path, codec: str) -> None:
    texts = [f"{number} " + "x" * 50 for number in range(4000)]
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(
        pyarrow.table({"text": texts}), path, row_group_size=1000, compression=codec, use_dictionary=False,
        write_page_checksum=True,
    )  # fmt: skip
    chunk = pyarrow.parquet.read_metadata(path).row_group(1).column(0)
    content = bytearray(path.read_bytes())
    content[chunk.data_page_offset + chunk.total_compressed_size // 2] ^= 1
    path.write_bytes(content)
    found = outcomes(Files(str(path)))
    assert [*found[:1000], *found[-2001:]] == [*texts[:1000], *texts[2000:], "<damaged_file>"]
    assert set(found) <= {*texts, "<damaged_file>"}
