"""Rows of every file format, in every data module and command that reads rows: the same rows, whatever holds them."""

import bz2
import datetime
import gzip
import json
import lzma
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from commands.compare.command import validation_prompts
from commands.constitution import helpful_rows, instruction_row, preference_row, read_samples
from commands.models.evaluate import score_file
from common.errors import InputError
from datamodules import FileRows, PreferenceData, PromptData, SFTData
from datamodules.conversations.chat_template import ChatTemplate
from datamodules.tokenization.base import Tokenizer

COUNT = 40
Write = Callable[[Path, list[dict[str, Any]]], Any]


def json_lines(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def write(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> str:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return str(path)


def write_folder(path: Path, rows: list[dict[str, Any]]) -> str:
    path.mkdir()
    write(path / "a.jsonl", json_lines(rows[::2]))
    write_parquet(path / "b.parquet", rows[1::2])
    write(path / "notes.txt", b"no rows")
    return str(path)


def write_matching(path: Path, rows: list[dict[str, Any]]) -> str:
    write_folder(path, rows)
    return str(path / "*.*")


FORMATS: dict[str, Write] = {
    "jsonl": lambda path, rows: write(path / "r.jsonl", json_lines(rows)),
    "json array": lambda path, rows: write(path / "r.json", json.dumps(rows).encode()),
    "json lines called json": lambda path, rows: write(path / "r.json", json_lines(rows)),
    "jsonl.gz": lambda path, rows: write(path / "r.jsonl.gz", gzip.compress(json_lines(rows))),
    "jsonl.zst": lambda path, rows: write(
        path / "r.jsonl.zst", pyarrow.compress(json_lines(rows), "zstd", asbytes=True)
    ),
    "jsonl.bz2": lambda path, rows: write(path / "r.jsonl.bz2", bz2.compress(json_lines(rows))),
    "jsonl.xz": lambda path, rows: write(path / "r.jsonl.xz", lzma.compress(json_lines(rows))),
    "parquet": lambda path, rows: write_parquet(path / "r.parquet", rows),
    "parquet of small groups": lambda path, rows: (
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path / "r.parquet", row_group_size=3),
        str(path / "r.parquet"),
    )[1],
    "folder": lambda path, rows: write_folder(path / "folder", rows),
    "pattern": lambda path, rows: write_matching(path / "folder", rows),
    "list of paths": lambda path, rows: [
        write(path / "r.jsonl", json_lines(rows[::2])), write_parquet(path / "s.parquet", rows[1::2]),
    ],
}  # fmt: skip


def talk(number: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"q {number}"}, {"role": "assistant", "content": f"a {number} é"}]


KINDS: dict[str, Callable[[int], dict[str, Any]]] = {
    "conversations": lambda i: {"messages": talk(i)},
    "responses": lambda i: {"prompt": f"q {i}", "response": f"a {i} é"},
    "pairs": lambda i: {"prompt": f"q {i}", "chosen": f"a {i}", "rejected": f"b {i}", "margin": i / 8},
    "pairs of conversations": lambda i: {"chosen": talk(i), "rejected": [talk(i)[0], talk(-i - 1)[1]]},
    "prompts": lambda i: {"prompt": f"q {i}", "answer": [i, i + 1], "about": {"number": i, "tags": ["x"]}},
    "questions": lambda i: {"context": f"q {i}", "choices": ["ba", "ki"], "gold": i % 2},
}
READS = {
    SFTData: ("conversations", "responses"),
    PreferenceData: ("pairs", "pairs of conversations"),
    PromptData: ("prompts", "pairs", "conversations"),
}


@pytest.fixture(scope="module")
def tokenizer(tokenizer_file: Path) -> Tokenizer:
    from datamodules.tokenization.files import load_tokenizer

    return load_tokenizer(tokenizer_file)


@pytest.fixture(params=FORMATS)
def written(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], Any]:
    """Writes rows of a kind in a format, and gives the path or paths."""

    def write(kind: str) -> Any:
        folder = tmp_path / kind.replace(" ", "-")
        folder.mkdir()
        return FORMATS[request.param](folder, [KINDS[kind](number) for number in range(COUNT)])

    return write


def ordered(rows: Iterator[Any]) -> list[str]:
    return sorted(json.dumps(row, sort_keys=True) for row in rows)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_what_was_written(written: Callable[[str], Any], kind: str) -> None:
    assert ordered(FileRows(written(kind)).rows()) == ordered(KINDS[kind](number) for number in range(COUNT))


@pytest.mark.parametrize(("module", "kind"), [(module, kind) for module, kinds in READS.items() for kind in kinds])
def test_data_modules_read_rows(
    written: Callable[[str], Any], module: Any, kind: str, tokenizer_file: Path, tmp_path: Path
) -> None:
    data = module(
        str(tmp_path / "data"), FileRows(written(kind)), tokenizer=str(tokenizer_file), chat_template="chatml",
        validation_fraction=0.3,
    )  # fmt: skip
    data.setup("fit")
    assert data.summary()["dropped"] == {}
    assert sum(data.summary()["kept"].values()) == COUNT
    next(iter(data.train_dataloader()))


def test_commands_read_rows(
    written: Callable[[str], Any], tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`constitution` (prompts and both kinds of helpful rows), `compare --prompts`, `evaluate --questions`."""
    prompts, pairs, responses = (FileRows(written(kind)) for kind in ("prompts", "pairs", "responses"))
    samples = read_samples(prompts, None)
    assert sorted(sample.prompt[0]["content"] for sample in samples) == sorted(f"q {i}" for i in range(COUNT))
    assert all(isinstance(row, dict) for row in helpful_rows(pairs, preference_row))
    assert all(isinstance(row, dict) for row in helpful_rows(responses, instruction_row))
    asked, left_out = validation_prompts(prompts, ChatTemplate("chatml", tokenizer), 1, 0, None, 100)
    assert (len(asked), dict(left_out)) == (COUNT, {})
    scored: list[int] = []
    monkeypatch.setattr(
        "models.inference.likelihood.log_likelihoods", lambda _, batches, count: [0.0] * (scored.append(count) or count)
    )
    paths = written("questions")
    for path in [paths] if isinstance(paths, str) else paths:
        found = score_file(SimpleNamespace(), tokenizer, path, False, None, 64, 64)  # type: ignore[arg-type]
        assert "left_out" not in found
    assert sum(scored) == 2 * COUNT


def test_what_is_no_row_of_any_known_format_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("prompt,response\na,b\n")
    for path in (tmp_path / "rows.csv", tmp_path, tmp_path / "*.jsonl", tmp_path / "none.jsonl"):
        with pytest.raises(InputError, match=r"rows.csv holds no file ending in .jsonl, .json, .parquet|does not exist|"
                           r"holds no file"):  # fmt: skip
            list(FileRows(str(path)).rows())


def table_rows(table: pyarrow.Table, path: Path) -> list[Any]:
    pyarrow.parquet.write_table(table, path / "rows.parquet")
    return list(FileRows(str(path / "rows.parquet")).rows())


def test_values_that_json_lacks_become_what_they_mean(tmp_path: Path) -> None:
    table = pyarrow.table(
        {
            "prompt": pyarrow.array([b"why?", "é".encode()], pyarrow.binary()),
            "price": pyarrow.array([Decimal("3.00"), Decimal("0.50")], pyarrow.decimal128(9, 2)),
            "day": pyarrow.array([datetime.date(2024, 5, 1)] * 2),
            "tags": [["a", None], []],
        }
    )
    assert table_rows(table, tmp_path) == [
        {"prompt": "why?", "price": 3, "day": "2024-05-01", "tags": ["a", None]},
        {"prompt": "é", "price": 0.5, "day": "2024-05-01", "tags": []},
    ]


def test_a_null_of_a_table_is_an_absent_key(tmp_path: Path) -> None:
    """A table gives every row all keys of all rows: what a row did not say is null there."""
    rows = [
        {"prompt": "p", "response": "r"},
        {"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a", "weight": 0}]},
    ]
    assert table_rows(pyarrow.Table.from_pylist([rows[0] | rows[1], *rows]), tmp_path)[1:] == rows


def test_a_value_that_python_cannot_hold_costs_its_row_and_not_the_file(tmp_path: Path) -> None:
    days = pyarrow.array([0, 10**9, 1], pyarrow.date32())
    texts = pyarrow.array([b"a", b"b", b"c"], pyarrow.binary())
    assert table_rows(pyarrow.table({"prompt": texts, "day": days}), tmp_path) == [
        {"prompt": "a", "day": "1970-01-01"}, "invalid_value", {"prompt": "c", "day": "1970-01-02"},
    ]  # fmt: skip
    broken = pyarrow.array([b"a", b"\xff", b"c"], pyarrow.binary())
    as_text = pyarrow.StringArray.from_buffers(3, broken.buffers()[1], broken.buffers()[2])
    for column in (broken, as_text):
        assert table_rows(pyarrow.table({"prompt": column}), tmp_path) == [
            {"prompt": "a"}, "invalid_utf8", {"prompt": "c"},
        ]  # fmt: skip
