"""Every document can be asked why."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from common.errors import InputError
from datamodules.curation.config import CurationConfig, TextSource
from datamodules.curation.deduplication.minhash import NearDuplicates
from datamodules.curation.filters.decontaminate import Decontaminate
from datamodules.curation.filters.gopher import GopherQuality
from datamodules.curation.filters.length import Length
from datamodules.curation.reports.explain import explain, format_examples
from datamodules.prepare import prepare_documents, read_summary
from datamodules.readers import Files, InputFile
from datamodules.readers.document import Document
from tests.helpers.corpus import sentences


class Rows(Files):
    """JSON lines with provenance, as of a crawl."""

    IS_CRAWL = True

    def read(self, file: InputFile) -> Any:
        for line in Path(file.location).read_text().splitlines():
            yield Document(**json.loads(line))


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explain")
    words = sentences(3, 60).split()
    near = " ".join([*words[:200], "altered", *words[201:]])
    texts = [
        {"text": sentences(1, 40), "license": "MIT", "url": "https://example.org/a?utm_source=x", "date": "2024-01-01"},
        {"text": sentences(1, 40) + "\n"},
        {"text": "tiny"},
        {"text": " ".join(words) + " And something longer."},
        {"text": near},
        {"text": "a b c d " * 60},
        {"text": sentences(7, 50), "url": "https://EXAMPLE.org/a", "date": "2025-02-03"},
        {"text": None, "reason": "invalid_utf8"},
        {"text": sentences(9, 40)},
        {"text": sentences(1, 40)},
    ]
    question = " ".join(sentences(9, 40).split()[20:40])
    (folder / "evaluation.jsonl").write_text(json.dumps({"q": "Which?"}) + "\n" + json.dumps({"q": question}) + "\n")
    (folder / "in").mkdir()
    (folder / "in/all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts))
    evaluation = Decontaminate([str(folder / "evaluation.jsonl")])
    source = TextSource(Rows([str(folder / "in")]), [Length(), GopherQuality(min_stop_words=0), evaluation])
    return prepare_documents(folder / "data", {"notes": source}, NearDuplicates(), 0.3, 0, CurationConfig())


def why(stage: Path, number: int) -> str:
    return explain(stage, read_summary(stage), f"in/all.jsonl#{number}")


def test_each_verdict_is_explained(stage: Path) -> None:
    assert "dropped by Length: too_short" in why(stage, 2)
    assert "characters is 5, dropped when < 200" in why(stage, 2)
    text = why(stage, 5)
    assert "dropped by GopherQuality: gopher_short_words" in text
    assert "mean_word_length is 1, dropped when < 3" in text
    assert "Rae et al. 2021" in text
    assert "dropped while reading: invalid_utf8" in why(stage, 7)
    contaminated = why(stage, 8)
    assert "dropped by Decontaminate: contaminated" in contaminated
    assert 'evaluation.jsonl:2 (8 n-grams, "' in contaminated
    assert "kept: documents/00000.parquet, row " in why(stage, 6)
    assert "date 2025-02-03" in why(stage, 6)
    near = why(stage, 4)
    assert "dropped as near_duplicate of" in near
    assert "% of their MinHash values are equal" in near
    assert "which is kept" in near
    # The older page of one URL goes, and its text stays under another name.
    assert "dropped as url_duplicate of" in why(stage, 0)
    assert "kept: documents/00000.parquet, row " in why(stage, 1)
    copy = why(stage, 9)
    assert "dropped as exact_duplicate of" in copy
    assert "which is kept" in copy


def test_a_document_is_found_by_each_of_its_names(stage: Path) -> None:
    summary = read_summary(stage)
    (row, *_) = pyarrow.parquet.read_table(stage / "documents/00000.parquet").to_pylist()
    expected = explain(stage, summary, str(row["id"]))
    assert str(row["id"]) in expected
    assert explain(stage, summary, hex(row["id"])) == expected
    assert explain(stage, summary, f"{row['id']:016X}".lower()) == expected
    assert "holds 10 documents" in explain(stage, summary, "in/all.jsonl")
    for unknown in ("12", "zz", "in/all.jsonl#99", "-1", "#3", "9" * 40, ""):
        with pytest.raises(InputError, match="no document has this id or path"):
            explain(stage, summary, unknown)


def test_examples_of_a_reason(stage: Path) -> None:
    summary = read_summary(stage)
    shown = format_examples(stage, summary, None, 3)
    assert all(reason in shown for reason in summary["total"]["dropped"])
    only = format_examples(stage, summary, "too_short", 30)
    assert "too_short: 1 documents" in only
    assert "tiny" in only
    assert "near_duplicate" not in only
    assert "kept: 3 documents" in format_examples(stage, summary, "kept", 1)
    for reason, samples in (("dull", 1), (None, 0)):
        with pytest.raises(InputError, match="reason=dull|samples=0"):
            format_examples(stage, summary, reason, samples)


def test_the_summary_holds_what_a_report_needs(stage: Path) -> None:
    summary = read_summary(stage)
    total = summary["total"]
    assert total["licenses"] == {"unknown": total["out"]}
    assert [row["step"] for row in total["waterfall"]][:4] == ["read", "Normalize", "Length", "GopherQuality"]
    left = [row["left"]["documents"] for row in total["waterfall"]]
    assert left == sorted(left, reverse=True)
    assert left[-1] == total["out"]["documents"] == 3
    characters = summary["measures"]["notes"]["characters"]
    assert len(characters["edges"]) == 65
    assert sum(characters["counts"]) == 9
    assert {limit["reason"] for limit in characters["limits"]} == {"too_short", "too_long"}
    (largest, *_) = summary["clusters"]
    assert largest["size"] == 2
    assert len(summary["kept_examples"]) == 3
    assert {"summary", "duplicates and split"} <= {stage["stage"] for stage in summary["stages"]}
    rates = summary["step_rates"]["notes"]
    assert [rate["step"] for rate in rates] == ["Normalize", "Length", "GopherQuality", "Decontaminate"]
    assert all(rate["megabytes_per_second"] > 0 and rate["bytes"] > 1000 for rate in rates)
