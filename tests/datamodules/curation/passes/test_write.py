"""Cuts of repeated text belong to the sources that ask for them, and leave nothing too short."""

from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from datamodules.curation.config import CurationConfig, TextSource
from datamodules.curation.deduplication.repeated_lines import RepeatedLines
from datamodules.curation.deduplication.repeated_spans import RepeatedSpans
from datamodules.curation.filters.length import Length
from datamodules.curation.pipeline import curate, list_inputs
from datamodules.readers import Files
from tests.helpers.corpus import sentences

BANNER = "This banner is above every page of all the sites that there are.\n"


def curated(folder: Path, texts: dict[str, list[str]], **settings: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Kept and dropped documents of sources with the settings of each."""
    sources = {}
    for name, own in texts.items():
        (folder / name).mkdir(parents=True)
        for number, text in enumerate(own):
            (folder / name / f"{number}.txt").write_text(text)
        sources[name] = TextSource(Files([str(folder / name)]), **settings.get(name, {}))
    (folder / "out").mkdir()
    curate(sources, list_inputs(sources), folder / "out", None, 0.1, 0, CurationConfig())
    return {kind: pyarrow.parquet.read_table(folder / "out" / kind).to_pylist() for kind in ("documents", "dropped")}


@pytest.mark.end_to_end
def test_a_source_that_asks_for_no_cut_is_left_whole(tmp_path: Path) -> None:
    texts = {
        name: [BANNER + sentences(100 * place + n, 12) for n in range(8)] for place, name in enumerate(("code", "web"))
    }
    passage = " " + sentences(999, 12)
    texts = {name: [*own, own[0] + passage + " One.", own[1] + passage + " Two."] for name, own in texts.items()}
    cuts = {"repeated_lines": RepeatedLines(max_documents=3), "repeated_spans": RepeatedSpans(20)}
    found = curated(tmp_path, texts, web=cuts)
    code = {row["text"].strip() for row in found["documents"] if row["source"] == "code"}
    assert code == {text.strip() for text in texts["code"]}
    web = [row["text"] for row in found["documents"] if row["source"] == "web"]
    assert sum(BANNER in text for text in web) == 1
    assert sum(passage in text for text in web) == 1


@pytest.mark.end_to_end
@pytest.mark.parametrize(("steps", "short"), [([], {0, 2}), ([Length(200)], {0, 1, 2})])
def test_what_is_too_short_after_a_cut_is_dropped(tmp_path: Path, steps: list[Any], short: set[int]) -> None:
    passage = sentences(1, 30)
    texts = [f"{passage} The end.", f"{sentences(2, 2)} {passage}", f"Alas {passage}", sentences(3, 30)]
    found = curated(tmp_path, {"web": texts}, web={"repeated_spans": RepeatedSpans(20), "steps": steps})
    # Files are read in the order of a hash of their names: the first keeps the passage.
    (first,) = [int(Path(row["path"]).stem) for row in found["documents"] if passage[:300] in row["text"]]
    dropped = {int(Path(row["path"]).stem): row["reason"] for row in found["dropped"]}
    assert dropped == dict.fromkeys(short - {first}, "repeated")


class Crawl(Files):
    """Files that a crawl fetched."""

    IS_CRAWL = True


def reading_order(folder: Path, count: int) -> list[int]:
    """Numbers of files in the order in which they are read."""
    probe = curated(folder, {"web": [sentences(5000 + 10 * n, 8) for n in range(count)]})
    return [int(Path(row["path"]).stem) for row in probe["documents"]]


@pytest.mark.end_to_end
def test_a_line_is_not_lost_with_its_first_document(tmp_path: Path) -> None:
    """The rest of the first document is cut and too little is left of it: the line stays in the next one."""
    order = reading_order(tmp_path / "probe", 13)
    other = "Another banner that is longer by far and above every page as well, as long as there are pages.\n"
    texts = [""] * 13
    # Others hold the second banner first, so that it is cut from the one that holds the first banner first.
    for place, number in enumerate(order):
        own = sentences(1000 + 100 * number, 12)
        texts[number] = other + own if place < 4 else BANNER + other if place == 4 else BANNER + own
    settings: dict[str, Any] = {"repeated_lines": RepeatedLines(max_documents=3), "steps": [Length(100)]}
    found = curated(tmp_path / "run", {"web": texts}, web=settings)
    assert [row["reason"] for row in found["dropped"]] == ["repeated"]
    kept = [row["text"] for row in found["documents"]]
    assert [sum(banner in text for text in kept) for banner in (BANNER, other)] == [1, 1]


@pytest.mark.end_to_end
def test_a_book_is_not_cut_for_the_crawl_that_quotes_it(tmp_path: Path) -> None:
    passage = sentences(1, 30)
    book = f"{sentences(2, 12)} {passage} {sentences(3, 12)}"
    sources = {}
    texts = {"a_crawl": f"{sentences(4, 12)} {passage} {sentences(5, 12)}", "z_books": book}
    for name, text in texts.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.txt").write_text(text)
        reader = (Crawl if name == "a_crawl" else Files)([str(tmp_path / name)])
        sources[name] = TextSource(reader, repeated_spans=RepeatedSpans(20))
    (tmp_path / "out").mkdir()
    curate(sources, list_inputs(sources), tmp_path / "out", None, 0.1, 0, CurationConfig())
    rows = pyarrow.parquet.read_table(tmp_path / "out" / "documents").to_pylist()
    assert {row["source"]: passage in row["text"] for row in rows} == {"a_crawl": False, "z_books": True}
    assert {row["source"]: row["cut_repeated_spans"] > 0 for row in rows} == {"a_crawl": True, "z_books": False}
