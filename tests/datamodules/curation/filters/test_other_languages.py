"""Rules in other languages than English: sound text is kept, and what would drop it all is refused at configuration."""

from typing import Any

import pytest

from common.errors import InputError
from datamodules.curation.config import CurationConfig, TextSource, check_languages
from datamodules.curation.filters.base import Filter
from datamodules.curation.filters.c4 import C4Lines, C4Page
from datamodules.curation.filters.fineweb import FineWebQuality
from datamodules.curation.filters.gopher import GopherQuality, GopherRepetition
from datamodules.curation.filters.language import Language
from datamodules.curation.words.languages import END_MARKS, STOP_WORDS, UNSPACED_LANGUAGES
from datamodules.curation.words.split import words_of
from datamodules.readers import Files
from tests.helpers.curation import first_reason, in_buffer, measured

SPACED = {
    "ar": (
        "كانت المدينة القديمة تقع على ضفة النهر، وكان الناس يعملون في الحقول من الصباح إلى المساء. يقول "
        "المؤرخون إن التجارة كانت مزدهرة في ذلك الوقت. لا يعرف أحد متى بنيت الأسوار التي تحيط بها."
    ),
    "de": (
        "Die Stadt liegt am Ufer des Flusses und ist von Mauern umgeben, die aus dem Mittelalter stammen. "
        "Viele Menschen arbeiten in den Fabriken, das Handwerk ist mit der Zeit verschwunden. Wer von Norden "
        "kommt, sieht zuerst den Turm der alten Kirche."
    ),
    "es": (
        "La ciudad está a la orilla del río y se conoce por las murallas que la rodean. En los mercados se "
        "venden frutas y telas de los pueblos vecinos. Cada verano llegan muchos visitantes que buscan el "
        "silencio de las montañas."
    ),
    "fr": (
        "La ville se trouve au bord du fleuve et les remparts qui l'entourent datent du Moyen Âge. Les "
        "habitants travaillent dans les ateliers, et le marché du samedi attire des visiteurs. On raconte "
        "que la tour fut un jour la plus haute de la région."
    ),
    "hi": (
        "यह नगर नदी के किनारे बसा है और इसके चारों ओर पुरानी दीवारें हैं। यहाँ के लोग खेतों में काम करते हैं "
        "और शाम को बाज़ार जाते हैं। इतिहासकारों का कहना है कि व्यापार से नगर को बहुत लाभ हुआ। किसी को नहीं "
        "पता कि यह दुर्ग कब बना था और किसने बनवाया।"
    ),
    "it": (
        "La città si trova sulla riva del fiume e le mura che la circondano sono del medioevo. Molti "
        "lavorano in fabbrica, e il mercato del sabato è famoso per i suoi colori. Non si sa chi abbia "
        "costruito la torre, ma per tutti è un simbolo."
    ),
    "nl": (
        "De stad ligt aan de oever van de rivier en is bekend om het oude kasteel dat op de heuvel staat. In "
        "de haven werken nog altijd veel mensen, en de markt is elke zaterdag vol. Wie van het noorden komt, "
        "ziet eerst een toren."
    ),
    "pl": (
        "Miasto leży na brzegu rzeki i słynie z murów, które pochodzą ze średniowiecza. W fabrykach pracuje "
        "wielu ludzi, a do portu nie jest daleko. Kto przyjeżdża z północy, widzi najpierw wieżę starego "
        "kościoła, która stoi na wzgórzu."
    ),
    "pt": (
        "A cidade fica na margem do rio e é conhecida pelas muralhas que a cercam. Em muitas casas ainda se "
        "faz o pão de milho para a festa de verão. Quem vem do norte vê primeiro a torre da igreja, que fica "
        "no alto de um monte."
    ),
    "ru": (
        "Город стоит на берегу реки и известен стенами, которые построили в средние века. Многие люди "
        "работают на заводе, и это видно по улицам с утра. Никто не знает, как давно возвели башню, но из "
        "окон её видно отовсюду."
    ),
}  # fmt: skip
UNSPACED = {
    "zh": (
        "这座城市位于河边，周围的古城墙建于中世纪。很多人在工厂里工作，每个星期六的市场都很热闹。没有人知道塔"
        "是什么时候建的，但是从每一个窗户都能看到它。历史学家说，贸易给城市带来了财富，也带来了不同的语言和风"
        "俗。"
    ),
    "ja": (
        "この町は川のほとりにあり、古い城壁に囲まれている。多くの人が工場で働き、土曜日の市場はとてもにぎやか"
        "だ。塔がいつ建てられたのかは誰も知らないが、どの窓からもそれを見ることができる。歴史家によれば、貿易"
        "が町を豊かにしたという。"
    ),
    "th": (
        "เมืองนี้ตั้งอยู่ริมแม่น้ำและมีกำแพงเก่าล้อมรอบ ผู้คนจำนวนมากทำงานในโรงงานและการค้าของเมืองก็เจริญขึ้"
        "นทุกปี ไม่มีใครรู้ว่าหอคอยสร้างขึ้นเมื่อใด แต่สามารถมองเห็นได้จากหน้าต่างทุกบาน นักประวัติศาสตร์กล่า"
        "วว่าเป็นเมืองที่มีชื่อเสียง"
    ),
}  # fmt: skip


def chain(language: str) -> list[Any]:
    """The rules of a web source, as its documentation sets them for a language."""
    unspaced = language in UNSPACED_LANGUAGES
    words: Any = "characters" if unspaced else "english"
    no_marks = language == "th"
    return [
        GopherRepetition(words=words),
        GopherQuality(words=words, stop_words=language, min_mean_word_length=None if unspaced else 3.0),
        C4Lines(
            words="characters" if unspaced else "whitespace",
            end_marks="" if no_marks else END_MARKS.get(language, ".?!"),
        ),
        C4Page(words=words, min_sentences=None if no_marks else 3),
        FineWebQuality(words=words, min_terminal_lines=None if no_marks else 0.12),
    ]


def outcome(steps: list[Any], text: str) -> str | None:
    """Why a text is dropped, or None."""
    for step in steps:
        if isinstance(step, Filter):
            if reason := first_reason(step, text):
                return reason
        else:
            content, offsets = step.keep(*in_buffer([text]))
            text = bytes(content[offsets[0] : offsets[1]]).decode()
            if not text.strip():
                return "empty"
    return None


@pytest.mark.parametrize("language", [*SPACED, *UNSPACED])
def test_sound_text_is_kept_in_its_language_and_refused_as_english(language: str) -> None:
    text = (SPACED | UNSPACED)[language]
    # Twice the words for Gopher's fifty, and no phrase twice.
    texts = text if language in UNSPACED else f"{text}\n{' '.join(reversed(text.split()))}{text[-1]}"
    steps = chain(language)
    check_languages([Language([language]), *steps])
    assert outcome(steps, texts) is None
    english = chain("en")
    assert outcome(english, texts) is not None
    with pytest.raises(InputError, match=rf"languages=\['{language}'\]: \w+ drops {language}, it .*, set|: set"):
        check_languages([Language([language]), *english])


@pytest.mark.parametrize("language", UNSPACED)
def test_repeated_text_of_a_script_without_spaces_is_dropped(language: str) -> None:
    steps = chain(language)
    assert outcome(steps, UNSPACED[language][:30] * 20) is not None
    assert first_reason(steps[1], UNSPACED[language][:40]) == "gopher_too_few_words"


def test_characters_of_scripts_without_spaces_are_words() -> None:
    assert words_of("东京2024年, the (big) city。", "characters") == [
        "东", "京", "2024", "年", ",", "the", "(", "big", ")", "city", "。",
    ]  # fmt: skip
    assert words_of("ที่นี่", "characters") == ["ที่", "นี่"]
    assert words_of("don't 东京", "english") == ["do", "n't", "东京"]
    assert words_of("", "characters") == []


def test_sentences_end_at_marks_without_spaces() -> None:
    (row,) = measured(C4Page(words="characters"), ["一二三。四五六！七八九？十"])
    assert row["sentences"] == 4


def test_several_languages_need_the_stop_words_of_each() -> None:
    with pytest.raises(InputError, match=r"GopherQuality drops de, .* set stop_words: \[en, de\]"):
        TextSource(Files("x"), [Language(["en", "de"]), GopherQuality()])
    TextSource(Files("x"), [Language(["en", "de"]), GopherQuality(stop_words=["en", "de"])])
    TextSource(Files("x"), [Language(["en", "de"]), GopherQuality(min_stop_words=None)])
    TextSource(Files("x"), [Language(["fi"]), GopherQuality(stop_words=["ja", "on", "ei"])])
    # What comes before says nothing about what is chosen later.
    TextSource(Files("x"), [GopherQuality(), Language(["de"])])
    assert CurationConfig([GopherQuality()]).steps


def test_stop_words_may_be_given() -> None:
    text = "der die das " * 20
    assert measured(GopherQuality(stop_words="de"), [text])[0]["stop_words"] == 3
    assert measured(GopherQuality(stop_words=["die", "xyz"]), [text])[0]["stop_words"] == 1
    assert measured(GopherQuality(), [text])[0]["stop_words"] == 0
    assert all(len(words) >= 8 and len(set(words)) == len(words) for words in STOP_WORDS.values())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GopherQuality(words="characters"), "set min_mean_word_length: null"),
        (lambda: GopherQuality(stop_words="xx"), "stop_words='xx': give words, or a language of"),
        (lambda: GopherQuality(stop_words=[]), "name a language or words"),
        (lambda: GopherQuality(stop_words=["en", "zz"]), "zz is no language of ar de en"),
        (lambda: GopherQuality(stop_words=["en", "pt-br", "zh-cn"]), "pt-br zh-cn is no language of ar de en"),
        (lambda: GopherQuality(stop_words=["de", "EN"]), "EN is no language of ar de en"),
        (lambda: C4Lines(notices=[""]), "an empty one is in every line"),
    ],
)
def test_what_cannot_work_is_refused(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
