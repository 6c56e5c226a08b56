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
