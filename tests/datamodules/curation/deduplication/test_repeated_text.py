"""Repeated spans and lines against naive versions, whatever the chunks."""

import itertools
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputError
from datamodules.curation.deduplication import external_sort as spill
from datamodules.curation.deduplication.external_sort import in_key_ranges, read_piece, write_piece
from datamodules.curation.deduplication.repeated_lines import RepeatedLines
from datamodules.curation.deduplication.repeated_spans import RepeatedSpans
from datamodules.curation.deduplication.repeated_text import RepeatedText
from tests.helpers.curation import naive_words

WORDS = st.lists(st.sampled_from(["a", "b", "B,", "c.", "\n", "é", "你", "--"]), max_size=16).map(" ".join)
TEXTS = st.lists(WORDS, min_size=1, max_size=6)
LINES = st.lists(
    st.lists(st.sampled_from(["Menu one", "menu 2", "menu, 3 ", "x", "", "---", "Ünder", " long line  "]), max_size=7),
    min_size=1,
    max_size=7,
).map(lambda documents: ["\n".join(lines) for lines in documents])


def naive_spans(texts: list[str], size: int) -> list[str]:
    """Compare every window with every other."""
    words = [naive_words(text) for text in texts]
    places = [(d, p) for d, own in enumerate(words) for p in range(len(own) - size + 1)]
    window = {(d, p): tuple(word for word, _, _ in words[d][p : p + size]) for d, p in places}
    cut: set[tuple[int, int]] = set()
    for place in places:
        first = next(other for other in places if window[other] == window[place])
        if first != place:
            stays = {(first[0], first[1] + i) for i in range(size)}
            cut |= {(place[0], place[1] + i) for i in range(size)} - stays
    results = []
    for document, (text, own) in enumerate(zip(texts, words, strict=True)):
        raw = text.encode()
        starts = [begin for _, begin, _ in own] + [len(raw)]
        left = raw[: starts[0]] + b"".join(
            raw[starts[i] : starts[i + 1]] for i in range(len(own)) if (document, i) not in cut
        )
        results.append(left.decode())
    return results


def naive_lines(texts: list[str], shortest: int, most: int) -> list[str]:
    """Count every line in a dictionary."""

    def key(line: str) -> str:
        return " ".join("".join("0" if c in "0123456789" else c for c in word) for word, _, _ in naive_words(line))

    def counts(line: str) -> bool:
        return len(line.strip()) >= shortest and bool(key(line))

    holders: dict[str, set[int]] = {}
    for document, text in enumerate(texts):
        for line in text.split("\n"):
            if counts(line):
                holders.setdefault(key(line), set()).add(document)
    seen: set[str] = set()
    results = []
    for text in texts:
        left = []
        for line in text.splitlines(keepends=True):
            again = counts(line) and len(holders[key(line)]) > most and key(line) in seen
            if counts(line):
                seen.add(key(line))
            if not again:
                left.append(line)
        results.append("".join(left))
    return results


def run(
    step: RepeatedText, texts: list[str], chunks: list[list[int]], records: int = 1000
) -> tuple[list[str], list[int]]:
    """Texts and characters cut, worked on in chunks of documents."""
    left, lost = [""] * len(texts), [0] * len(texts)
    with TemporaryDirectory() as name:
        folder = Path(name)
        columns = [(pyarrow.array([texts[i] for i in chunk], pyarrow.string()), np.array(chunk)) for chunk in chunks]
        for number, (column, ordinals) in enumerate(columns):
            step.spill(column, ordinals, folder, f"chunk-{number}")
        repeated = step.merge(folder, records)
        for column, ordinals in reversed(columns):
            cut, characters = step.cut(column, ordinals, repeated)
            for ordinal, text, count in zip(ordinals.tolist(), cut.to_pylist(), characters.tolist(), strict=True):
                left[ordinal], lost[ordinal] = text, count
    return left, lost


def chunked(count: int, seed: int) -> list[list[int]]:
    """Documents in any order, in chunks of any size; empty ones too."""
    generator = np.random.default_rng(seed)
    order = generator.permutation(count)
    cuts = np.sort(generator.integers(0, count + 1, int(generator.integers(0, 4))))
    return [part.tolist() for part in np.split(order, cuts)]


@settings(max_examples=60, deadline=None)
@given(texts=TEXTS, size=st.integers(1, 6), seed=st.integers(0, 999), records=st.sampled_from([1, 3, 1000]))
def test_spans_equal_a_quadratic_search_in_any_chunks(texts: list[str], size: int, seed: int, records: int) -> None:
    left, lost = run(RepeatedSpans(size), texts, chunked(len(texts), seed), records)
    assert left == naive_spans(texts, size)
    assert lost == [len(text) - len(rest) for text, rest in zip(texts, left, strict=True)]


@settings(max_examples=60, deadline=None)
@given(texts=LINES, shortest=st.integers(1, 8), most=st.integers(1, 3), seed=st.integers(0, 999))
def test_lines_equal_a_count_in_any_chunks(texts: list[str], shortest: int, most: int, seed: int) -> None:
    left, lost = run(RepeatedLines(shortest, most), texts, chunked(len(texts), seed), 2)
    assert left == naive_lines(texts, shortest, most)
    assert lost == [len(text) - len(rest) for text, rest in zip(texts, left, strict=True)]


def test_what_is_kept_and_what_is_cut() -> None:
    passage = " ".join(f"word{i}" for i in range(60))
    texts = [f"First. {passage}. End.", f'Other: "{passage.upper()}!" And more.\n', f"{passage}\n", "la " * 200]
    left, _ = run(RepeatedSpans(), texts, [[0, 1, 2, 3]])
    assert left == [texts[0], 'Other: "And more.\n', "", "la " * 50]
    assert run(RepeatedSpans(61), texts[:3], [[0, 1, 2]])[0] == texts[:3]


def test_a_chunk_is_spilled_once_and_a_broken_write_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts, ordinals = pyarrow.array(["one two three", "one two three"]), np.arange(2)
    for step in (RepeatedSpans(2), RepeatedLines(3, 1)):
        folder = tmp_path / type(step).__name__
        folder.mkdir()

        def full(path: Path) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(spill, "sync", full)
            with pytest.raises(OSError, match="No space left"):
                step.spill(texts, ordinals, folder, "a")
        assert list(folder.iterdir()) == []
        step.spill(texts, ordinals, folder, "a")
        before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
        step.spill(texts, ordinals, folder, "a")
        assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
        # A merge that is killed and run again finds the same; nothing but its result is added.
        once = step.merge(folder).read_bytes()
        assert step.merge(folder).read_bytes() == once
        assert {path.name for path in folder.iterdir()} == {path.name for path in before} | {"repeated.npy"}


def test_nothing_spilled_cuts_nothing(tmp_path: Path) -> None:
    texts = pyarrow.chunked_array([pyarrow.array(["a b", None])])
    for step in (RepeatedSpans(), RepeatedLines()):
        left, lost = step.cut(texts, np.arange(2), step.merge(tmp_path))
        assert left.to_pylist() == ["a b", ""]
        assert lost.tolist() == [0, 0]


def test_bad_settings_and_ordinals_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="words=0"):
        RepeatedSpans(0)
    with pytest.raises(InputError, match="max_documents=0"):
        RepeatedLines(max_documents=0)
    for step in (RepeatedSpans(), RepeatedLines()):
        with pytest.raises(InputError, match="2\\^35"):
            step.spill(pyarrow.array(["a"]), np.array([2**35]), tmp_path, "a")


@settings(max_examples=30, deadline=None)
@given(pieces=st.lists(st.lists(st.integers(0, 40), max_size=30), max_size=4), records=st.integers(1, 50))
def test_key_ranges_hold_every_record_once_and_part_no_key(pieces: list[list[int]], records: int) -> None:
    with TemporaryDirectory() as name:
        paths = [Path(name) / f"{number}.npy" for number in range(len(pieces))]
        for path, keys in zip(paths, pieces, strict=True):
            ordered = np.sort(np.array(keys, dtype=np.uint64))
            # In two parts: a piece can be written as it is made.
            write_piece(path, 2, [(part, part + np.uint64(1)) for part in np.array_split(ordered, 2)])
            assert read_piece(path).shape == (2, len(keys))
        found = [part.copy() for part in in_key_ranges(paths, records, whole=2)]
    joined = np.concatenate([*found, np.empty((2, 0), dtype=np.uint64)], axis=1)
    assert sorted(joined[0].tolist()) == sorted(key for keys in pieces for key in keys)
    assert (joined[1] == joined[0] + 1).all()
    for lower, higher in itertools.pairwise(found):
        assert lower[0].max() >> 2 < higher[0].min() >> 2


@pytest.mark.parametrize("unit", ["a", "a ", "\x00", "a\n", "\n", "你", "word number and \n"])
def test_five_million_bytes_take_linear_time(unit: str, tmp_path: Path) -> None:
    texts = pyarrow.array([unit * (5_000_000 // len(unit.encode())), "", unit])
    for step in (RepeatedSpans(), RepeatedLines(1, 1)):
        folder = tmp_path / type(step).__name__
        folder.mkdir()
        start = time.thread_time()
        step.spill(texts, np.arange(3), folder, "a")
        step.cut(texts, np.arange(3), step.merge(folder))
        assert time.thread_time() - start < 15
