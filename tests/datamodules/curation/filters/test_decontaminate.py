"""Overlaps with evaluation sets against a naive search, in every format."""

import gzip
import json
import os
import pickle
import time
import unicodedata
from pathlib import Path

import daft
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from daft import col
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputError
from datamodules.curation.filters.decontaminate import Decontaminate, Hit, evaluation_ngrams
from datamodules.curation.words.utf8_buffers import utf8_buffers
from tests.helpers.curation import naive_words

QUESTION = "If a train leaves the station at nine, how far has it gone by twelve o'clock today?"
PASSAGE = " ".join(f"w{i}" for i in range(40))


def counted(rule: Decontaminate, texts: list[str]) -> list[int]:
    df = daft.from_pydict({"text": texts}).select(rule.measures(col("text"))["contaminated_ngrams"].alias("n"))
    found: list[int] = df.to_pydict()["n"]
    return found


def write_rows(path: Path, rows: list[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_copies_are_dropped_and_named(tmp_path: Path) -> None:
    rows = [{"question": "How many?"}, {"question": QUESTION, "choices": {"text": ["one", PASSAGE]}}]
    rule = Decontaminate([str(write_rows(tmp_path / "set.jsonl", rows))])
    copied = f"Look: {QUESTION.upper().replace(' ', '  ')} -- said someone."
    assert counted(rule, ["", "How many? " * 20, copied, PASSAGE[:20] + " and " + PASSAGE]) == [0, 0, 6, 28]
    (hit,) = rule.hits(copied)
    assert hit == Hit("set.jsonl", 2, 6, hit.words)
    assert hit.words == "IF  A  TRAIN  LEAVES  THE  STATION  AT  NINE,  HOW  FAR  HAS  IT  GONE"
    assert rule.hits("nothing of it") == []
    drops = rule.drops({"contaminated_ngrams": col("n")})
    assert list(drops) == ["contaminated"]
    df = daft.from_pydict({"n": [0, 1]}).select(drops["contaminated"].alias("drops"))
    assert df.to_pydict()["drops"] == [False, True]


def test_two_characters_of_a_script_without_spaces_are_a_word(tmp_path: Path) -> None:
    name, question = "中华人民共和国成立", "二〇〇五年十月，哪一位科学家因为发现石墨烯的性质而第一次得到了大学的奖章呢"
    short, shorter = "第二次世界大战于一九四五年九月结束", "第二次世界大战结束于九月"
    rows = [{"options": [name, shorter], "question": question, "short": short}]
    rule = Decontaminate([str(write_rows(tmp_path / "set.jsonl", rows))])
    found = counted(
        rule, [f"他说{name}以后，{shorter}。", f"见{question}。", question[:20], f"书里{short}了。", question[2:29]]
    )
    assert found[1] > 1
    assert [found[0], *found[2:]] == [0, 0, 1, 1]
    mixed = Decontaminate([str(write_rows(tmp_path / "mixed.jsonl", [f"{question} {PASSAGE} {question}"]))])
    assert counted(mixed, [PASSAGE, question, question[:14], " ".join(PASSAGE.split()[:12])])[2:] == [0, 0]
    assert min(counted(mixed, [PASSAGE, question])) > 0


def test_decomposed_evaluation_sets_are_found(tmp_path: Path) -> None:
    text = "Cộng hòa xã hội chủ nghĩa Việt Nam là một quốc gia nằm ở Đông Nam Á trên bán đảo"
    rule = Decontaminate([str(write_rows(tmp_path / "set.jsonl", [unicodedata.normalize("NFD", text)]))])
    assert counted(rule, [unicodedata.normalize("NFC", text)])[0] > 0
    assert rule.hits(unicodedata.normalize("NFD", text))


def naive_ngrams(words: list[str], size: int, shortest: int) -> list[tuple[str, ...]]:
    """N-grams of `size` words, or of twice as many characters of Chinese; a shorter text is one."""
    worth = [0.5 if word == "你" else 1.0 for word in words]
    found = []
    for length in (size, 2 * size):
        for i in range(len(words) - length + 1):
            is_spaced = sum(worth[i : i + length]) > 0.75 * length
            if is_spaced == (length == size):
                found.append(tuple(words[i : i + length]))
    return found or [tuple(words)] * (sum(worth) >= shortest)


TOKENS = st.lists(st.sampled_from(["a", "B", "c,", "d\n", "你"]), max_size=14).map(" ".join)


@settings(max_examples=100, deadline=None)
@given(rows=st.lists(TOKENS, max_size=5), texts=st.lists(TOKENS, min_size=1, max_size=5))
def test_counts_and_hits_equal_a_naive_search(
    tmp_path_factory: pytest.TempPathFactory, rows: list[str], texts: list[str]
) -> None:
    size, shortest = 4, 2
    grams: dict[tuple[str, ...], int] = {}
    for number, row in enumerate(rows, start=1):
        words = [word for word, _, _ in naive_words(row)]
        for gram in naive_ngrams(words, size, shortest):
            grams.setdefault(gram, number)
    path = write_rows(tmp_path_factory.mktemp("set") / "set.jsonl", list(rows))
    rule = Decontaminate([str(path)], words=size, min_words=shortest)
    table = evaluation_ngrams(*rule._wanted())
    expected = []
    for text in texts:
        words = [word for word, _, _ in naive_words(text)]
        windows = [tuple(words[i : i + n]) for n in range(1, 2 * size + 1) for i in range(len(words) - n + 1)]
        found = [grams[window] for window in windows if window in grams]
        expected.append(len(found))
        assert {hit.row: hit.ngrams for hit in table.hits(text.encode())} == {
            row: found.count(row) for row in set(found)
        }
    assert table.count(*utf8_buffers(pyarrow.array(texts))).tolist() == expected


def test_every_format_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "sets"
    (folder / "inner").mkdir(parents=True)
    write_rows(folder / "a.jsonl", ["x", {"q": QUESTION}])
    (folder / "b.json").write_text(json.dumps([{"q": PASSAGE}, {"q": ["other", QUESTION + " again and again"]}]))
    (folder / "inner/c.txt").write_text("\ufeff" + "\n".join(f"line {i} of text" for i in range(9)))
    (folder / "d.jsonl.gz").write_bytes(gzip.compress(b'{"q": "v0 v1 v2 v3 v4 v5 v6 v7 v8 v9 v10 v11 v12"}\n'))
    table = pyarrow.table({"id": [1, 2], "q": ["short", " ".join(f"p{i}" for i in range(13))]})
    pyarrow.parquet.write_table(table, folder / "e.parquet")
    (folder / "README.md").write_text("not a set")
    rule = Decontaminate([str(folder)])

    def named(text: str) -> list[tuple[str, int]]:
        return [(Path(hit.file).name, hit.row) for hit in rule.hits(text)]

    assert named(QUESTION) == [("a.jsonl", 2)]
    assert named(QUESTION + " again and again") == [("a.jsonl", 2), ("b.json", 2)]
    assert named("p " + " ".join(f"P{i}" for i in range(13))) == [("e.parquet", 2)]
    assert named("line 3 of text line 4 of text line 5 of text line 6") == [("c.txt", 1)]
    assert named(" ".join(f"v{i}" for i in range(13))) == [("d.jsonl.gz", 1)]


def test_short_texts_are_matched_whole_and_fields_chosen(tmp_path: Path) -> None:
    eight, seven = "one two three four five six seven eight", "z one two three four five six"
    path = str(write_rows(tmp_path / "set.jsonl", [{"q": {"text": eight}, "note": PASSAGE}, {"q": seven}]))
    assert counted(Decontaminate([path]), [f"so {eight} nine", seven, eight[4:], PASSAGE]) == [1, 0, 0, 28]
    assert counted(Decontaminate([path], keys=["q"]), [eight, PASSAGE]) == [1, 0]


def test_what_many_rows_share_can_be_passed_over(tmp_path: Path) -> None:
    rows: list[object] = [{"q": f"{PASSAGE} {i}", "again": PASSAGE} for i in range(3)]
    path = str(write_rows(tmp_path / "set.jsonl", rows))
    assert counted(Decontaminate([path], common_rows=3), [PASSAGE]) == [28]
    # Of the last n-gram of each row only one row has it.
    assert counted(Decontaminate([path], common_rows=2), [PASSAGE, f"{PASSAGE} 1"]) == [0, 1]


def test_another_version_of_a_set_is_another_rule(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "set.jsonl", [QUESTION])
    rule = Decontaminate([str(path)])
    assert json.loads(json.dumps(vars(rule))) == vars(rule)
    assert vars(pickle.loads(pickle.dumps(rule))) == vars(rule)
    assert counted(rule, [QUESTION]) == [6]
    write_rows(path, [PASSAGE])
    os.utime(path, ns=(1, 1))
    other = Decontaminate([str(path)])
    assert vars(other) != vars(rule)
    assert counted(other, [QUESTION, PASSAGE]) == [0, 28]
    evaluation_ngrams.cache_clear()
    with pytest.raises(InputError, match="changed while it was in use"):
        rule.hits(QUESTION)


def test_what_cannot_work_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        Decontaminate([str(tmp_path / "none")])
    with pytest.raises(InputError, match="holds no file ending in"):
        Decontaminate([str(tmp_path)])
    path = tmp_path / "set.jsonl"
    path.write_text('{"a": 1}\n{broken')
    with pytest.raises(InputError, match="min_words=14"):
        Decontaminate([str(path)], min_words=14)
    with pytest.raises(InputError, match="max_ngrams=-1"):
        Decontaminate([str(path)], max_ngrams=-1)
    with pytest.raises(InputError, match="set.jsonl cannot be read"):
        Decontaminate([str(path)]).hits("a")


@pytest.mark.parametrize("unit", ["a", "a ", "\x00", "你", "w0 w1 w2 w3 w4 w5 w6 w7 w8 w9 w10 w11 w12 "])
def test_five_million_bytes_take_linear_time(unit: str, tmp_path: Path) -> None:
    rows: list[object] = [PASSAGE, "one two three four five six seven eight"]
    rule = Decontaminate([str(write_rows(tmp_path / "set.jsonl", rows))])
    table = evaluation_ngrams(*rule._wanted())
    data = np.frombuffer(unit.encode() * (5_000_000 // len(unit.encode())), dtype=np.uint8)
    start = time.thread_time()
    table.count(data, np.array([0, 0, len(data)], dtype=np.int64))
    assert time.thread_time() - start < 8
