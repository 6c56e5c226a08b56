"""Every kind of personal data: what it takes, what it leaves, and that it does so in linear time."""

import base64
import json
import time
from typing import Any

import daft
import pytest
from daft import col
from daft.functions import regexp
from hypothesis import example, given, settings
from hypothesis import strategies as st

from common.errors import InputError
from datamodules.curation.personal_data.mask import KINDS, MaskPersonalData, mask
from datamodules.curation.personal_data.secrets import API_KEYS

LETTERS = "aB3dE5gH7jK9mN2pQ4sT6vW8yZ1cF0iLoRuXbAeDhGkJnMqPtSwVzYCfIlOrUx" * 3
HEX = "0a1b2c3d4e5f60718293a4b5c6d7e8f9"


def encoded(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


TOKEN = f"{encoded({'alg': 'HS256', 'typ': 'JWT'})}.{encoded({'sub': '1234567890'})}.{LETTERS[:43]}"
# Put together, so that no scanner of repositories takes this file for a leak.
PEM = "-----BEGIN RSA PRIVATE " + "KEY-----\n{}\n-----END RSA PRIVATE " + "KEY-----"

FOUND = {
    "email": ["Ann.Lee+x@mail.example.org", "jörg@web.de", "иван@mail.example.org", "иван@почта.рф",
        "अजय@डाटा.भारत", "a@b.museum"],
    "ip_address": ["81.2.69.142", "203.0.114.7"],
    "ip_address_v6": ["2001:4860:4860::8888", "2a00:1450:4001:81b::200e"],
    "phone_number": [
        "+49 30 901820", "+14155552671", "(212) 555-0187", "415.555.2671", "+33 1 23 45 67 89", "+44 20 7946 0958",
        "+1 650 253 0000", "1-800-555-0199",
    ],
    "iban": [
        "DE89 3704 0044 0532 0130 00", "GB29NWBK60161331926819", "NO93 8601 1117 947", "BE68 5390 0754 7034",
        "FR14 2004 1010 0505 0001 3M02 606",
    ],
    "credit_card": ["4111 1111 1111 1111", "5555-5555-5555-4444", "3782 822463 10005", "3056 930902 5904"],
    "national_id": ["390.533.447-05", "RCCMNL83S18D969H"],
    "api_key": [
        "AKIA" + "IOSFODNN7QZMHPLW", "ghp_" + LETTERS[:36], "github_pat_" + LETTERS[:82], "glpat-" + LETTERS[:20],
        "xoxb-" + "123456789012-" + LETTERS[:24], "AIza" + LETTERS[:35], "sk_live_" + LETTERS[:24],
        "hf_" + "aBcDeFgHiJkLmNoPqRsTuVwXyZaBcDeFgH", "npm_" + LETTERS[:36], "SG." + LETTERS[:22] + "." + LETTERS[:43],
        "key-" + HEX, "dapi" + HEX, "shpat_" + HEX, "GOCSPX-" + LETTERS[:28], "sk-ant-api03-" + LETTERS[:93],
        "sk-proj-" + LETTERS[:40] + "T3BlbkFJ" + LETTERS[:40], "123456789:AA" + LETTERS[:33], TOKEN,
        "https://hooks.slack.com/services/T0AB12CD3/B0EF45GH6/" + LETTERS[:24],
    ],
    "private_key": [PEM.format(LETTERS[:64] + "\n" + LETTERS[64:128])],
}  # fmt: skip
ANNOUNCED = {
    "phone_number": [
        ("電話", "03-1234-5678"), ("電話番号", "03-1234-5678"), ("التلفون: ", "0501234567"), ("الهاتف ", "0501234567"),
        ("Tel. ", "030 901820"), ("phone: ", "020 7946 0958"), ("tél : ", "01 23 45 67 89"),
        ("mobile=", "07911 123456"),
        ("fax_number = '", "2125550187"), ("тел. ", "8 (495) 123-45-67"), ("電話 ", "03-1234-5678"),
        ("联系手机：", "13812345678"), ("Telefone ", "(11) 91234-5678"), ("휴대폰 ", "010-1234-5678"),
        ("मोबाइल ", "98765 43210"),
    ],
    "credit_card": [
        ("card_number = '", "4111111111111111"), ("Visa ", "4012888888881881"),
        ("карта ", "2200 0000 0000 0004"), ("卡号：", "6212345678901232"),
    ],
    "ip_address": [
        ("host ", "8.8.8.8"), ("http://", "8.8.8.8"), ("IP_ADDR = '", "9.9.9.10"), ("logged in from ", "5.6.7.8"),
    ],
    "national_id": [
        ("SSN: ", "536-90-4399"), ("social security number ", "536904399"), ("NHS number: ", "943 476 5870"),
        ("NINO ", "AB 12 34 56 C"), ("Steuer-ID: ", "36 574 261 809"), ("DNI ", "54362315-K"), ("NIE: ", "X-2482300W"),
        ("n° de sécurité sociale : ", "2 95 10 99 126 111 93"), ("CPF ", "39053344705"), ("BSN ", "1112.22.333"),
        ("PESEL ", "44051401359"), ("personnummer ", "880320-0016"), ("SIN ", "123-456-782"),
        ("Aadhaar no. ", "2341 2341 2346"), ("身份证号：", "360426199101010071"), ("TFN: ", "123 456 782"),
    ],
    "api_key": [("aws_secret_access_key = ", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYzzQWERTYUI")],
}  # fmt: skip
LEFT = [
    "version 1.2.3.4.5 of 2024-01-02, released 02.01.2024 at 12:30:45 and 01/02/2024",
    "ISBN 978-0-13-468599-1, ISBN 0-13-468599-7, ISBN 9780134685991, ISSN 0317-8471, doi 10.1000/182",
    "sha1 2fd4e1c67a2d28fced849ee1bb76e7391b93eb12, md5 d41d8cd98f00b204e9800998ecf8427e, uuid "
    "123e4567-e89b-12d3-a456-426614174000",
    "sha256 E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855",
    "0x4111111111111111 4611686018427387904 1.4111111111111111 4111111111111111 4242424242424242",
    "00000010: 01 02 03 04 05 06 07 08 4111 1111 1111 1112",
    "x = [0.123456789, 1e-10, 123456789012], range(1000000000)",
    "127.0.0.1 10.0.0.1 192.168.1.1 ::1 fe80::1 x[::2] std::vector a::b 2001:db8::1",
    "536-90-4399 and 943 476 5870 and 36574261809 and 54362315-K without a word",
    "SSN 000-12-3456, ssn 2024-01-02, sin(123456782), NHS 943 476 5871, card 4111111111111112",
    "phone_id: 2024-01-02, telephone 1.2.3, cell 12345678901234567890, mobile 10.0.0.1",
    "GB12 ABCD 1234 5678 9012 34, DE00 3704 0044 0532 0130 00, US12345678901234567",
    "ghp_" + "x" * 36 + " AKIA sk-learn hf_hub_download key-value xoxo eyJhbGciOi.eyJzdWIi.abc npm_config_registry",
    'AssemblyVersion("1.0.0.0"), Version=4.0.0.0, Culture=neutral, Chrome/120.0.0.0, foo==1.2.3.4, version 98.12.4.1',
    "section 13.2.1.4, Figure 2.1.1.1, OID 2.5.4.3, multicast 224.0.0.1, 2.5.29.17, tool/23.1.2.3, the net 81.2.69.0",
    "git@github.com:owner/name.git, q@k.transpose(-2, -1), A@x.sum(axis=0), lodash@npm.registry, q@k.mT, a@b.to(x)",
    "mobile first 2024 2025, mobile 2019-2020, отель 8 (495) 123-45-67, hôtel 01 23 45 67 89, картина 2200000000000004",
    "телеграф 8 (495) 123-45-67, telegraph 030 901820",
    "a@b, @decorator.call, git@github, name@2x.png, user@localhost",
    PEM.format("...") + " " + PEM.format("<your key here>"),
    "+1234567, +0123456789, +1234567890123456, x + 4155552671, 123-456-7890",
    "Ran 12 tests in 0.123s; 100%|####| 4000/4000 [00:12<00:00, 312.45it/s]",
    "CPF 390.533.447-06, 123.456.789-00, RCCMNL83S18D969X, ABCDEF12G34H567I",
]


def placed(kind: str) -> list[tuple[str, str]]:
    """Texts with one match, and what is left of them."""
    placeholder = KINDS[kind].placeholder
    plain = [(f"see {found}, please", f"see {placeholder}, please") for found in FOUND.get(kind, [])]
    return plain + [(f"{word}{n}; x", f"{word}{placeholder}; x") for word, n in ANNOUNCED.get(kind, [])]


def masked_by_daft(texts: list[str | None], masker: MaskPersonalData) -> list[dict[str, Any]]:
    df = daft.from_pydict({"text": texts}).select(masker.masked(col("text")).alias("masked"))
    return [row["masked"] for row in df.to_pylist()]


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_found_and_counted(kind: str) -> None:
    for text, expected in placed(kind):
        masked, counts = mask(text, list(KINDS))
        assert (masked, {name: count for name, count in counts.items() if count}) == (expected, {kind: 1}), text
        assert masked_by_daft([text], MaskPersonalData([kind])) == [{"text": expected, kind: 1}]
        others = [name for name in KINDS if name != kind]
        assert mask(text, others)[0] == text or kind in ("iban", "email"), text


@pytest.mark.parametrize("text", LEFT)
def test_what_only_looks_like_it_stays(text: str) -> None:
    assert mask(text, list(KINDS)) == (text, dict.fromkeys(KINDS, 0))


def test_every_form_of_key_begins_at_a_boundary() -> None:
    for key in FOUND["api_key"]:
        assert mask(f"x{key}", ["api_key"])[0] == f"x{key}" or key.startswith(("eyJ", "http")) is True, key
    assert len(API_KEYS) >= 25


def test_the_sieve_lets_everything_through() -> None:
    for kind in KINDS.values():
        texts = [text for name in KINDS for text, _ in placed(name)] + LEFT
        df = daft.from_pydict({"text": texts}).select(regexp(col("text"), kind.candidate).alias("passes")).to_pydict()
        assert all(passes for text, passes in zip(texts, df["passes"], strict=True) if list(kind.find(text)))


def test_batches_keep_order_and_nulls() -> None:
    texts = ["nothing", None, "a@b.org and 81.2.69.142", "", "c@d.org, e@f.org"]
    rows = masked_by_daft(texts, MaskPersonalData(["email", "ip_address"]))
    assert [row["text"] for row in rows] == ["nothing", None, "<EMAIL> and <IP_ADDRESS>", "", "<EMAIL>, <EMAIL>"]
    assert [(row["email"], row["ip_address"]) for row in rows] == [(0, 0), (0, 0), (1, 1), (0, 0), (2, 0)]


def test_cards_in_a_row_and_with_their_expiry() -> None:
    card, gone = "4111 1111 1111 1111", "<CREDIT_CARD>"
    for text, expected in [
        (f"Card: {card} 12/27 123", f"Card: {gone} 12/27 123"),
        (f"{card} 1227", f"{gone} 1227"),
        ("visa 4111-1111-1111-1111 12/27", f"visa {gone} 12/27"),
        (f"credit card number {card} 1 year", f"credit card number {gone} 1 year"),
        ("amex 3782 822463 10005 12/27", f"amex {gone} 12/27"),
        (f"{card} 5555 5555 5555 4444", f"{gone} {gone}"),
        (f"{card} " * 3, f"{gone} " * 3),
        # Rows of a table of numbers with four digits.
        (f"{card} 2222", f"{card} 2222"),
        (f"1234 {card}", f"1234 {card}"),
        (f"{card} 1234 5678 9012 3456", f"{card} 1234 5678 9012 3456"),
    ]:
        assert mask(text, list(KINDS))[0] == expected


fragments = st.sampled_from(
    [found for kind in FOUND.values() for found in kind if len(found) < 200]
    + [word + number for kind in ANNOUNCED.values() for word, number in kind]
    + [
        "phone ",
        "card ",
        "ssn ",
        "+",
        "-",
        ".",
        "@",
        ":",
        "1",
        "22",
        " ",
        "\n",
        "a",
        "İ",
        "é",
        "<",
        ">",
        "CREDIT_",
        "_",
    ]
)


@settings(max_examples=150, deadline=None)
@given(parts=st.lists(fragments, max_size=12))
@example(parts=["card ", "4111 1111 1111 1111", " ", "4111111111111111"])
def test_masking_twice_changes_nothing(parts: list[str]) -> None:
    once, counts = mask("".join(parts), list(KINDS))
    assert mask(once, list(KINDS)) == (once, dict.fromkeys(KINDS, 0))
    assert sum(counts.values()) >= once.count("<EMAIL>")


@settings(max_examples=100, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs", "Nd", "Nl", "No"], exclude_characters="@"), max_size=80))
def test_text_without_digits_or_at_signs_is_untouched(text: str) -> None:
    assert mask(text, list(KINDS))[0] == text


@pytest.mark.parametrize(
    "unit",
    ["card 4111111111111111 ", "ssn", "tel 1 2 3 4 5 6 ", "phone ", "DE89 ", "eyJ", "ghp_", "AKIA" * 3, "1-", "sk-",
     "81.2.69.142 ", "ip ", "тел", "手机 1 ", "4111 1111 1111 1111 ", "4111-1111-1111-1111-",
     "-----BEGIN PRIVATE " + "KEY-----\n", "aws_secret_access_key=", "4111 ", "1.2.3.", "A1", "xoxb-", "@a.", "key-0"],
)  # fmt: skip
def test_hostile_text_takes_linear_time(unit: str) -> None:
    def seconds(size: int) -> float:
        text = unit * (size // len(unit))
        start = time.process_time()
        mask(text, list(KINDS))
        return time.process_time() - start

    small = min(seconds(25_000) for _ in range(2))
    assert seconds(200_000) < 8 * 5 * max(small, 0.005)


def test_settings_that_cannot_work_are_refused() -> None:
    for arguments, words in [
        ({"kinds": ["names"]}, "kinds="),
        ({"kinds": []}, "kinds="),
        ({"phone_regions": ["Germany"]}, "phone_regions="),
        ({"id_countries": ["XX"]}, "id_countries="),
    ]:
        with pytest.raises(InputError, match=words):
            MaskPersonalData(**arguments)  # type: ignore[arg-type]
    (row,) = masked_by_daft(["SSN 536-90-4399, CPF 390.533.447-05"], MaskPersonalData(id_countries=["BR"]))
    assert row["text"] == "SSN 536-90-4399, CPF <NATIONAL_ID>"
    json.dumps(vars(MaskPersonalData()))
