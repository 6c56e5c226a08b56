"""Labels of encodings as the Encoding Standard has them, and pages with a few bytes that are wrong."""

import pytest

from datamodules.readers.html import decode_html

GERMAN = "Der Frühling kam spät, aber die Bäume blühten schön und übervoll. "


@pytest.mark.parametrize(
    ("label", "codec", "text"),
    [
        ("gb2312", "gb18030", "今天天气很好,䶮"),
        ("gbk", "gb18030", "今天天气很好,€"),
        ("euc-kr", "cp949", "안녕하세요 똠방각하"),
        ("ks_c_5601-1987", "cp949", "펲시콜라를 마신다"),
        ("cp949", "cp949", "안녕하세요 똠방각하"),
        ("shift_jis", "cp932", "日本語①㈱髙﨑です"),
        ("windows-31j", "cp932", "日本語①㈱髙﨑です"),
        ("euc-jp", "euc_jis_2004", "日本語①㈱です"),
        ("iso-2022-jp", "iso2022_jp", "日本語です"),
        ("big5", "big5hkscs", "香港人講嘅嘢係咁㗎"),
        ("iso-8859-1", "cp1252", "“quoted” – €5"),
        ("ascii", "cp1252", "“quoted” – €5"),
        ("iso-8859-9", "cp1254", "İstanbul “şehir”"),
        ("tis-620", "cp874", "ภาษาไทย “ดี”"),
        ("iso-8859-8-i", "iso8859_8", "שלום עולם"),
        ("koi8-r", "koi8_r", "Привет, мир"),
        ("x-mac-cyrillic", "mac_cyrillic", "Привет, мир"),
        ("macintosh", "mac_roman", "naïve café"),
        ("ibm866", "cp866", "Привет, мир"),
        ("utf-16be", "utf-16-be", "Привет, мир"),
    ],
)
def test_a_label_means_what_is_written_under_it(label: str, codec: str, text: str) -> None:
    assert decode_html(text.encode(codec), label).text == text
    assert decode_html(text.encode(codec), f" {label.upper()} ").text == text
    if not label.startswith("utf-16"):
        page = f"<html><head>{'<!-- -->' * 200}<meta charset={label}>{text}"
        assert decode_html(page.encode(codec)).text == page
        chapter = f"<?xml version='1.0' encoding='{label}'?>{text}"
        assert decode_html(chapter.encode(codec)).text == chapter


@pytest.mark.parametrize(
    ("label", "codec", "text", "wrong"),
    [
        ("windows-1251", "cp1251", "Привет, мир, как дела. " * 9, b"\x98"),
        ("windows-1252", "cp1252", GERMAN * 4, b"\x81"),
        ("windows-1253", "cp1253", "Γειά σου κόσμε, τι κάνεις. " * 9, b"\xaa"),
        ("gb2312", "gb18030", "今天天气很好。" * 30, b"\xff"),
        ("euc-kr", "cp949", "안녕하세요 여러분. " * 30, b"\xff"),
        ("utf-8", "utf-8", GERMAN * 4, b"\xe9"),
        ("utf-8", "utf-8", "Plain words without any accent. " * 9, b"\xe9"),
        ("utf-8", "utf-8", "今天天气很好。" * 30, b"\xe4\xbb"),
    ],
)
def test_one_wrong_byte_costs_one_character(label: str, codec: str, text: str, wrong: bytes) -> None:
    raw = text.encode(codec)
    middle = len(raw) // 2 - len(raw) // 2 % len(text[0].encode(codec))
    assert decode_html(raw + wrong, label).text == text + "\ufffd"
    found = decode_html(f"<meta charset='{label}'>".encode() + raw + wrong, label).text or ""
    assert found.count("\ufffd") == 1
    assert text in found
    broken = decode_html(raw[:middle] + wrong + b" " + raw[middle:], label).text or ""
    assert 1 <= broken.count("\ufffd") <= 2
    assert broken.replace("\ufffd", "").startswith(text[:10])
    assert broken.endswith(text[-10:])


def test_utf_8_with_a_wrong_byte_needs_no_label() -> None:
    assert decode_html(GERMAN.encode() * 4 + b"\xe9").text == GERMAN * 4 + "\ufffd"
    assert decode_html(GERMAN.encode() * 4 + b"\xe9", "windows-1251").text == GERMAN * 4 + "\ufffd"


def test_what_is_declared_wrongly_is_found_out() -> None:
    assert decode_html(GERMAN.encode("cp1252") * 4, "utf-8").text == GERMAN * 4
    russian = "Привет, мир, как твои дела сегодня. " * 9
    page = f"<meta charset=windows-1251>{russian}"
    assert decode_html(page.encode("cp1251"), "utf-8").text == page
    assert decode_html(russian.encode("cp1251"), "no-such-label").text == russian
    assert decode_html(("<meta charset=utf-16>" + GERMAN).encode()).text == "<meta charset=utf-16>" + GERMAN


def test_a_byte_order_mark_decides() -> None:
    for codec in ("utf-8-sig", "utf-16"):
        assert decode_html(GERMAN.encode(codec), "windows-1252").text == GERMAN
    assert decode_html(bytes(range(128, 256)) * 9, "utf-8").reason == "undecodable"
