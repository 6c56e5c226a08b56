"""Languages told apart, wrong decoding repaired, and addresses and words on lists."""

import gzip
from pathlib import Path
from typing import Any

import daft
import pytest
from daft import col
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputError
from datamodules.curation.filters.base import Filter
from datamodules.curation.filters.language import LANGUAGES, Language, detect
from datamodules.curation.filters.normalize import RepairUnicode, repair_unicode
from datamodules.curation.filters.toxicity import WordList
from datamodules.curation.filters.url_blocklist import UrlBlocklist, candidates

SENTENCES = {
    "en": "The committee will meet again next week to discuss the budget and the new school building.",
    "de": "Der Ausschuss trifft sich nächste Woche erneut, um über den Haushalt und das Schulgebäude zu sprechen.",
    "fr": "Le comité se réunira de nouveau la semaine prochaine pour discuter du budget et du nouveau bâtiment.",
    "es": "El comité se reunirá de nuevo la próxima semana para hablar del presupuesto y del edificio.",
    "ru": "Комитет снова соберётся на следующей неделе, чтобы обсудить бюджет и новое здание школы.",
    "ja": "委員会は来週再び開かれ、予算と新しい校舎について話し合います。",
    "ar": "ستجتمع اللجنة مرة أخرى الأسبوع المقبل لمناقشة الميزانية",
}


def filtered(rule: Filter, rows: dict[str, list[str | None]]) -> list[dict[str, Any]]:
    """Measurements of each row, and the first reason that applies."""
    df = daft.from_pydict(rows).with_columns(rule.measures(col("text")))
    drops = rule.drops({name: col(name) for name in rule.measures(col("text"))})
    results = []
    for row in df.with_columns({f"drop_{why}": drop for why, drop in drops.items()}).to_pylist():
        row["reason"] = next((why for why in drops if row[f"drop_{why}"]), None)
        results.append(row)
    return results


def test_languages_are_told_apart_and_only_the_wanted_kept() -> None:
    rows = filtered(Language(["en", "de"]), {"text": [*SENTENCES.values(), None]})
    assert [row["language"] for row in rows] == [*SENTENCES, None]
    assert [row["reason"] for row in rows] == [None, None, *["other_language"] * 5, None]
    for row in rows[:2]:
        assert row["wanted_language_score"] == row["language_score"] >= 0.65
    assert max(row["wanted_language_score"] for row in rows[2:-1]) < 0.2


def test_a_document_scores_the_same_in_any_batch_and_by_its_beginning_alone() -> None:
    texts = [f"{text}\n" * 50 for text in SENTENCES.values()]
    together = filtered(Language(), {"text": texts})
    assert together == [filtered(Language(), {"text": [text]})[0] for text in texts]
    rows = filtered(Language(characters=80), {"text": [SENTENCES["en"][:80] + SENTENCES["ru"] * 20]})
    assert rows[0]["language"] == "en"


@settings(max_examples=60, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=50))
def test_any_text_has_probabilities(text: str) -> None:
    scores = detect(text)
    assert set(scores) <= LANGUAGES
    assert all(0 <= score <= 1 for score in scores.values())
    assert list(scores.values()) == sorted(scores.values(), reverse=True)
    assert sum(scores.values()) < 1.01


def test_language_settings_that_cannot_work_are_refused() -> None:
    for arguments in ({"languages": ["english"]}, {"languages": []}, {"min_score": 2}, {"characters": 0}):
        with pytest.raises(InputError, match="="):
            Language(**arguments)  # type: ignore[arg-type]


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


def test_addresses_are_held_against_lists(tmp_path: Path) -> None:
    (tmp_path / "domains").write_text("bad.example\nEvil.co.uk  # worse\n\n203.0.113.9\nmüller.example\n")
    with gzip.open(tmp_path / "urls.gz", "wt") as file:
        file.write("http://www.mixed.example/adult/\n")
    rule = UrlBlocklist([str(tmp_path / "domains"), str(tmp_path / "urls.gz")], ["casino"], ["xxx"], ["free", "live"])
    cases = {
        "https://bad.example/": "url_listed",
        "http://user:word@www.a.b.bad.example:8080/path?q=1": "url_listed",
        "HTTPS://EVIL.CO.UK": "url_listed",
        "http://203.0.113.9/x": "url_listed",
        "http://xn--mller-kva.example/": "url_listed",
        "https://mixed.example/adult/page.html": "url_listed",
        "https://mixed.example/adults": None,
        "https://notbad.example/": None,
        "https://bad.example.org/": None,
        "https://ok.example/?to=bad.example": None,
        "https://ok.example/online-casino/": "url_word",
        "https://ok.example/casinos": None,
        "https://ok.example/x-x-x": "url_word",
        "https://ok.example/free-free": None,
        "https://ok.example/free/live": "url_soft_words",
        "": None,
        "not an address": None,
    }
    urls: list[str | None] = [*cases, None]
    rows = filtered(rule, {"text": ["text"] * len(urls), "url": urls})
    assert {row["url"]: row["reason"] for row in rows} == {**cases, None: None}


@settings(max_examples=100, deadline=None)
@given(url=st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_any_address_has_few_candidates(url: str) -> None:
    assert len(list(candidates(url + "/a" * 100 + ".b" * 100))) <= 64


def test_lists_that_cannot_work_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("# nothing\n")
    for arguments, words in [
        ({}, "all empty"),
        ({"domains": [str(tmp_path / "absent")]}, "is no file"),
        ({"domains": [str(tmp_path / "empty")]}, "holds no entry"),
        ({"words": ["two words"]}, "letters and digits"),
    ]:
        with pytest.raises(InputError, match=words):
            UrlBlocklist(**arguments)  # type: ignore[arg-type]
    for paths, share, words in [
        ([str(tmp_path / "absent")], 0.0, "is no file"),
        ([], 0.0, "hold no word"),
        ([str(tmp_path / "empty")], 1.5, "max_share"),
    ]:
        with pytest.raises(InputError, match=words):
            WordList(paths, share)


def test_a_changed_list_changes_the_rule(tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_text("one.example\n")
    first = vars(UrlBlocklist([str(path)])), vars(WordList([str(path)]))
    path.write_text("two.example\n")
    rule = UrlBlocklist([str(path)])
    assert vars(rule) != first[0]
    assert vars(WordList([str(path)])) != first[1]
    rows = filtered(rule, {"text": ["", ""], "url": ["http://one.example", "http://two.example"]})
    assert [row["reason"] for row in rows] == [None, "url_listed"]


def test_listed_words_are_counted_as_words_or_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("darn\nhot  Dog\n[x]\nc++\nlang<t>\n" + "".join(f"filler{i}\n" for i in range(1200)))
    texts: list[str | None] = ["darned darning", "Oh DARN it.", "a hot\ndog here", "filler1199 and", "", "fine"]
    shares = [row["listed_words"] for row in filtered(WordList([str(path)]), {"text": texts})]
    assert shares == pytest.approx([0, 1 / 3, 1 / 4, 1 / 2, 0, 0])
    rows = filtered(WordList([str(path)], 0.3, whole_words=False), {"text": [*texts, "[x] c++ lang<t>"]})
    assert [row["reason"] for row in rows] == [*["listed_words"] * 2, None, "listed_words", None, None, "listed_words"]
