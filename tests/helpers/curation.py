"""Texts to clean, rules applied to texts as the pipeline applies them, and what a whole curation wrote."""

import gzip
import json
from pathlib import Path
from typing import Any, Literal

import daft
import numpy as np
import regex
import xxhash
from daft import col
from hypothesis import strategies as st

from datamodules.curation.config import CurationConfig, TextSource
from datamodules.curation.deduplication.minhash import NearDuplicates
from datamodules.curation.deduplication.repeated_lines import RepeatedLines
from datamodules.curation.deduplication.repeated_spans import RepeatedSpans
from datamodules.curation.deduplication.word_hashes import UNSPACED
from datamodules.curation.filters.base import Filter
from datamodules.curation.filters.gopher import GopherQuality
from datamodules.curation.filters.length import Length
from datamodules.prepare import prepare_documents
from datamodules.readers import Files, InputFile
from tests.helpers.corpus import sentences

NOTICE = "\nThis notice is below every one of the stories that were collected here.\n"
WORD = regex.compile(rf"(?=[\p{{L}}\p{{N}}\p{{M}}]){UNSPACED}|(?:(?!{UNSPACED})[\p{{L}}\p{{N}}\p{{M}}])+")
PLAIN = sentences(1, 40) + " The house of the people that have to be with us and more."

FRAGMENTS = [
    " ", "\n", "\n\n", "\r\n", "\u2028", "  ", "\t", ".", "...", "..", "…", "the", "of", "and", "word",
    "Word.", "don't", "#", "- item", "• item", "42", "--", "{", "}", "(x):", "é", "汉字", "“quoted”",
    "[1]", "[edit]", "JavaScript", "lorem ipsum", "<b>", "😀", "\x00", "e.g.", "http://a.bc/d", "foo_bar",
    "5km", "same line of words.",
]  # fmt: skip
any_text = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=60),
    st.lists(st.sampled_from(FRAGMENTS), max_size=60).map("".join),
)


def in_buffer(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Texts as the compiled loops take them."""
    raw = [text.encode() for text in texts]
    return np.frombuffer(b"".join(raw), dtype=np.uint8), np.cumsum([0, *map(len, raw)])


def measured(rule: Filter, texts: list[str], path: str = "a.py") -> list[dict[str, Any]]:
    """The measurements of each text."""
    df = daft.from_pydict({"text": texts, "file": [path] * len(texts)})
    return df.select(*(value.alias(name) for name, value in rule.measures(col("text")).items())).to_pylist()


def first_reason(rule: Filter, text: str, path: str = "a.py") -> str | None:
    """Why a text is dropped, or None."""
    df = daft.from_pydict({"text": [text], "file": [path]})
    df = df.with_columns(rule.measures(col("text")))
    drops = rule.drops({name: col(name) for name in rule.measures(col("text"))})
    (row,) = df.select(*(value.alias(name) for name, value in drops.items())).to_pylist()
    return next((name for name, hit in row.items() if hit), None)


def filter_rows(rule: Filter, rows: dict[str, list[str | None]]) -> list[dict[str, Any]]:
    """Measurements of each row, and the first reason that applies."""
    df = daft.from_pydict(rows).with_columns(rule.measures(col("text")))
    drops = rule.drops({name: col(name) for name in rule.measures(col("text"))})
    results = []
    for row in df.with_columns({f"drop_{why}": drop for why, drop in drops.items()}).to_pylist():
        row["reason"] = next((why for why in drops if row[f"drop_{why}"]), None)
        results.append(row)
    return results


def naive_words(text: str) -> list[tuple[str, int, int]]:
    """Word and its bytes, by a regular expression."""
    return [
        (
            "".join(character.lower()[0] for character in match[0]),
            len(text[: match.start()].encode()),
            len(text[: match.end()].encode()),
        )
        for match in WORD.finditer(text)
    ]


def write_texts(folder: Path) -> None:
    """Two sources with duplicates inside and between them, in files of several documents and of one."""
    (folder / "stories").mkdir(parents=True)
    (folder / "notes").mkdir()
    for part in range(6):
        with gzip.open(folder / f"stories/{part}.jsonl.gz", "wt", encoding="utf-8") as file:
            for i in range(12):
                text = sentences(100 * part + i, 25) + NOTICE * (i % 3 == 0)
                file.write(json.dumps({"text": text}) + "\n")
    for i in range(24):
        text = sentences(1000 + i if i % 3 else 100 * (i % 6), 25)
        (folder / f"notes/{i}.txt").write_text(f"{text} Ask ann{i}@example.com." if i % 2 else text)
    (folder / "notes/short.txt").write_text("tiny")


def curate_into(
    folder: Path,
    texts: Path,
    chunk_megabytes: float = 0.04,
    reverse: bool = False,
    engine: Literal["native", "ray"] = "native",
) -> Path:
    sources = {
        name: TextSource(
            Reversed([str(texts / name)]) if reverse else Files([str(texts / name)]),
            [Length(100)],
            repeated_lines=RepeatedLines(max_documents=3),
            repeated_spans=RepeatedSpans(20),
        )
        for name in (("stories", "notes") if reverse else ("notes", "stories"))
    }
    curation = CurationConfig(
        [GopherQuality(min_stop_words=0)],
        chunk_megabytes=chunk_megabytes,
        engine=engine,
    )
    return prepare_documents(folder, sources, NearDuplicates(), 0.1, 0, curation)


class Reversed(Files):
    """Lists its files the other way round."""

    def files(self) -> list[InputFile]:
        return super().files()[::-1]


def checksums(stage: Path) -> dict[str, str]:
    """Of every file but the one that says how long it took."""
    return {
        str(path.relative_to(stage)): xxhash.xxh3_64_hexdigest(path.read_bytes())
        for path in sorted(stage.rglob("*"))
        if path.is_file() and path.name != "timings.json"
    }
