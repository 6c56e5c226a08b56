"""Text is normalized and wrong decoding repaired, and sound text stays as it is."""

import unicodedata

import daft
import pytest
from daft import col
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.curation.filters.normalize import Normalize, RepairUnicode, repair_unicode


@pytest.mark.parametrize("sound", ["I don’t know – “really”?", "naïve café, Größe", "Привет, мир", "€ 5 für 3 Äpfel"])
@pytest.mark.parametrize("encoding", ["sloppy-windows-1252", "latin-1"])
def test_wrong_decoding_is_undone_once_and_twice(sound: str, encoding: str) -> None:
    damaged = sound
    for layers in range(2):
        damaged = damaged.encode("utf-8").decode(encoding)
        text = f"A sound line: déjà vu.\n{damaged}\nand its end\n"
        assert repair_unicode(text) == (text.replace(damaged, sound), 1), (layers, damaged)


def test_repairs_are_counted_and_sound_text_stays() -> None:
    sound = ["plain", "x = 'â'  # é", "&lt;b&gt; “quotes” ﬁ １２ \x1b[0m", None, "注意 Größe\r\nend"]
    texts = [*sound, "caf\u00c3\u00a9"]
    df = daft.from_pydict({"text": texts})
    step = RepairUnicode()
    rows = df.select(step.repaired(col("text")).alias("r"), step.transform(col("text")).alias("new")).to_pylist()
    assert [row["new"] for row in rows] == [*sound, "café"]
    assert [row["r"] for row in rows] == [
        {"text": new, "repaired_lines": int(new == "café")} for new in [*sound, "café"]
    ]


def normal(value: str) -> str:
    """A text after normalization."""
    (row,) = daft.from_pydict({"text": [value]}).select(Normalize().transform(col("text")).alias("text")).to_pylist()
    result: str = row["text"]
    return result


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("page one\x0cpage two", "page one\npage two\n"),
        ("a\x0bb\x85c\u2028d\u2029e\x1cf\x1fg", "a\nb\nc\nd\ne\nf\ng\n"),
        ("\x85a\x85\x85b", "\na\nb\n"),
        ("so\x93 and\x9f\x80 so", "so and so\n"),
        ("e\x00\u0301", "\u00e9\n"),
        ("\ufeffx\x7f\x1b", "x\n"),
        ("don\u00e2\x80\x99t", "don\u00e2\x80\x99t\n"),
        ("tab\tand\n\nblank  \n", "tab\tand\n\nblank\n"),
    ],
)
def test_every_line_end_parts_words_and_controls_go(text: str, expected: str) -> None:
    assert normal(text) == expected
    assert normal(expected) == expected


def test_wrong_decoding_survives_normalization_until_it_is_repaired() -> None:
    damaged = "I don’t know – déjà vu… “really”?".encode().decode("latin-1")
    assert repair_unicode(normal(damaged))[0] == "I don’t know – déjà vu… “really”?\n"


@settings(max_examples=100, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_normalization_is_canonical_and_idempotent(text: str) -> None:
    once = normal(text)
    assert normal(once) == once
    assert once == unicodedata.normalize("NFC", once)
    assert "\r" not in once
    assert "\x00" not in once
    assert once.endswith("\n")
    assert normal("a \r\nb\t\n\n  c\x00\n\n\n") == "a\nb\n\n  c\n"
