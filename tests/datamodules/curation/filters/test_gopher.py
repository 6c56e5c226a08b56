"""Gopher's rules against a plain version of their definitions, at their thresholds, and against datatrove."""

import re
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings

from datamodules.curation.filters.gopher import QUALITY, REPETITION, GopherQuality, GopherRepetition
from datamodules.curation.words.characters import SYMBOLS, TERMINALS
from datamodules.curation.words.split import words_of
from tests.helpers.corpus import sentences
from tests.helpers.curation import PLAIN, any_text, first_reason, in_buffer, measured


def naive_quality(text: str) -> dict[str, float]:
    words, lines = words_of(text), text.splitlines()
    proper = [word for word in words if any(character not in SYMBOLS + TERMINALS for character in word)]
    return {
        "words": len(proper),
        "mean_word_length": sum(map(len, proper)) / max(len(proper), 1),
        "hashes_per_word": text.count("#") / max(len(words), 1),
        "ellipses_per_word": (text.count("...") + text.count("…")) / max(len(words), 1),
        "bullet_lines": sum(line.lstrip().startswith(("•", "-")) for line in lines) / max(len(lines), 1),
        "ellipsis_lines": sum(line.rstrip().endswith(("...", "…")) for line in lines) / max(len(lines), 1),
        "alphabetic_words": sum(any(map(str.isalpha, word)) for word in words) / max(len(words), 1),
        "stop_words": len(set(GopherQuality.STOP_WORDS) & set(words)),
    }


def duplicates(parts: list[str]) -> tuple[float, int]:
    repeated = [part for part, times in Counter(parts).items() for _ in range(times - 1)]
    return len(repeated) / len(parts), sum(map(len, repeated))


def naive_repetition(text: str) -> dict[str, float]:
    if not text:
        return dict.fromkeys(REPETITION, 0.0)
    measured = {}
    for name, parts in (("line", re.split(r"\n+", text)), ("paragraph", re.split(r"\n{2,}", text.strip()))):
        share, characters = duplicates(parts)
        measured |= {f"duplicate_{name}s": share, f"duplicate_{name}_characters": characters / len(text)}
    words = words_of(text)
    for size in (2, 3, 4):
        grams = [tuple(words[i : i + size]) for i in range(len(words) - size + 1)]
        (top, times) = Counter(grams).most_common(1)[0] if grams else ((), 0)
        measured[f"top_{size}_gram"] = len(" ".join(top)) * times / len(text)
    for size in range(5, 11):
        seen, characters, i = set(), 0, 0
        while i < len(words) - size + 1:
            gram = tuple(words[i : i + size])
            if gram in seen:
                characters += sum(map(len, gram))
                i += size
            else:
                seen.add(gram)
                i += 1
        measured[f"duplicate_{size}_grams"] = characters / len(text)
    return measured


@settings(max_examples=300, deadline=None)
@given(text=any_text)
def test_measures_equal_a_plain_count(text: str) -> None:
    content, offsets = in_buffer([text, "between", text * 3])
    for row, repeated in ((0, text), (2, text * 3)):
        quality = dict(zip(QUALITY, GopherQuality().measure(content, offsets)[row].tolist(), strict=True))
        assert quality == pytest.approx(naive_quality(repeated))
        repetition = dict(zip(REPETITION, GopherRepetition().measure(content, offsets)[row].tolist(), strict=True))
        assert repetition == pytest.approx(naive_repetition(repeated))


def test_expressions_carry_the_measures() -> None:
    texts: list[Any] = [PLAIN, None, "", "same line.\n" * 3]
    rows = measured(GopherRepetition(), texts)
    for text, row in zip(texts, rows, strict=True):
        assert row == pytest.approx(naive_repetition(text or ""))


WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "theta", "kappa", "lambda", "omega"]


def distinct(count: int, first: int = 0) -> str:
    return " ".join(
        f"{WORDS[i % 10]}{'abcdefghij'[i // 10 % 10]}{'xyz'[i // 100]}" for i in range(first, first + count)
    )


def groups(size: int) -> list[str]:
    words = distinct(240).split()
    return [" ".join(words[i : i + size]) for i in range(0, len(words), size)]


@pytest.mark.parametrize(
    ("inside", "outside", "reason"),
    [
        ("the of " + "word " * 48, "the of " + "word " * 47, "gopher_too_few_words"),
        ("the of " + "word " * 99_998, "the of " + "word " * 99_999, "gopher_too_many_words"),
        ("the and " * 50, "the and " * 49 + "of of", "gopher_short_words"),
        ("the and " + "abcdefghijk " * 50 + "a " * 4, "the and " + "abcdefghijk " * 50, "gopher_long_words"),
        ("the of " + "word " * 88 + "# " * 10, "the of " + "word " * 87 + "# " * 11, "gopher_hashes"),
        ("the of " + "word " * 87 + "... " * 10 + "word", "the of " + "word " * 87 + "… " * 11, "gopher_ellipses"),
        ("the word of it\n" + "- some word here\n" * 9 + "word " * 40, "- the words of items\n" * 20,
            "gopher_bullet_lines"),
        (
            "the words of this line\n" * 7 + "the words of this line...\n" * 3,
            "the words of this line\n" * 6 + "the words of this line…\n" * 4,
            "gopher_ellipsis_lines",
        ),
        ("the of " + "word " * 78 + "1234 " * 20, "the of " + "word " * 77 + "1234 " * 21,
            "gopher_few_alphabetic_words"),
        ("the of " + "word " * 60, "the The the " + "word " * 60, "gopher_few_stop_words"),
    ],
)  # fmt: skip
def test_quality_limits_hold_at_their_thresholds(inside: str, outside: str, reason: str) -> None:
    assert first_reason(GopherQuality(), inside) is None
    assert first_reason(GopherQuality(), outside) == reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (PLAIN, None),
        ("\n\n".join(["a b", *["c d"] * 4, distinct(60)]), "gopher_duplicate_paragraphs"),
        (
            "\n\n".join([distinct(30), distinct(30), distinct(25, 40), distinct(25, 80)]),
            "gopher_duplicate_paragraph_characters",
        ),
        ("\n".join([*"aabbcc", distinct(60)]), "gopher_duplicate_lines"),
        (
            "\n".join([distinct(30), distinct(30), distinct(25, 40), distinct(25, 80)]),
            "gopher_duplicate_line_characters",
        ),
        (" of it ".join(distinct(60).split()), "gopher_top_2_gram"),
        (" a b c ".join(groups(2)), "gopher_top_3_gram"),
        (" a b c d ".join(groups(3)), "gopher_top_4_gram"),
        (" a b c d ".join(groups(5)), None),
    ],
)  # fmt: skip
def test_repetition_gives_its_reasons(text: str, reason: str | None) -> None:
    assert first_reason(GopherRepetition(), text) == reason


@pytest.mark.parametrize("size", range(5, 11))
def test_duplicate_n_grams_hold_at_their_thresholds(size: int) -> None:
    off: dict[str, Any] = {
        name: None for name in vars(GopherRepetition()) if name.startswith("max_duplicate_") and "grams" not in name
    }
    text = " ".join([distinct(size), distinct(60, 20), distinct(size)])
    (row,) = measured(GopherRepetition(), [text])
    share = row[f"duplicate_{size}_grams"]
    assert share == pytest.approx(len(distinct(size).replace(" ", "")) / len(text))
    for most, reason in ((share, None), (share * 0.99, f"gopher_duplicate_{size}_grams")):
        maxima = tuple(most if size == n else None for n in range(5, 11))
        rule = GopherRepetition(**off, max_top_n_grams=(None, None, None), max_duplicate_n_grams=maxima)  # type: ignore[arg-type]
        assert first_reason(rule, text) == reason


def documents() -> list[str]:
    prose = [sentences(seed, 12) for seed in range(8)]
    return [
        PLAIN, "", "short", "the of and\n" * 40, "# x\n" * 60, *prose,
        *(text.replace(". ", ".\n") for text in prose),
        *("- " + text.replace(". ", "...\n- ") for text in prose),
        "\n\n".join(prose[:3] * 2), "\n".join([*prose[:2], *prose[:2]]), "汉字 " * 80,
        PLAIN + " #" * 60, PLAIN + " word..." * 60, PLAIN + " 123456" * 300, "incomprehensibilities of the " * 50,
        "def f(x):\n    return the(x) and of[x]\n" * 5, " ".join(prose[0].split()[:7] * 9) + PLAIN,
    ]  # fmt: skip


NAMES = {
    "gopher_short_doc": "gopher_too_few_words", "gopher_long_doc": "gopher_too_many_words",
    "gopher_below_avg_threshold": "gopher_short_words", "gopher_above_avg_threshold": "gopher_long_words",
    "gopher_too_many_hashes": "gopher_hashes", "gopher_too_many_ellipsis": "gopher_ellipses",
    "gopher_too_many_bullets": "gopher_bullet_lines", "gopher_too_many_end_ellipsis": "gopher_ellipsis_lines",
    "gopher_below_alpha_threshold": "gopher_few_alphabetic_words", "gopher_enough_stop_words": "gopher_few_stop_words",
    "dup_para_frac": "gopher_duplicate_paragraphs", "dup_para_char_frac": "gopher_duplicate_paragraph_characters",
    "dup_line_frac": "gopher_duplicate_lines", "dup_line_char_frac": "gopher_duplicate_line_characters",
    **{f"top_{n}_gram": f"gopher_top_{n}_gram" for n in (2, 3, 4)},
    **{f"duplicated_{n}_n_grams": f"gopher_duplicate_{n}_grams" for n in range(5, 11)},
}  # fmt: skip


@pytest.mark.peer
def test_decisions_are_those_of_datatrove() -> None:
    pytest.importorskip("datatrove", reason="datatrove comes with the bench extra")
    from datatrove.data import Document
    from datatrove.pipeline.filters import GopherQualityFilter, GopherRepetitionFilter

    reasons = set()
    for theirs, ours in ((GopherQualityFilter(), GopherQuality()), (GopherRepetitionFilter(), GopherRepetition())):
        for text in filter(None, documents()):
            verdict = theirs.filter(Document(text=text, id="0"))
            expected = None if verdict is True else NAMES[verdict[1]]
            assert first_reason(ours, text) == expected, text[:80]
            reasons.add(expected)
    assert len(reasons) >= 10
