"""What is dropped as a duplicate of what, and which documents share a split, on texts planted for it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest

from datamodules.curation.config import CurationConfig, TextSource
from datamodules.curation.deduplication.minhash import NearDuplicates, estimated_similarity
from datamodules.curation.deduplication.url import UrlDuplicates
from datamodules.curation.passes.collect import RAW_SCHEMA
from datamodules.curation.passes.deduplicate import DedupResult, deduplicate_and_split
from datamodules.curation.passes.filter import signatures_of, write_filtered
from datamodules.curation.pipeline import curate, list_inputs
from datamodules.curation.reports.summary import format_table
from datamodules.readers import Files
from datamodules.readers.base import stable_hash
from tests.helpers.corpus import sentences

NEAR = NearDuplicates()
Row = dict[str, Any]


class Crawl(Files):
    """Rows that a crawl fetched."""

    IS_CRAWL = True


def curated(folder: Path, near: NearDuplicates | None = NEAR, **sources: list[Row]) -> tuple[list[Row], dict[str, Any]]:
    """All documents of curation, kept and dropped, and its summary; a source called `crawl...` is one."""
    readers = {}
    for name, rows in sources.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        readers[name] = TextSource((Crawl if name.startswith("crawl") else Files)([str(folder / name)]))
    (folder / "out").mkdir()
    summary = curate(readers, list_inputs(readers), folder / "out", near, 0.1, 0, CurationConfig())
    tables = [pyarrow.parquet.read_table(folder / "out" / kind).to_pylist() for kind in ("documents", "dropped")]
    return [row for table in tables for row in table], summary


def kept(rows: list[Row]) -> set[str]:
    return {row["text"].rstrip() for row in rows if "split" in row}


def chain(steps: int, sentences_of_each: int = 40) -> list[str]:
    """Texts of which each shares nine tenths with the one before it, and the last nothing with the first."""
    parts = [sentences(7000 + number, 1) for number in range(sentences_of_each + 4 * steps)]
    return [" ".join(parts[4 * step : 4 * step + sentences_of_each]) for step in range(steps)]


def result_of(folder: Path, texts: list[str], near: NearDuplicates = NEAR) -> tuple[DedupResult, np.ndarray]:
    """Deduplication of texts, and their signatures."""
    folder.mkdir()
    columns: dict[str, list[Any]] = {name: [None] * len(texts) for name in RAW_SCHEMA.names}
    columns |= {
        "id": [stable_hash(str(number)) for number in range(len(texts))],
        "group": [str(number) for number in range(len(texts))],
        "path": [str(number) for number in range(len(texts))],
        "bytes": [len(text) for text in texts],
        "text": texts,
    }
    pyarrow.parquet.write_table(pyarrow.table(columns, RAW_SCHEMA), folder / "raw.parquet")
    filtered = folder / "0.parquet"
    write_filtered(folder / "raw.parquet", filtered, "text", [], near, UrlDuplicates())
    result = deduplicate_and_split([filtered], ["text"], near, 0.2, 0)
    assert result is not None
    return result, np.load(signatures_of(filtered))


@pytest.mark.end_to_end
def test_a_document_is_dropped_only_for_one_it_resembles(tmp_path: Path) -> None:
    """A chain of edits is not one text: transitive closure would leave one document of forty."""
    texts = chain(40)
    result, signatures = result_of(tmp_path / "chain", texts)
    lost = np.flatnonzero(result.reason > 0)
    assert 10 < len(lost) < 35
    shares = estimated_similarity(signatures[lost], signatures[result.duplicate_of[lost]])
    assert shares.min() >= NEAR.similarity
    assert np.allclose(shares, result.similarity[lost])
    assert not result.reason[result.duplicate_of[lost]].any()
    left = np.flatnonzero(result.reason == 0)
    for place, one in enumerate(left):
        for other in left[place + 1 :]:
            assert estimated_similarity(signatures[one], signatures[other]) < 0.8


@pytest.mark.end_to_end
def test_copies_with_small_edits_leave_one_document(tmp_path: Path) -> None:
    words = sentences(1, 60).split()
    texts = [" ".join([*words[:place], "edited", *words[place + 1 :]]) for place in range(0, 300, 6)]
    result, _ = result_of(tmp_path / "copies", texts)
    assert (result.reason == 0).sum() == 1


@pytest.mark.end_to_end
def test_no_near_copy_of_training_is_in_validation(tmp_path: Path) -> None:
    """Pairs of every similarity: all that are well above the bound stay together, and most others are free to part."""
    texts = []
    for number in range(60):
        own = [sentences(10_000 + 50 * number + part, 1) for part in range(40)]
        other = [sentences(90_000 + 50 * number + part, 1) for part in range(40)]
        shared = 20 + number % 18
        texts += [" ".join(own), " ".join(own[:shared] + other[shared:])]
    texts += [sentences(500_000 + number, 40) for number in range(80)]
    result, signatures = result_of(tmp_path / "pairs", texts)
    train = np.flatnonzero((result.reason == 0) & ~result.validation)
    validation = np.flatnonzero(result.validation)
    assert len(validation) > 20
    worst = max(float(estimated_similarity(signatures[one], signatures[train]).max()) for one in validation)
    assert worst < 0.65
    # What resembles something is in the split as well.
    assert result.related[validation].any()
    assert not result.related[validation].all()
    assert not result.related[result.reason > 0].any()


@pytest.mark.end_to_end
def test_documents_of_one_url_are_one_only_if_they_resemble_each_other(tmp_path: Path) -> None:
    posts = [{"text": sentences(number, 30), "url": "https://forum.example.org/thread"} for number in range(30)]
    edited = [
        {
            "text": posts[0]["text"].rpartition(" ")[0] + " " + sentences(99, 12),
            "url": "http://forum.example.org/thread/",
        }
    ]
    empty = [
        {"text": sentences(200 + number, 30), "url": url} for number, url in enumerate(["N/A", "#", "https://"] * 2)
    ]
    rows, _ = curated(tmp_path, posts=posts + empty, edited=edited)
    assert len(kept(rows)) == len(posts) + len(empty)
    (gone,) = [row for row in rows if "split" not in row]
    assert gone["reason"] == "url_duplicate"


@pytest.mark.end_to_end
@pytest.mark.parametrize("near", [NEAR, None])
def test_the_newest_fetch_of_a_page_is_kept(tmp_path: Path, near: NearDuplicates | None) -> None:
    dates = [
        "Mon, 04 Mar 2019 10:00:00 GMT",
        "2024-03-01T00:30:00+02:00",
        "2024-02-29T23:00:00Z",
        "999999999",
        "",
        "9/1/2001",
    ]
    pages = [
        {"text": sentences(number, 30), "url": "https://news.example.org/", "date": date}
        for number, date in enumerate(dates)
    ]
    rows, _ = curated(tmp_path, near, crawl=pages)
    assert kept(rows) == {pages[2]["text"]}


@pytest.mark.end_to_end
def test_a_paper_is_not_lost_for_the_page_that_announces_it(tmp_path: Path) -> None:
    url = "https://arxiv.org/abs/2301.00001"
    paper = {"text": sentences(1, 200), "url": url, "date": "2023-01-01"}
    abstract = {"text": sentences(2, 10), "url": url, "date": "2024-01-01"}
    article = {"text": sentences(3, 60), "url": "https://en.wikipedia.org/wiki/Tower", "date": "2023-01-01"}
    page = {"text": article["text"] + " Edit this page.", "url": article["url"], "date": "2024-01-01"}
    rows, _ = curated(tmp_path, crawl=[abstract, page], papers=[paper], wikipedia=[article])
    assert kept(rows) == {paper["text"], abstract["text"], article["text"]}


@pytest.mark.end_to_end
def test_a_step_that_empties_a_source_is_said_aloud(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = sentences(1, 60).split()
    forms = [{"text": " ".join([*words[:place], "filled", *words[place + 1 :]])} for place in range(0, 200, 10)]
    essays = [{"text": sentences(100 + number, 30)} for number in range(20)]
    _, summary = curated(tmp_path, forms=forms, essays=essays)
    (warning,) = summary["warnings"]
    assert warning.startswith("source forms: near-duplicates dropped 19 of 20 documents, mostly as near_duplicate; ")
    assert f"warning: {warning}" in capsys.readouterr().err
    assert "19 of 20" in " ".join(format_table(summary).split())
    assert summary["group_sizes"] == [{"size": 20, "groups": 1}]
    assert summary["clusters"][0]["size"] == 20


@pytest.mark.end_to_end
@pytest.mark.parametrize("near", [NEAR, None])
def test_a_text_is_not_lost_with_the_older_fetch_that_has_it(tmp_path: Path, near: NearDuplicates | None) -> None:
    one, other = sentences(1, 30), sentences(2, 30)
    pages = [
        {"text": one, "url": "http://a.example.org/1", "date": "2020-01-01"},
        {"text": one, "url": "http://b.example.org/2", "date": "2021-01-01"},
        {"text": other, "url": "http://a.example.org/1", "date": "2024-01-01"},
    ]
    rows, _ = curated(tmp_path, near, crawl=pages)
    assert kept(rows) == {one, other}


@pytest.mark.end_to_end
def test_a_duplicate_names_a_document_that_is_kept(tmp_path: Path) -> None:
    """A fetch dropped for a newer one, which is dropped for a book."""
    book = sentences(1, 60)
    newest = book.replace(book.split()[5], "otherwise", 1)
    pages = [
        {"text": sentences(2, 30), "url": "http://a.example.org/", "date": "2020-01-01"},
        {"text": newest, "url": "http://a.example.org/", "date": "2024-01-01"},
    ]
    rows, _ = curated(tmp_path, crawl=pages, books=[{"text": book}])
    (only,) = [row for row in rows if "split" in row]
    lost = {row["reason"]: row["duplicate_of"] for row in rows if "split" not in row}
    assert lost == {"url_duplicate": only["id"], "near_duplicate": only["id"]}


@pytest.mark.end_to_end
def test_fetches_of_a_page_are_one_beside_many_other_documents_of_its_url(tmp_path: Path) -> None:
    url = "http://forum.example.org/thread"
    posts = [{"text": sentences(number, 30), "url": url} for number in range(20)]
    fetches = [{"text": sentences(100 + number, 30), "url": url, "date": f"202{number}-01-01"} for number in range(3)]
    rows, _ = curated(tmp_path, crawl=fetches, posts=posts)
    assert kept(rows) == {row["text"] for row in [*posts, fetches[2]]}


@pytest.mark.end_to_end
def test_every_text_that_passes_the_filters_is_represented(tmp_path: Path) -> None:
    """Random sources of few texts, edits, URLs and dates: no text goes but with an older fetch or for a near-copy."""
    numbers = np.random.default_rng(5)
    texts = [sentences(number, 30) for number in range(25)]
    texts += [f"{text} {sentences(500 + number, 1)}" for number, text in enumerate(texts[:12])]

    def drawn() -> Row:
        page, year = numbers.integers(15), numbers.integers(2015, 2025)
        return {"text": texts[numbers.integers(37)], "url": f"http://a.example.org/{page}", "date": f"{year}-01-01"}

    sources = {name: [drawn() for _ in range(40)] for name in ("archive", "crawl", "crawl_b", "posts")}
    rows, _ = curated(tmp_path, **sources)
    assert len(rows) == 160
    by_id = {row["id"]: row for row in rows}
    # An excerpt is 200 characters of a text; the two forms of a text begin alike and are near-copies.
    begun = {text[:200] for text in kept(rows)}
    for row in rows:
        if "split" not in row:
            assert "split" in by_id[row["duplicate_of"]]
            assert row["reason"] == "url_duplicate" or row["excerpt"] in begun
        if row.get("reason") == "near_duplicate":
            assert by_id[row["duplicate_of"]]["text"][:200] == row["excerpt"]
    assert {row["reason"] for row in rows if "split" not in row} == {
        "exact_duplicate",
        "url_duplicate",
        "near_duplicate",
    }
