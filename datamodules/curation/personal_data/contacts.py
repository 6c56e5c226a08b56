"""Contact data: e-mail addresses, public IP addresses, telephone numbers.

Telephone numbers are validated by Google's libphonenumber. A national form without a country code looks like many
other numbers (a dump of bytes, "01 02 03 04 05", is one in France), so outside North America it needs a word before it.
"""

import ipaddress
import re
from collections.abc import Callable, Iterator, Sequence

import phonenumbers

from common.errors import InputError
from datamodules.curation.personal_data.kind import (
    Announced,
    PersonalDataKind,
    Span,
    lower_case,
    matches,
    without_overlaps,
)

LETTERS = r"A-Za-z\u00c0-\u024f\u0370-\u052f"
"""Latin, Greek and Cyrillic: scripts that part words by spaces, so that a match never swallows the words before it."""
EMAIL = re.compile(
    rf"(?<![{LETTERS}0-9._%+\-])[{LETTERS}0-9._%+\-]{{1,64}}@"
    rf"(?:[{LETTERS}0-9](?:[{LETTERS}0-9\-]{{0,61}}[{LETTERS}0-9])?\.){{1,8}}[A-Za-z]{{2,24}}\b"
)
IPV4 = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w]|\.\d)")
IPV6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:])")
UNICAST_V6 = ipaddress.ip_network("2000::/3")
"""The only IPv6 block given out so far; without it a slice like [::2] reads as an address."""


def is_public(address: str) -> bool:
    """True if an address is public: private, loopback and documentation addresses identify no person."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return parsed.is_global and (parsed.version == 4 or parsed in UNICAST_V6)


def is_mail(address: str) -> bool:
    """True if an address is one: pictures for displays of double density are called name@2x.png."""
    return not address.lower().endswith((".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp"))


INTERNATIONAL = (
    r"\+[1-9]\d{8,14}"  # E.164: without separators
    r"|\+[1-9]\d{0,2}[ .\-]?(?:\(\d{1,4}\)[ .\-]?)?\d{1,12}(?:[ .\-]\d{2,12}){0,4}"  # in groups
)
NORTH_AMERICAN = r"(?:1[ .\-])?(?:\(\d{3}\) ?\d{3}[ .\-]\d{4}|\d{3}-\d{3}-\d{4}|[2-9]\d{2}\.[2-9]\d{2}\.\d{4})"
PHONE = re.compile(rf"(?<![\w.+\-/])(?:{INTERNATIONAL}|{NORTH_AMERICAN})(?![\w\-]|\.\d)")
PHONE_WORDS = (
    "phone", "tel", "mobile", "cell", "fax", "whatsapp", "hotline", "telephone", "telefon", "telefono", "telefone",
    "teléfono", "téléphone", "tél", "handy", "mobil", "portable", "móvil", "celular", "cellulare", "telemóvel",
)  # fmt: skip
NATIONAL = r"(?:\(\d{1,5}\)[ \-]?)?\d{1,12}(?:[ .\-/]\d{1,12}){0,5}(?![\w\-]|\.\d|/\d)"
DATE = re.compile(r"(?:\d{4}([\-./])\d{1,2}\1\d{1,2}|\d{1,2}([\-./])\d{1,2}\2(?:\d{4}|\d{2}))(?!\d)")
NORTH_AMERICA = 1
"""The calling code that the United States, Canada and much of the Caribbean share."""


def is_valid(number: str, region: str | None) -> bool:
    """True if libphonenumber knows a number as assignable; with a region, in its national form too."""
    # E.164 allows 15 digits; fewer than 9 with a country code are no subscriber's number.
    if not (7 if region else 9) <= sum(character.isdigit() for character in number) <= 15:
        return False
    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(number, region))
    except phonenumbers.NumberParseException:
        return False


def is_announced(number: str, regions: Sequence[str]) -> bool:
    """True if a number after a word like "phone" is one of some regions; a date is valid in several."""
    return DATE.match(number) is None and any(is_valid(number, region) for region in regions)


def find_phone_numbers(regions: Sequence[str]) -> Callable[[str], Iterator[Span]]:
    """A search for international numbers, and for the national forms of some regions (ISO 3166 codes)."""
    north_american = next((r for r in regions if phonenumbers.country_code_for_region(r) == NORTH_AMERICA), None)

    announced = Announced(PHONE_WORDS, NATIONAL, lambda number: is_announced(number, regions))

    def find(text: str) -> Iterator[Span]:
        found = set(announced.find(text, lower_case(text)))
        for match in PHONE.finditer(text):
            start, end = match.span()
            if text[start] != "+":
                if north_american and is_valid(match[0], north_american):
                    found.add((start, end))
                continue
            # Digits that follow need not belong to it: "+49 30 901820 20 people".
            while not is_valid(text[start:end], None):
                end = max(text.rfind(separator, start, end) for separator in " .-")
                if end < 0:
                    break
            else:
                found.add((start, end))
        return without_overlaps(found)

    return find


def phone_number(regions: Sequence[str]) -> PersonalDataKind:
    """Telephone numbers: international ones, and the national forms of regions.

    Raises:
        InputError: for a region libphonenumber does not know.
    """
    if unknown := sorted(set(regions) - phonenumbers.SUPPORTED_REGIONS):
        raise InputError(f"phone_regions={unknown}: give ISO 3166 codes like US or GB")
    forms = r"\+[0-9][0-9 .()\-]{6}|\([0-9]{3}\) ?[0-9]{3}|[0-9]{3}[.\-][0-9]{3}[.\-][0-9]{4}"
    candidate = f"{forms}|{Announced(PHONE_WORDS, NATIONAL, bool).candidate}"
    return PersonalDataKind(candidate, "<PHONE_NUMBER>", find_phone_numbers(regions))


CONTACTS = {
    "email": PersonalDataKind(r"[\w.%+\-]@[\w\-]+\.", "<EMAIL>", matches(EMAIL, is_mail)),
    "ip_address": PersonalDataKind(r"[0-9]\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]", "<IP_ADDRESS>", matches(IPV4, is_public)),
    "ip_address_v6": PersonalDataKind(
        r"[23][0-9A-Fa-f]{3}:[0-9A-Fa-f]{0,4}:", "<IP_ADDRESS>", matches(IPV6, is_public)
    ),
}
