"""Rules applied to texts as the pipeline applies them, and texts to apply them to."""

from typing import Any

import daft
import numpy as np
from daft import col
from hypothesis import strategies as st

from datamodules.curation.filters.base import Filter
from tests.conftest import sentences

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
