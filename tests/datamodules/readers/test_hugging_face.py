"""Folders of data sets in both forms, without the library that wrote them."""

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from common.errors import InputError
from datamodules.readers import HuggingFaceFolder
from tests.helpers.reading import outcomes, read_all


def write_arrow(path: Path, table: pyarrow.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)


def test_what_save_to_disk_wrote(tmp_path: Path) -> None:
    for split in ("train", "test"):
        table = pyarrow.table({"text": [f"{split} {i}" for i in range(5)] + [None], "url": ["http://a"] * 6})
        write_arrow(tmp_path / split / "data-00000-of-00001.arrow", table)
        (tmp_path / split / "state.json").write_text(json.dumps({"_data_files": [], "_indices_files": None}))
        (tmp_path / split / "dataset_info.json").write_text(json.dumps({"license": "cc-by-4.0"}))
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    assert outcomes(HuggingFaceFolder(str(tmp_path))) == [f"train {i}" for i in range(5)] + ["<missing_text_key>"]
    document = read_all(HuggingFaceFolder(str(tmp_path), split="test"))[0]
    assert (document.text, document.url, document.license) == ("test 0", "http://a", "cc-by-4.0")
    (tmp_path / "train/state.json").write_text(json.dumps({"_indices_files": [{"filename": "indices.arrow"}]}))
    with pytest.raises(InputError, match="flatten_indices"):
        HuggingFaceFolder(str(tmp_path)).files()


def test_a_clone_of_a_repository(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n# Data\n")
    (tmp_path / "data/train-00000-of-00001.parquet").write_bytes(b"")
    table = pyarrow.table({"content": ["a", "b"], "text": ["x", "y"], "license": [None, "apache-2.0"]})
    pyarrow.parquet.write_table(table, tmp_path / "data/train-00000-of-00001.parquet")
    (tmp_path / "data/validation.jsonl").write_text('{"content": "in validation"}\n')
    documents = read_all(HuggingFaceFolder(str(tmp_path), text_key="content"))
    assert [(document.text, document.license) for document in documents] == [("a", "mit"), ("b", "apache-2.0")]
    assert outcomes(HuggingFaceFolder(str(tmp_path), "validation", "content")) == ["in validation"]
    with pytest.raises(InputError, match="split='test'"):
        HuggingFaceFolder(str(tmp_path), split="test").files()
    before = [file.identity for file in HuggingFaceFolder(str(tmp_path)).files()]
    (tmp_path / "README.md").write_text("---\nlicense: [mit, gpl-3.0]\n---\n")
    assert [file.identity for file in HuggingFaceFolder(str(tmp_path)).files()] != before


def test_a_folder_without_names_of_splits_is_all_train(tmp_path: Path) -> None:
    (tmp_path / "part-0.jsonl").write_text('{"text": "a"}\n')
    assert outcomes(HuggingFaceFolder(str(tmp_path))) == ["a"]


def test_files_of_no_split_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").mkdir()
    for name in ("train", "golden", "trainval"):
        (tmp_path / f"data/{name}.jsonl").write_text(json.dumps({"text": name}) + "\n")
    assert outcomes(HuggingFaceFolder(str(tmp_path))) == ["train"]
    said = capsys.readouterr().err
    assert "left out 2 files that name no split, beside those that name one: data/golden.jsonl, data/trainval" in said


def test_a_cut_stream_keeps_what_was_read(tmp_path: Path) -> None:
    path = tmp_path / "data.arrow"
    write_arrow(path, pyarrow.table({"text": [str(i) * 200 for i in range(10)]}))
    path.write_bytes(path.read_bytes()[:-600])
    found = outcomes(HuggingFaceFolder(str(tmp_path)))
    assert found[0] == "0" * 200
    assert found[-1] == "<damaged_file>"


def test_the_split_is_that_of_the_folder_and_not_of_a_word_below_it(tmp_path: Path) -> None:
    names = ["test/training_text.jsonl", "train/test_harness.jsonl", "en-eval-v1/train-00000.jsonl", "Valid/a.jsonl"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps({"text": name}) + "\n")
    assert outcomes(HuggingFaceFolder(str(tmp_path))) == ["en-eval-v1/train-00000.jsonl", "train/test_harness.jsonl"]
    assert outcomes(HuggingFaceFolder(str(tmp_path), split="test")) == ["test/training_text.jsonl"]
    assert outcomes(HuggingFaceFolder(str(tmp_path), split="validation")) == ["Valid/a.jsonl"]
    assert outcomes(HuggingFaceFolder(str(tmp_path), split="harness")) == ["train/test_harness.jsonl"]
    (tmp_path / "train_test.jsonl").write_text('{"text": "both"}\n')
    with pytest.raises(InputError, match="train_test.jsonl .* names the splits test and train: rename"):
        HuggingFaceFolder(str(tmp_path)).files()
