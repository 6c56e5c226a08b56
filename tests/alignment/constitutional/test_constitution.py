"""Constitutions: the shipped one is whole, and every mistake in one's own is named."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alignment.constitutional.ai_feedback import ask_comparison, worked_comparisons
from alignment.constitutional.constitution import Constitution, Principle, read_constitution
from alignment.constitutional.revisions import worked_critiques
from common.errors import InputError
from tests.helpers.corpus import ROOT

SHIPPED = ROOT / "configs/constitution/principles.yaml"
PRINCIPLE = {"name": "care", "critique": "Critique it.", "revision": "Revise it.", "comparison": "Which cares?"}
COMPARISON = {
    "principle": "care", "prompt": "Q?", "better": "good", "worse": "bad", "reasoning": "{better} is above {worse}."
}  # fmt: skip


def written(folder: Path, content: Any) -> Path:
    path = folder / "constitution.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def test_the_shipped_constitution_is_whole() -> None:
    law = read_constitution(SHIPPED)
    assert len(law.principles) == 16
    assert {example.principle for example in (*law.critiques, *law.comparisons)} <= {p.name for p in law.principles}
    turns = worked_critiques(law)
    assert [turn["role"] for turn in turns] == ["user", "assistant"] * 3 * len(law.critiques)
    assert turns[2]["content"] == law[law.critiques[0].principle].critique
    assert turns[5]["content"] == law.critiques[0].revision
    assert worked_critiques(law.with_examples(1)) == turns[:6]
    assert worked_comparisons(law.with_examples(0), False, False) == []


@pytest.mark.parametrize("thinking", [False, True])
def test_worked_comparisons_are_turned_round_with_the_pair(thinking: bool) -> None:
    law = read_constitution(SHIPPED)
    shown = [worked_comparisons(law, turned, thinking) for turned in (False, True)]
    each = len(shown[0]) // len(law.comparisons)
    for number, example in enumerate(law.comparisons):
        letters = []
        for messages in shown:
            turns = messages[number * each : (number + 1) * each]
            letter = turns[-1]["content"]
            letters.append(letter)
            # The letter is that of the better response, in the options and in the reasoning.
            assert f"\n{letter} {example.better}\n" in turns[0]["content"]
            if thinking:
                other = "(B)" if letter == "(A)" else "(A)"
                reasoning = example.reasoning.replace("{better}", letter).replace("{worse}", other)
                assert turns[1]["content"] == reasoning
        assert sorted(letters) == ["(A)", "(B)"]
    assert Counter(turn["content"] for turn in shown[0] if turn["content"] in ("(A)", "(B)")) == {"(A)": 2, "(B)": 2}


def test_a_comparison_shows_the_whole_conversation() -> None:
    prompt = [{"role": "user", "content": "One?"}, {"role": "assistant", "content": "Two."}]
    prompt.append({"role": "user", "content": "Three?"})
    (plain,), (turned,) = (ask_comparison(prompt, ("x", "y"), "Which?", turned, False) for turned in (False, True))
    assert "Human: One?\n\nAssistant: Two.\n\nHuman: Three?\n\nWhich?\n\nOptions:\n(A) x\n(B) y\n" in plain["content"]
    assert turned["content"] == plain["content"].replace("(A) x\n(B) y", "(A) y\n(B) x")


def test_principles_are_drawn_evenly_and_by_sample() -> None:
    law = Constitution(tuple(Principle(f"p{i}", "c", "r", "q") for i in range(5)))
    drawn = Counter(law.draw(3, sample, "round 1")[0].name for sample in range(2000))
    assert min(drawn.values()) > 320
    first, second = ([law.draw(3, sample, f"round {number}")[0].name for sample in range(200)] for number in (1, 2))
    assert 20 < sum(a == b for a, b in zip(first, second, strict=True)) < 65  # a fifth by chance
    assert first == [law.draw(3, sample, "round 1")[0].name for sample in range(200)]
    assert first != [law.draw(4, sample, "round 1")[0].name for sample in range(200)]
    assert len({p.name for p in law.draw(0, 7, "comparison", 4)}) == 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("principles: [", "is not valid YAML"),
        ("[]", "must be a mapping"),
        ({"principles": []}, "`principles` is missing or empty"),
        ({"rules": [PRINCIPLE]}, "unknown key 'rules', known are principles, critiques, comparisons"),
        ({"principles": {"care": PRINCIPLE}}, "`principles` must be a list"),
        ({"principles": ["be kind"]}, r"principles\[0\] must be a mapping with name, critique, revision, comparison"),
        ({"principles": [PRINCIPLE, PRINCIPLE]}, "two principles are called 'care'"),
        ({"principles": [{"name": "a"}]}, r"principles\[0\] lacks 'comparison'"),
        ({"principles": [PRINCIPLE | {"weight": 2}]}, r"principles\[0\] has an unknown key 'weight'"),
        ({"principles": [PRINCIPLE | {"critique": " "}]}, r"principles\[0\]\.critique=' ': must be text"),
        ({"principles": [PRINCIPLE | {"critique": 3}]}, r"principles\[0\]\.critique=3: must be text"),
        (
            {"principles": [PRINCIPLE], "comparisons": [COMPARISON | {"principle": "love"}]},
            r"comparisons\[0\] is about principle 'love', which is none of care",
        ),
        (
            {"principles": [PRINCIPLE], "comparisons": [COMPARISON | {"reasoning": "(A) is above (B)."}]},
            r"comparisons\[0\]\.reasoning must name the responses \{better\} and \{worse\}",
        ),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else "",
)
def test_mistakes_are_named(content: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message) as raised:
        read_constitution(written(tmp_path, content))
    assert "\n" not in str(raised.value)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_constitution(tmp_path / "nowhere.yaml")
    (tmp_path / "latin.yaml").write_bytes("principles: [é]".encode("latin-1"))
    with pytest.raises(InputError, match="is not valid UTF-8"):
        read_constitution(tmp_path / "latin.yaml")


scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=3), st.just("care"))
keys = st.one_of(st.sampled_from([*PRINCIPLE, *COMPARISON]), st.text(max_size=3), st.integers())
entries = st.one_of(scalars, st.lists(st.one_of(scalars, st.dictionaries(keys, scalars, max_size=5)), max_size=2))
lists = st.sampled_from(["principles", "critiques", "comparisons", "x"])


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.dictionaries(lists, entries, max_size=3))
def test_whatever_a_file_holds_is_a_constitution_or_a_mistake_of_one_line(content: Any, tmp_path: Path) -> None:
    content = {"principles": [PRINCIPLE]} | content
    mistake, law = "", None
    try:
        law = read_constitution(written(tmp_path, content))
    except InputError as error:
        mistake = str(error)
    if law is None:
        assert re.fullmatch("constitution=.*: .+", mistake)
    else:
        assert all(isinstance(text, str) and text for part in law.principles for text in vars(part).values())
