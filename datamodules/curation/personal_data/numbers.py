"""Identifying numbers: payment cards, bank accounts, national identifiers.

Check digits alone are not enough: one in ten random numbers passes Luhn's test, and code is full of numbers. What has
no form of its own (spaces in the issuer's places, letters in fixed ones) counts only behind a word that names it.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from stdnum import iban, luhn
from stdnum.au import tfn
from stdnum.br import cpf
from stdnum.ca import sin
from stdnum.cn import ric
from stdnum.de import idnr
from stdnum.es import dni, nie
from stdnum.fr import nir
from stdnum.gb import nhs
from stdnum.in_ import aadhaar
from stdnum.it import codicefiscale
from stdnum.nl import bsn
from stdnum.pl import pesel
from stdnum.se import personnummer
from stdnum.us import itin, ssn

from common.errors import InputError
from datamodules.curation.personal_data.kind import (
    Announced,
    PersonalDataKind,
    Span,
    lower_case,
    matches,
    without_overlaps,
)

CARD = re.compile(r"(?<![\w.+\-/])(?:\d{4}([ \-])\d{4}(?:\1\d{4}(?!\d))+|\d{4}([ \-])\d{6}\2\d{4,5})(?![\w\-]|\.\d)")
"""Groups as they are printed; of four digits as many as follow each other, since a table has more than one card."""
EXPIRY = re.compile(r"(?:0[1-9]|1[0-2])\d\d")
"""Month and year, as they are noted behind a card."""
CARD_WORDS = (
    "card", "credit", "visa", "mastercard", "amex", "american express", "diners", "discover", "pan", "cc",
    "kreditkarte", "tarjeta", "carte", "cartão", "carta", "карта", "карты", "карту", "карте", "卡号", "卡號", "信用卡",
    "银行卡", "カード", "카드", "بطاقة", "कार्ड", "บัตร",
)  # fmt: skip
ISSUERS = re.compile(
    r"4\d{15}"  # Visa
    r"|5[1-5]\d{14}|(?:222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}"  # Mastercard
    r"|3[47]\d{13}"  # American Express
    r"|3(?:0[0-5]|[689]\d)\d{11}"  # Diners Club
    r"|(?:6011|64[4-9]\d|65\d\d)\d{12}"  # Discover
    r"|35(?:2[89]|[3-8]\d)\d{12}"  # JCB
    r"|62\d{14}"  # UnionPay
    r"|220[0-4]\d{12}"  # Mir
)
"""Ranges and lengths of ISO/IEC 7812; Maestro's and the few numbers of 13 and 19 digits would take in too much else."""


def is_card(number: str) -> bool:
    """True if a number lies in an issuer's range and passes Luhn's test."""
    digits = re.sub(r"\D", "", number)
    return ISSUERS.fullmatch(digits) is not None and luhn.is_valid(digits)


ANNOUNCED_CARD = Announced(CARD_WORDS, r"\d(?:[ \-]?\d){13,15}(?![\w\-]|\.\d)", is_card, r"[0-9](?:[ \-]?[0-9]){13}")


def find_cards(text: str) -> Iterator[Span]:
    """Cards in the groups they are printed in, and any after a word that says so."""
    spaced = [span for match in CARD.finditer(text) for span in cards_of_groups(match)]
    return without_overlaps([*spaced, *ANNOUNCED_CARD.find(text, lower_case(text))])


def cards_of_groups(match: re.Match[str]) -> Iterator[Span]:
    """The cards in a run of groups: one, one with its expiry, or nothing but cards; a longer run is a table."""
    text, start = match[0], match.start()
    if match[2]:
        if is_card(text):
            yield match.span()
        return
    groups = text.split(match[1])
    if len(groups) % 4 == 1 and EXPIRY.fullmatch(groups[-1]):
        groups.pop()
    size = len("0000 0000 0000 0000")
    places = range(0, len(groups) * 5, size + 1)
    if len(groups) % 4 == 0 and all(is_card(text[place : place + size]) for place in places):
        yield from ((start + place, start + place + size) for place in places)


IBAN_COUNTRIES = (
    "A[DELOTZ]|B[AEGHIRY]|C[HRYZ]|D[EJKO]|E[EGS]|F[IKOR]|G[BEILRT]|H[NRU]|I[ELQST]|JO|K[WZ]|L[BCITUVY]|M[CDEKNRTU]"
    "|N[ILO]|OM|P[KLST]|QA|R[OSU]|S[ACDEIKMOTV]|T[LNR]|UA|V[AG]|XK|YE"
)
"""Of the registry of ISO 13616; a sieve that knows them is three times as fast."""
IBAN = re.compile(rf"(?<![A-Za-z0-9])(?:{IBAN_COUNTRIES})\d{{2}}(?: ?[A-Z0-9]){{10,30}}(?![A-Za-z0-9])")


def find_ibans(text: str) -> Iterator[Span]:
    """International bank account numbers, with spaces or without, that fit their country and have 97 as check."""
    for match in IBAN.finditer(text):
        start, end = match.span()
        # Capitals that follow are taken for part of it: "... 0130 00 BIC".
        while end > start:
            if iban.is_valid(text[start:end], check_country=False):
                yield start, end
                break
            end = text.rfind(" ", start, end)


NINO = re.compile(r"(?!BG|GB|KN|NK|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z]\d{6}[A-D]")


def is_nino(number: str) -> bool:
    """True if a British National Insurance number can have been given out (HMRC manual NIM39110)."""
    return NINO.fullmatch(number.replace(" ", "").upper()) is not None


@dataclass(frozen=True)
class Particular:
    """An identifier of so particular a form that nothing has to announce it.

    Attributes:
        number: its pattern.
        accepts: its check digits.
    """

    number: str
    accepts: Callable[[str], bool]

    def find(self, text: str, lowered: str) -> Iterator[Span]:
        """Spans of the number in a text."""
        return matches(re.compile(rf"(?<![\w.\-/])(?:{self.number})(?![\w\-]|\.\d)"), self.accepts)(text)

    @property
    def candidate(self) -> str:
        """The sieve."""
        return self.number


def announced(words: str, number: str, accepts: Callable[[str], bool]) -> Announced:
    """An identifier behind one of some words, given with commas between."""
    return Announced(tuple(words.split(", ")), rf"(?:{number})(?![\w\-]|\.\d)", accepts)


NATIONAL_IDS: dict[str, tuple[Announced | Particular, ...]] = {
    "AU": (announced("tfn, tax file number", r"\d{3} ?\d{3} ?\d{3}", tfn.is_valid),),
    "BR": (
        Particular(r"[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}", cpf.is_valid),
        announced("cpf", r"\d{11}", cpf.is_valid),
    ),
    "CA": (announced("sin, social insurance", r"\d{3}(?P<gap>[ \-]?)\d{3}(?P=gap)\d{3}", sin.is_valid),),
    "CN": (announced("身份证, id card, identity card", r"\d{17}[\dXx]", ric.is_valid),),
    "DE": (
        announced(
            "steuer-id, steuerid, steuer-identifikationsnummer, steueridentifikationsnummer, "
            "steuerliche identifikationsnummer, idnr, tin",
            r"\d{2} ?\d{3} ?\d{3} ?\d{3}",
            idnr.is_valid,
        ),
    ),
    "ES": (
        announced("dni, nif, documento nacional de identidad", r"\d{8}[ \-]?[A-Za-z]", dni.is_valid),
        announced("nie, nif", r"[XYZ][ \-]?\d{7}[ \-]?[A-Za-z]", nie.is_valid),
    ),
    "FR": (
        announced(
            "sécurité sociale, securite sociale, numéro de sécu, nir, insee",
            r"[12] ?\d{2} ?\d{2} ?(?:\d{2}|2[ABab]) ?\d{3} ?\d{3} ?\d{2}",
            nir.is_valid,
        ),
    ),
    "GB": (
        announced("nhs", r"\d{3}(?P<gap>[ \-]?)\d{3}(?P=gap)\d{4}", nhs.is_valid),
        announced("national insurance, nino, ni number", r"[A-Za-z]{2} ?\d{2} ?\d{2} ?\d{2} ?[A-Da-d]", is_nino),
    ),
    "IN": (announced("aadhaar, aadhar, uidai", r"\d{4}[ \-]?\d{4}[ \-]?\d{4}", aadhaar.is_valid),),
    "IT": (
        Particular(
            r"[A-Z]{6}[0-9LMNP-V]{2}[ABCDEHLMPRST][0-9LMNP-V]{2}[A-Z][0-9LMNP-V]{3}[A-Z]", codicefiscale.is_valid
        ),
    ),
    "NL": (announced("bsn, burgerservicenummer, sofinummer", r"\d{4}\.?\d{2}\.?\d{3}", bsn.is_valid),),
    "PL": (announced("pesel", r"\d{11}", pesel.is_valid),),
    "SE": (announced("personnummer, personnr", r"(?:\d{2})?\d{6}[\-+]?\d{4}", personnummer.is_valid),),
    "US": (
        announced("ssn, social security", r"\d{3}(?P<gap>[ \-]?)\d{2}(?P=gap)\d{4}", ssn.is_valid),
        announced("itin, taxpayer identification", r"9\d{2}(?P<gap>[ \-]?)\d{2}(?P=gap)\d{4}", itin.is_valid),
    ),
}
"""ISO 3166 code -> identifiers with check digits or ranges, validated by python-stdnum."""


def national_id(countries: Sequence[str]) -> PersonalDataKind:
    """Identifiers of some countries.

    Raises:
        InputError: for a country that has none here.
    """
    if unknown := sorted(set(countries) - set(NATIONAL_IDS)):
        raise InputError(f"id_countries={unknown}: identifiers are known of {', '.join(NATIONAL_IDS)}")
    chosen = [identifier for country in countries for identifier in NATIONAL_IDS[country]]

    def find(text: str) -> Iterator[Span]:
        lowered = lower_case(text)
        return without_overlaps(span for identifier in chosen for span in identifier.find(text, lowered))

    forms = [identifier.candidate for identifier in chosen if isinstance(identifier, Particular)]
    words = tuple(word for one in chosen if isinstance(one, Announced) for word in one.words)
    sieves = [*forms, *([Announced(words, "", bool).candidate] if words else [])]
    return PersonalDataKind("|".join(sieves), "<NATIONAL_ID>", find)


NUMBERS = {
    "iban": PersonalDataKind(rf"(?:{IBAN_COUNTRIES})[0-9]{{2}} ?[A-Z0-9]{{4}} ?[A-Z0-9]{{4}}", "<IBAN>", find_ibans),
    "credit_card": PersonalDataKind(
        r"[0-9]{4}[ \-](?:[0-9]{4}[ \-][0-9]{4}[ \-]|[0-9]{6}[ \-])[0-9]{4}|" + ANNOUNCED_CARD.candidate,
        "<CREDIT_CARD>",
        find_cards,
    ),
}
