"""Each curation step against a naive version or hand-made cases, and the pipeline as a whole."""

import json
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

import daft
import pyarrow.parquet
import pytest
from daft import col
from daft.functions import length

from common.errors import InputError
from datamodules.curation.config import CurationConfig, TextSource
from datamodules.curation.deduplication.minhash import NearDuplicates
from datamodules.curation.filters.base import Filter, Threshold
from datamodules.curation.filters.gopher import GopherQuality
from datamodules.curation.filters.length import Length
from datamodules.curation.personal_data.mask import KINDS, MaskPersonalData, mask
from datamodules.curation.pipeline import curate, list_inputs
from datamodules.curation.reports.summary import format_table
from datamodules.readers import Files, stable_hash
from tests.helpers.corpus import sentences


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("write to Ann.Lee+x@mail.example.org.", "write to <EMAIL>."),
        ("@decorator and a@b and git@github", "@decorator and a@b and git@github"),
        ("ping 8.8.8.8, not 127.0.0.1 or 10.0.0.1", "ping <IP_ADDRESS>, not 127.0.0.1 or 10.0.0.1"),
        ("version 1.2.3.4.5 and 999.1.1.1", "version 1.2.3.4.5 and 999.1.1.1"),
        ("dns 2001:4860:4860::8888, ::1, x[::2], 12:30:45", "dns <IP_ADDRESS>, ::1, x[::2], 12:30:45"),
        ("call +49 30 901820 or (212) 555-0187", "call <PHONE_NUMBER> or <PHONE_NUMBER>"),
        ("call 212-555-0187", "call <PHONE_NUMBER>"),
        ("call +14155552671 now, tel:+4930901820.", "call <PHONE_NUMBER> now, tel:<PHONE_NUMBER>."),
        ("+33 1 23 45 67 89 or +49 15112345678", "<PHONE_NUMBER> or <PHONE_NUMBER>"),
        ("+49 (0)30 901820 or +1(415)5552671", "<PHONE_NUMBER> or <PHONE_NUMBER>"),
        ("+14155552671 2026-11-23", "<PHONE_NUMBER> 2026-11-23"),
        ("415.555.2671 and +1.415.555.2671", "<PHONE_NUMBER> and <PHONE_NUMBER>"),
        ("+1234567, +0123456789, +1234567890123456", "+1234567, +0123456789, +1234567890123456"),
        ("pi is 3.141.592.6535, not 123.456.7890", "pi is 3.141.592.6535, not 123.456.7890"),
        ("jörg@web.de, иван@mail.example.org, ann@müller.de", "<EMAIL>, <EMAIL>, <EMAIL>"),
        ("请联系jane@example.org。foo@2x.png", "请联系<EMAIL>。foo@2x.png"),
        ("ids 2024-01-02, 123-45-6789, 1+23 45 67", "ids 2024-01-02, 123-45-6789, 1+23 45 67"),
    ],
)  # fmt: skip
def test_personal_data_is_masked(text: str, expected: str) -> None:
    masked, counts = mask(text, list(KINDS))
    assert masked == expected
    assert sum(counts.values()) == expected.count("<")
    masker = MaskPersonalData()
    (row,) = daft.from_pydict({"text": [text]}).select(masker.masked(col("text")).alias("m")).to_pylist()
    assert row["m"] == {"text": expected, **counts}
    with pytest.raises(InputError, match="kinds="):
        MaskPersonalData(["names"])


@pytest.mark.parametrize(
    "unit",
    ["a", "1", ".", "1.", "a@", "1:", "+1", "(1", "\n", "a.b@c.", "ö@ü.", "+12", "+1234 5678 ", "234.", "#", " "],
)
def test_a_million_characters_take_linear_time(unit: str) -> None:
    text = unit * (1_000_000 // len(unit))
    start = time.perf_counter()
    mask(text, list(KINDS))
    assert time.perf_counter() - start < 10


def write_planted(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(60):
        text = sentences(i, 40)
        (folder / f"{i}.txt").write_text(text)
        if i < 10:
            (folder / f"{i}-copy.txt").write_text(text + "\r\n")
        elif i < 20:
            (folder / f"{i}-near.txt").write_text(text.replace(".", ". ", 1) + " One more sentence here.")
        elif i < 40:
            half = text.split()
            (folder / f"{i}-related.txt").write_text(
                " ".join(half[: len(half) * 4 // 5]) + " " + sentences(5000 + i, 10)
            )
    (folder / "short.txt").write_text("tiny")
    (folder / "latin.txt").write_bytes(b"caf\xe9" * 100)
    (folder / "mail.txt").write_text(sentences(900, 40) + " Mail me at someone@example.com.")


def run_pipeline(texts: Path, into: Path, seed: int = 0, **settings: Any) -> dict[str, Any]:
    sources = {"text": TextSource(Files([str(texts)]), [Length()])}
    into.mkdir()
    return curate(sources, list_inputs(sources), into, NearDuplicates(), 0.1, seed, CurationConfig(**settings))


def rows(folder: Path) -> list[dict[str, Any]]:
    """Rows of all files of a folder, in order."""
    return [row for path in sorted(folder.glob("*.parquet")) for row in pyarrow.parquet.read_table(path).to_pylist()]


def test_the_pipeline_accounts_for_every_document(tmp_path: Path) -> None:
    write_planted(tmp_path / "texts")
    summary = run_pipeline(tmp_path / "texts", tmp_path / "out")
    documents, dropped = rows(tmp_path / "out/documents"), rows(tmp_path / "out/dropped")
    total = summary["total"]
    assert total["in"]["documents"] == 103 == len(documents) + len(dropped)
    assert {reason: count["documents"] for reason, count in total["dropped"].items()} == Counter(
        row["reason"] for row in dropped
    )
    assert Counter(row["reason"] for row in dropped) >= Counter(
        exact_duplicate=10, near_duplicate=10, too_short=1, invalid_utf8=1
    )
    assert total["masked"]["email"] == 1
    assert any("<EMAIL>" in row["text"] for row in documents)
    order = [file.name for file in sorted(Files([str(tmp_path / "texts")]).files(), key=lambda f: stable_hash(f.name))]
    assert [row["path"] for row in documents] == [name for name in order if name in {row["path"] for row in documents}]
    assert {row["split"] for row in documents} == {"train", "validation"}
    assert all(len(summary["examples"][r]) == min(n["documents"], 20) for r, n in total["dropped"].items())
    assert set(summary["examples"]) == set(total["dropped"])
    # The longer of two near-duplicates is kept.
    kept = {row["path"] for row in documents}
    assert {f"texts/{i}-near.txt" for i in range(10, 20)} <= kept
    table = format_table(summary)
    assert "near_duplicate" in table
    assert max(map(len, table.splitlines())) <= 100


def test_related_documents_never_part(tmp_path: Path) -> None:
    write_planted(tmp_path / "texts")
    for seed in range(3):
        run_pipeline(tmp_path / "texts", tmp_path / f"out{seed}", seed)
        documents = rows(tmp_path / f"out{seed}/documents")
        split = {row["path"].removeprefix("texts/"): row["split"] for row in documents}
        pairs = [(f"{i}.txt", f"{i}-related.txt") for i in range(20, 40)]
        both = [(split[a], split[b]) for a, b in pairs if a in split and b in split]
        assert len(both) >= 10
        assert all(a == b for a, b in both)


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    write_planted(tmp_path / "texts")
    for name in ("one", "two"):
        run_pipeline(tmp_path / "texts", tmp_path / name)
    for file in ("documents/00000.parquet", "dropped/00000.parquet", "curation.json", "checksums.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


class Scored(Filter):
    """Scores by length and drops nothing."""

    summary = "score by length"

    def measures(self, text: daft.Expression) -> dict[str, daft.Expression]:
        return {"quality_score": length(text).cast(daft.DataType.float64()) / 10_000}

    def thresholds(self) -> dict[str, Threshold]:
        return {}


@pytest.mark.end_to_end
def test_a_source_that_is_not_scored_goes_before_its_copies(tmp_path: Path) -> None:
    for source in ("a_web", "b_encyclopedia"):
        (tmp_path / source).mkdir()
        text = sentences(1, 40) + (" One line more on the page." if source == "a_web" else "")
        (tmp_path / source / "text.txt").write_text(text)
    steps = {"a_web": [Scored()], "b_encyclopedia": []}
    sources = {name: TextSource(Files([str(tmp_path / name)]), own) for name, own in steps.items()}
    into = tmp_path / "out"
    into.mkdir()
    curate(sources, list_inputs(sources), into, NearDuplicates(), 0.1, 0, CurationConfig())
    assert [row["source"] for row in rows(into / "documents")] == ["b_encyclopedia"]
    (dropped,) = rows(into / "dropped")
    assert (dropped["source"], dropped["reason"]) == ("a_web", "near_duplicate")


def test_nothing_left_is_refused(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/a.txt").write_text("tiny")
    with pytest.raises(
        InputError, match=r"no document is left after curation of .*too_short \d+ \(characters < 200, .* has \d+\)"
    ):
        run_pipeline(tmp_path / "texts", tmp_path / "out")


@pytest.mark.end_to_end
def test_excerpts_of_dropped_documents_are_masked(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    address, number = "jane.doe@secret-example.com", "+1-415-555-2671"
    (tmp_path / "texts/short.txt").write_text(f"By {address}, phone {number}")
    (tmp_path / "texts/cut.txt").write_text("# Generated\n" + "x " * 90 + f" {address}" + " y" * 500)
    (tmp_path / "texts/many.txt").write_text(f"{address} " * 100)
    for name in ("kept", "copy"):
        (tmp_path / f"texts/{name}.txt").write_text(f"{address} {sentences(1, 40)}")
    sources = {"text": TextSource(Files([str(tmp_path / "texts")]), [Length(), GopherQuality(min_stop_words=0)])}
    (tmp_path / "out").mkdir()
    curate(sources, list_inputs(sources), tmp_path / "out", NearDuplicates(), 0.1, 0)
    excerpts = [row["excerpt"] for row in rows(tmp_path / "out/dropped")]
    assert len(excerpts) == 4
    assert all("<EMAIL" in excerpt and len(excerpt) <= 200 for excerpt in excerpts)
    assert "By <EMAIL>, phone <PHONE_NUMBER>" in excerpts
    assert not re.search("jane|415", "".join(excerpts) + (tmp_path / "out/curation.json").read_text())


def test_documents_of_one_file_part(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    lines = [json.dumps({"text": sentences(i, 40)}) + "\n" for i in range(50)]
    (tmp_path / "texts/all.jsonl").write_text("".join(lines))
    summary = run_pipeline(tmp_path / "texts", tmp_path / "out")
    assert 3 <= summary["total"]["validation"]["documents"] <= 5


@pytest.mark.parametrize("name", ["", "a/b", "../x", "my.data", "über", "a b", "a\n", "all"])
def test_names_of_sources_that_files_or_metrics_cannot_bear_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.txt").write_text("text")
    source = TextSource(Files([str(tmp_path)]))
    assert list_inputs({"web-2024_a": source})
    with pytest.raises(InputError, match=re.escape(f"sources.{name!r}: ")) as raised:
        list_inputs({"web": source, name: source})
    assert "\n" not in str(raised.value)
