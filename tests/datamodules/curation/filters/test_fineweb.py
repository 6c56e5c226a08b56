"""FineWeb's rules against a plain version of their definitions, at their thresholds, and against datatrove."""

import pytest
from hypothesis import given, settings

from datamodules.curation.filters.fineweb import MEASURES, FineWebQuality
from datamodules.curation.words.characters import TERMINALS
from datamodules.curation.words.split import words_of
from tests.helpers.corpus import sentences
from tests.helpers.curation import PLAIN, any_text, first_reason, in_buffer


def naive(text: str) -> dict[str, float]:
    lines = [line for line in text.split("\n") if line.strip()]
    seen: set[str] = set()
    repeated = 0
    for line in lines:
        repeated += len(line) if line in seen else 0
        seen.add(line)
    return {
        "terminal_lines": sum(line.endswith(tuple(TERMINALS)) for line in lines) / max(len(lines), 1),
        "short_lines": sum(len(line) <= 30 for line in lines) / max(len(lines), 1),
        "characters_in_repeated_lines": repeated / max(len(text.replace("\n", "")), 1),
        "line_feeds_per_word": text.count("\n") / max(len(words_of(text)), 1),
    }


@settings(max_examples=300, deadline=None)
@given(text=any_text)
def test_measures_equal_a_plain_count(text: str) -> None:
    values = FineWebQuality().measure(*in_buffer([text, text + "\n" + text]))
    for row, whole in enumerate((text, text + "\n" + text)):
        assert dict(zip(MEASURES, values[row].tolist(), strict=True)) == pytest.approx(naive(whole))


def lines_of(count: int, end: str = ".", words: int = 9) -> list[str]:
    return [f"{'line'} number {i} with {'some more ' * words}words in it{end}" for i in range(count)]


@pytest.mark.parametrize(
    ("inside", "outside", "reason"),
    [
        ([*lines_of(3), *lines_of(22, ",")], [*lines_of(2), *lines_of(22, ",")], "fineweb_few_terminal_lines"),
        (
            [*("word " * 5 + str(i) + "." for i in range(66)), *lines_of(33)],
            [*("word " * 5 + str(i) + "." for i in range(68)), *lines_of(32)],
            "fineweb_short_lines",
        ),
        ([*lines_of(120), *lines_of(1)], [*lines_of(50), *lines_of(1)], "fineweb_repeated_lines"),
    ],
)
def test_limits_hold_at_their_thresholds(inside: list[str], outside: list[str], reason: str) -> None:
    assert first_reason(FineWebQuality(), "\n".join(inside)) is None
    assert first_reason(FineWebQuality(), "\n".join(outside)) == reason


def test_line_feeds_are_a_rule_of_the_code_alone() -> None:
    text = "\n\n\n\n".join(f"{i} words that do make a longish line of it." for i in range(20))
    many = text.replace("\n\n\n\n", "\n" * 5)
    rule = FineWebQuality(max_short_lines=None)
    assert first_reason(rule, text.replace("longish", "")) is None or first_reason(rule, many) is not None
    assert first_reason(rule, many) == "fineweb_line_feeds"
    assert first_reason(FineWebQuality(max_short_lines=None, max_line_feeds_per_word=None), many) is None


@pytest.mark.peer
def test_decisions_are_those_of_datatrove() -> None:
    pytest.importorskip("datatrove", reason="datatrove comes with the bench extra")
    from datatrove.data import Document
    from datatrove.pipeline.filters import FineWebQualityFilter

    names = {
        "line_punct_ratio": "fineweb_few_terminal_lines",
        "short_line_ratio": "fineweb_short_lines",
        "char_dup_ratio": "fineweb_repeated_lines",
        "list_ratio": "fineweb_line_feeds",
    }
    reasons = set()
    for seed in range(30):
        text = sentences(seed, 20)
        for variant in (
            text, text.replace(". ", "\n"), text.replace(". ", ".\n"), text.replace(" ", "\n", 60) + "\n" + text,
            "\n".join([text[:300], text[300:], text[:300]]), text.replace(". ", ".\n\n\n\n\n"), PLAIN + "\n。" * seed,
        ):  # fmt: skip
            verdict = FineWebQualityFilter().filter(Document(text=variant, id="0"))
            expected = None if verdict is True else names[verdict[1]]
            assert first_reason(FineWebQuality(), variant) == expected, variant[:60]
            reasons.add(expected)
    assert len(reasons) >= 4
