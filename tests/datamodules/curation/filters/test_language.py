"""Languages are identified, and only the wanted ones kept."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputError
from datamodules.curation.filters.language import LANGUAGES, Language, detect
from tests.helpers.curation import filter_rows

SENTENCES = {
    "en": "The committee will meet again next week to discuss the budget and the new school building.",
    "de": "Der Ausschuss trifft sich nächste Woche erneut, um über den Haushalt und das Schulgebäude zu sprechen.",
    "fr": "Le comité se réunira de nouveau la semaine prochaine pour discuter du budget et du nouveau bâtiment.",
    "es": "El comité se reunirá de nuevo la próxima semana para hablar del presupuesto y del edificio.",
    "ru": "Комитет снова соберётся на следующей неделе, чтобы обсудить бюджет и новое здание школы.",
    "ja": "委員会は来週再び開かれ、予算と新しい校舎について話し合います。",
    "ar": "ستجتمع اللجنة مرة أخرى الأسبوع المقبل لمناقشة الميزانية",
}


def test_languages_are_identified_and_only_the_wanted_kept() -> None:
    rows = filter_rows(Language(["en", "de"]), {"text": [*SENTENCES.values(), None]})
    assert [row["language"] for row in rows] == [*SENTENCES, None]
    assert [row["reason"] for row in rows] == [None, None, *["other_language"] * 5, None]
    for row in rows[:2]:
        assert row["wanted_language_score"] == row["language_score"] >= 0.65
    assert max(row["wanted_language_score"] for row in rows[2:-1]) < 0.2


def test_a_document_scores_the_same_in_any_batch_and_by_its_beginning_alone() -> None:
    texts = [f"{text}\n" * 50 for text in SENTENCES.values()]
    together = filter_rows(Language(), {"text": texts})
    assert together == [filter_rows(Language(), {"text": [text]})[0] for text in texts]
    rows = filter_rows(Language(characters=80), {"text": [SENTENCES["en"][:80] + SENTENCES["ru"] * 20]})
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
