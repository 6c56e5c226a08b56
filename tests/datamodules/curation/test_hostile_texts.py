"""Every filter, transform and kind of personal data on odd and hostile texts: no failure, no NaN, linear time."""

import itertools
import math
import time
from pathlib import Path
from typing import Any

import daft
import pytest
from daft import col
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.curation.filters.base import CurationStep, Filter
from datamodules.curation.filters.c4 import C4Lines, C4Page
from datamodules.curation.filters.code_quality import CodeQuality
from datamodules.curation.filters.decontaminate import Decontaminate
from datamodules.curation.filters.fineweb import FineWebQuality
from datamodules.curation.filters.gopher import GopherQuality, GopherRepetition
from datamodules.curation.filters.language import Language
from datamodules.curation.filters.length import Length
from datamodules.curation.filters.normalize import Normalize, RepairUnicode
from datamodules.curation.filters.toxicity import WordList
from datamodules.curation.filters.url_blocklist import UrlBlocklist
from datamodules.curation.personal_data.mask import KINDS, MaskPersonalData, mask

ODD = [
    "", " ", "\n", "word", ".", "\x00", "a\x00b", "😀", "👩‍👩‍👧‍👦" * 3, "\u202eright to left\u202c",
    "שלום עולם", "مرحبا",
    "\u0301", "e\u0301" * 5, "\ufeff", "\ufffd", "\u2028", "\x85", "\U0010ffff", "𒀀", "İ", "ß", "ﬁ", "{", "...", "…",
    "@", "a@", "1.1.1.1.1.1", "http://", "[", "[1]", "[edit", "中", "中。", "ที่", "\u0e31", "\t" * 50, "-" * 50, "#",
]  # fmt: skip
URLS = [
    "", " ", "://", "http://", "http://[", "http://a@b@c:99999/?#", "//", "x" * 3000, "http://" + "a." * 500,
    "http://例え.jp/é",
    "http://" + "é" * 80 + ".org", "http://a/\x00", "http://%zz", "mailto:a@b.org", "\u202e",
]  # fmt: skip


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> list[CurationStep]:
    folder = tmp_path_factory.mktemp("lists")
    (folder / "words").write_text("darn\nhot dog\n中\nשלום\n")
    (folder / "domains").write_text("bad.example\n例え.jp\n")
    (folder / "set.txt").write_text(" ".join(f"w{i}" for i in range(30)))
    return [
        Normalize(), RepairUnicode(), Length(), Language(), GopherQuality(), GopherQuality(words="whitespace"),
        GopherQuality(words="characters", min_mean_word_length=None, stop_words="zh"), GopherRepetition(),
        GopherRepetition(words="characters"), C4Lines(), C4Lines(words="characters", end_marks="。！？"), C4Page(),
        C4Page(words="characters", bad_words=["x"]), FineWebQuality(),
        FineWebQuality(words="characters", end_marks="。"),
        CodeQuality(), WordList([str(folder / "words")]), WordList([str(folder / "words")], whole_words=False),
        Decontaminate([str(folder / "set.txt")]), UrlBlocklist([str(folder / "domains")], ["porn"], ["xxx"], ["sex"]),
        MaskPersonalData(),
    ]  # fmt: skip


def apply(step: CurationStep, texts: list[str | None], urls: list[str | None] | None = None) -> list[dict[str, Any]]:
    """Measurements of texts, or their new texts."""
    rows = {"text": texts, "url": urls or [None] * len(texts), "file": ["a.html"] * len(texts)}
    # Without a text there is no type.
    df = daft.from_pydict(rows).with_columns({name: col(name).cast(daft.DataType.string()) for name in rows})
    if isinstance(step, Filter):
        return df.select(*(value.alias(name) for name, value in step.measures(col("text")).items())).to_pylist()
    return df.select(step.transform(col("text")).alias("text")).to_pylist()


def check(step: CurationStep, texts: list[str | None]) -> None:
    """Each text has the outcome it has alone, none of them NaN, and a transform leaves text that is UTF-8."""
    together = apply(step, texts)
    assert len(together) == len(texts)
    for row in together:
        for value in row.values():
            assert not (isinstance(value, float) and math.isnan(value)), row
            if isinstance(value, str):
                value.encode()
    assert apply(step, texts[::-1]) == together[::-1]


def test_odd_texts(steps: list[CurationStep]) -> None:
    for step in steps:
        check(step, [*ODD, None, *(f"{odd} and {odd}\n{odd}." for odd in ODD)])


@settings(max_examples=15, deadline=None)
@given(
    texts=st.lists(st.one_of(st.text(max_size=60), st.lists(st.sampled_from(ODD), max_size=9).map("".join)), max_size=4)
)
def test_any_text(steps: list[CurationStep], texts: list[str]) -> None:
    sound: list[str | None] = [text.encode("utf-8", "replace").decode() for text in texts]
    for step in steps:
        check(step, [None, *sound])


def test_odd_addresses(steps: list[CurationStep]) -> None:
    (step,) = (step for step in steps if isinstance(step, UrlBlocklist))
    rows = apply(step, ["x"] * len(URLS), list(URLS))
    assert [row["url_listed"] for row in rows] == [int("例え.jp" in url) for url in URLS]


@settings(max_examples=200, deadline=None)
@given(
    parts=st.lists(
        st.one_of(st.sampled_from([*ODD, "тел. 8 ", "手机 1", "ann@x.org", "8.8.8.8", "\ud800"]), st.text(max_size=8))
    )
)
def test_masks_replace_spans_of_the_text_and_nothing_else(parts: list[str]) -> None:
    text = "".join(parts)
    for name, kind in KINDS.items():
        spans = list(kind.find(text))
        assert all(0 <= start < end <= len(text) for start, end in spans), name
        assert all(before[1] <= behind[0] for before, behind in itertools.pairwise(spans)), name
        new, counts = mask(text, [name])
        assert (counts[name] == 0) == (new == text)


UNITS = ["a", " a", "中", "。", "{", "[", "[1", ".", "😀", "e\u0301", "é\x80", "\u202e", "x@", "1.", "ที่", "-", "İ"]


@pytest.mark.parametrize("unit", UNITS)
def test_one_line_of_any_length_takes_linear_time(steps: list[CurationStep], unit: str) -> None:
    def seconds(step: CurationStep, size: int) -> float:
        text = unit * (size // len(unit.encode()))
        began = time.process_time()
        apply(step, [text])
        return time.process_time() - began

    for step in steps:
        small = min(seconds(step, 20_000) for _ in range(2))
        assert seconds(step, 160_000) < 8 * 4 * max(small, 0.02), type(step).__name__


def test_a_line_of_two_megabytes(steps: list[CurationStep], tmp_path: Path) -> None:
    for step in steps:
        began = time.process_time()
        (row,) = apply(step, ["ann@x.org 中 " * 140_000])
        assert row
        assert time.process_time() - began < 12, type(step).__name__
