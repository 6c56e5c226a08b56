"""C4's rules against a plain version of the published code, at their thresholds, and against datatrove."""

import re
from pathlib import Path

import daft
import pytest
from daft import col
from hypothesis import given, settings

from common.errors import InputError
from datamodules.curation.filters.c4 import NOTICES, C4Lines, C4Page
from datamodules.curation.words.split import words_of
from tests.helpers.corpus import sentences
from tests.helpers.curation import any_text, first_reason, in_buffer

ENDS = ".!?"


def kept(texts: list[str], rule: C4Lines) -> list[str]:
    content, offsets = rule.keep(*in_buffer(texts))
    raw = content.tobytes()
    return [raw[a:b].decode() for a, b in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)]


def naive_lines(text: str, min_words: int = 5, longest: int = 1000, end_marks: str = '.?!"') -> str:
    lines = []
    for line in text.splitlines():
        line = line.strip()
        if any(len(word) > longest for word in line.split()):
            continue
        line = re.sub(r"\[[0-9]*]|\[edit]|\[citation needed]", "", line)
        if end_marks and (not line.endswith(tuple(end_marks)) or line.endswith("...")):
            continue
        if not line or len(line.split()) < min_words:
            continue
        if not any(notice in line.lower() for notice in NOTICES):
            lines.append(line)
    whole = "\n".join(lines).strip()
    return whole + "\n" if whole and text.endswith("\n") else whole


def naive_sentences(text: str) -> int:
    count = 0
    for line in filter(str.strip, text.splitlines()):
        count, is_ended = count + 1, False
        for word in words_of(line):
            if is_ended and word[0].isalnum():
                count, is_ended = count + 1, False
            is_ended |= word in ENDS
    return count


@settings(max_examples=200, deadline=None)
@given(text=any_text)
def test_lines_that_stay_are_those_of_a_plain_version(text: str) -> None:
    texts = [text, "", "One two three four five.\n", text + " of these words end."]
    for rule in (C4Lines(), C4Lines(2, 10, ".?!\"'"), C4Lines(0, -1), C4Lines(1, end_marks="")):
        most = rule.max_word_length if rule.max_word_length >= 0 else 10**9
        assert kept(texts, rule) == [naive_lines(t, rule.min_words, most, rule.end_marks) for t in texts]


def test_sentences_equal_a_plain_count() -> None:
    rule = C4Page()
    for seed in range(30):
        text = sentences(seed, 9).replace(". B", ".\n\nB").replace("a. ", "a? Mr. ").replace("n. ", "n... ")
        content, offsets = in_buffer([text])
        assert rule.measure(content, offsets)[0, 0] == naive_sentences(text)


def test_a_rewrite_keeps_nulls_and_line_feeds() -> None:
    texts = ["Menu\nThis line is a whole sentence [1].\nUse cookies on this page today.\n", None, "no"]
    df = daft.from_pydict({"text": texts}).select(C4Lines().transform(col("text")).alias("text"))
    assert df.to_pydict()["text"] == ["This line is a whole sentence .\n", None, ""]


@pytest.mark.parametrize(
    ("text", "stays"),
    [
        ("One two three four five.", True),
        ("One two three four.", False),
        ("One two three four five", False),
        ("One two three four five...", False),
        ('He said: "one two three!"', True),
        ("Please enable JavaScript to see this.", False),
        ("Read our Privacy Policy on this page.", False),
        ("a " * 5 + "x" * 1000 + "!", False),
        ("a " * 5 + "x" * 999 + "!", True),
    ],
)
def test_lines_go_at_their_thresholds(text: str, stays: bool) -> None:
    assert kept([text], C4Lines()) == [text if stays else ""]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("One is it. Two is it. Three is it.", None),
        ("One is it. Two of it e.g. Mr. Three", "c4_few_sentences"),
        ("One. Two! Lorem Ipsum dolor? Three.", "c4_placeholder"),
        ("One. Two! Three {x}. Four.", "c4_curly_bracket"),
        ("One. Two! Three of Darn. Four.", "c4_bad_words"),
        ("One. Two! Three of darned. Four.", None),
        ("One. Two! Three oh heck! Four.", "c4_bad_words"),
    ],
)
def test_pages_give_their_reasons(tmp_path: Path, text: str, reason: str | None) -> None:
    (tmp_path / "words.txt").write_text("darn\noh heck\n")
    assert first_reason(C4Page(bad_words=str(tmp_path / "words.txt")), text) == reason
    assert vars(C4Page(bad_words=str(tmp_path / "words.txt")))["bad_words"] == ["darn", "oh heck"]


def test_a_list_of_bad_words_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n")
    for name in ("empty.txt", "missing.txt"):
        with pytest.raises(InputError, match=f"bad_words=.*{name}: "):
            C4Page(bad_words=str(tmp_path / name))


@pytest.mark.peer
def test_decisions_are_those_of_datatrove() -> None:
    pytest.importorskip("datatrove", reason="datatrove comes with the bench extra")
    from datatrove.data import Document
    from datatrove.pipeline.filters import C4QualityFilter

    lines, page = C4Lines(min_words=3, end_marks=".?!\"'"), C4Page(min_sentences=5)
    verdicts = []
    for seed in range(30):
        text = sentences(seed, 8).replace(". B", ".\nB").replace(". D", "...\nD").replace(". F", " [3].\nF [edit]")
        text = ["Lorem ipsum is here. ", "Menu\n", "We use cookies on it.\n", "Is {it} here? ", "", ""][seed % 6] + text
        text = text[:30] + " here it ends." if seed % 6 == 4 else text
        document = Document(text=text, id="0")
        verdict = C4QualityFilter().filter(document)
        verdicts.append(verdict if verdict is True else f"c4_{verdict[1]}")
        (ours,) = kept([text], lines)
        reason = first_reason(page, ours)
        if verdict is True:
            assert reason is None
            assert ours == document.text
        else:
            names = {"c4_lorem_ipsum": "c4_placeholder", "c4_too_few_sentences": "c4_few_sentences"}
            assert reason == names.get(verdicts[-1], verdicts[-1])
    assert len(set(verdicts)) >= 4
