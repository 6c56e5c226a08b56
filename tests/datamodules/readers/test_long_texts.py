"""A book in one file: cut at paragraphs and kept, or refused with what would keep it."""

from pathlib import Path
from typing import Any

import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputError
from datamodules.curation.config import TextSource
from datamodules.curation.filters.length import Length
from datamodules.prepare import prepare_documents
from datamodules.readers import Files, HuggingFaceFolder
from datamodules.readers.long_texts import cut_at_paragraphs
from tests.helpers.corpus import ROOT, sentences
from tests.helpers.reading import read_all


@settings(max_examples=200, deadline=None)
@given(text=st.text("ab \n", max_size=400), most=st.integers(10, 60))
def test_parts_are_the_text_and_none_is_too_long(text: str, most: int) -> None:
    parts = list(cut_at_paragraphs(text, most))
    assert "".join(parts) == text
    assert all(len(part) <= most for part in parts)
    assert len(parts) <= 2 * len(text) // most + 1


def test_cuts_are_behind_paragraphs_where_there_are_any() -> None:
    book = "\n\n".join(f"Paragraph {number}. " + "word " * 40 for number in range(100))
    parts = list(cut_at_paragraphs(book, 2000))
    assert all(part.endswith("\n\n") for part in parts[:-1])
    assert min(map(len, parts)) > 1000
    assert all(part.endswith(" ") for part in list(cut_at_paragraphs("word " * 1000, 999))[:-1])


def test_a_book_in_one_file_is_cut_and_the_first_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    book = "\n\n".join(sentences(number, 20) for number in range(300))
    (tmp_path / "book.txt").write_text(book)
    (tmp_path / "short.txt").write_text("short")
    documents = read_all(Files(str(tmp_path), cut_characters=10_001))
    texts = [document.text or "" for document in documents]
    assert "".join(texts) == book + "short"
    assert max(map(len, texts)) <= 10_001
    (line,) = capsys.readouterr().err.splitlines()
    assert "book.txt is longer than cut_characters=10,001: it is cut at paragraphs" in line
    with pytest.raises(InputError, match="cut_characters=3: must be at least 1,000"):
        Files(str(tmp_path), cut_characters=3)
    with pyarrow.OSFile(str(tmp_path / "a.arrow"), "wb") as file:
        table = pyarrow.table({"text": [book, "row"]})
        with pyarrow.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
    (found,) = HuggingFaceFolder(str(tmp_path)).files()
    assert len(list(HuggingFaceFolder(str(tmp_path)).read(found))) == 2


@pytest.mark.parametrize("cut", [None, 100_000])
def test_a_book_is_kept_or_its_refusal_says_what_keeps_it(tmp_path: Path, cut: int | None) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text/shakespeare.txt").write_text("\n\n".join(sentences(number, 20) for number in range(1400)))
    length = (tmp_path / "text/shakespeare.txt").stat().st_size
    assert length > 1_000_000
    others: dict[str, Any] = {} if cut is None else {"cut_characters": cut}
    sources = {"mine": TextSource(Files(str(tmp_path / "text"), **others), steps=[Length()])}
    if cut is None:
        with pytest.raises(InputError, match="no document is left after curation of 1: too_long 1 ") as error:
            prepare_documents(tmp_path / "data", sources, None, 0.1, 0)
        assert "characters > 1,000,000, text/shakespeare.txt has 1," in str(error.value)
        assert str(error.value).endswith("cut long text at paragraphs by `cut_characters` of datamodules.Files")
    else:
        documents = prepare_documents(tmp_path / "data", sources, None, 0.1, 0)
        assert list(documents.glob("documents/*.parquet"))


def test_the_configuration_of_own_text_cuts_books() -> None:
    assert "cut_characters: 100000" in (ROOT / "configs/pretrain/files.yaml").read_text()
