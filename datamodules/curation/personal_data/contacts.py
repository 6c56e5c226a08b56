"""Contact data: e-mail addresses, public IP addresses, telephone numbers.

Telephone numbers are validated by Google's libphonenumber. A national form without a country code looks like many
other numbers (a dump of bytes, "01 02 03 04 05", is one in France), so outside North America it needs a word before it.
"""

import functools
import ipaddress
import re
from collections.abc import Callable, Iterator, Sequence

import phonenumbers

from common.errors import InputError
from datamodules.curation.personal_data.kind import (
    SPACED_LETTERS,
    Announced,
    PersonalDataKind,
    Span,
    lower_case,
    matches,
    without_overlaps,
)

LETTERS = rf"A-Za-z{SPACED_LETTERS}"
"""Scripts that part words by spaces, so that a match never swallows the words before it."""
EMAIL = re.compile(
    rf"(?<![{LETTERS}0-9._%+\-])[{LETTERS}0-9._%+\-]{{1,64}}@"
    rf"(?:[{LETTERS}0-9](?:[{LETTERS}0-9\-]{{0,61}}[{LETTERS}0-9])?\.){{1,8}}"
    rf"(?:[A-Za-z]{{2,24}}|xn--[a-z0-9\-]{{2,59}}|[{SPACED_LETTERS}]{{2,24}})(?![{LETTERS}0-9_])"
)
TOP_DOMAINS = frozenset({
    "academy", "aero", "agency", "app", "art", "asia", "band", "bank", "bar", "best", "bike", "bio", "biz",
    "blog", "build", "business", "cafe", "camp", "capital", "care", "cat", "center", "church", "city", "clinic",
    "cloud", "club", "coach", "codes", "coffee", "com", "community", "company", "consulting", "coop", "cool",
    "design", "dev", "digital", "directory", "doctor", "earth", "eco", "edu", "education", "email", "energy",
    "engineering", "events", "exchange", "expert", "express", "family", "farm", "finance", "fit", "foundation",
    "fun", "fund", "fyi", "gallery", "games", "garden", "global", "gmbh", "gov", "green", "group", "guide",
    "guru", "health", "help", "homes", "host", "hotel", "house", "inc", "info", "ink", "institute", "int",
    "international", "jobs", "kitchen", "land", "law", "lawyer", "legal", "life", "link", "live", "llc", "love",
    "ltd", "mail", "management", "market", "marketing", "media", "mil", "mobi", "money", "museum", "name", "net",
    "network", "news", "ngo", "one", "online", "ong", "org", "page", "partners", "party", "photo", "photography",
    "pics", "place", "plus", "press", "pro", "productions", "properties", "pub", "realty", "recipes", "rent",
    "report", "restaurant", "reviews", "rocks", "run", "sale", "salon", "school", "science", "scot", "services",
    "shop", "site", "social", "software", "solutions", "space", "store", "studio", "style", "support", "systems",
    "tax", "team", "tech", "technology", "tel", "tips", "today", "tools", "top", "tours", "town", "toys", "trade",
    "training", "travel", "university", "vegas", "ventures", "vet", "video", "vip", "voyage", "wales", "watch",
    "website", "wiki", "win", "wine", "work", "works", "world", "wtf", "xxx", "xyz", "yoga", "zone", "bayern",
    "berlin", "hamburg", "koeln", "london", "nyc", "paris", "tokyo", "wien", "amsterdam", "barcelona", "brussels",
    "istanbul", "moscow", "swiss",
})  # fmt: skip
"""Domains of more than two letters in which people have addresses; a method's name behind a matrix product is none."""
SERVICE_NAMES = frozenset({"git", "hg", "svn"})
"""Users of a server who are no person: git@github.com:owner/name."""
IPV4 = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w]|\.\d)")
NO_ADDRESS = re.compile(
    r"(?:(?<![A-Za-z])(?:versions?|ver|v|rev|revision|release|releases|build|firmware|update|section|sections|sect|sec|figure|"
    r"fig|table|chapter|clause|appendix|annex|paragraph|oid|id|item|step|part|level|(?:assembly|file|product)?version|culture|"
    r"objectidentifier|identifier|kernel|driver)(?![A-Za-z])[\W_]{0,4}|[=!<>~^]=[\s\"']{0,2}|\u00a7\s{0,2}|-)\Z",
    re.I,
)
"""What is in front of a version, a number of a section or an object identifier."""
ADDRESS = re.compile(
    r"(?:(?<![A-Za-z])(?:ips?|ipv4|hosts?|hostname|addr|address|addresses|servers?|dns|nameservers?|resolver|ping|from|inet|"
    r"clients?|remote|peer|gateway|proxy|ssh|listen|connect|bind|login|user)(?![A-Za-z])[\w ]{0,12}\W{0,6}|://|@)\Z",
    re.I,
)
PORT = re.compile(r":\d{2,5}(?!\d)|/(?:[89]|[12]\d|3[0-2])(?!\d)")
"""A port, or the length of a network's prefix, behind an address."""
CONTEXT = 40
"""Characters looked at in front of an address."""
SMALL = 10
"""First numbers below are more often a section's, a version's or an identifier's."""
IPV6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:])")
UNICAST_V6 = ipaddress.ip_network("2000::/3")
"""The only IPv6 block given out so far; without it a slice like [::2] reads as an address."""


def is_public(address: str) -> bool:
    """True if an address is public: private, loopback and documentation addresses identify no person."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if not parsed.is_global or parsed.is_multicast:
        return False
    return parsed.version == 4 or parsed in UNICAST_V6


def find_ipv4(text: str) -> Iterator[Span]:
    """Public addresses that are no version, section or object identifier.

    A small first number, or a slash in front, needs a word like "host", a scheme or a port beside it.
    """
    for match in IPV4.finditer(text):
        start, end = match.span()
        if match[0].endswith(".0") or not is_public(match[0]):
            continue
        before = text[max(start - CONTEXT, 0) : start]
        if NO_ADDRESS.search(before):
            continue
        is_doubtful = int(match[0].partition(".")[0]) < SMALL or before.endswith("/")
        if not is_doubtful or ADDRESS.search(before) or PORT.match(text, end):
            yield start, end


def find_emails(text: str) -> Iterator[Span]:
    """Addresses of people: no user of a version control server, no method of a matrix, no name of a picture."""
    for match in EMAIL.finditer(text):
        user, _, host = match[0].partition("@")
        top = host.rpartition(".")[2]
        is_domain = not top.isascii() or top.startswith("xn--") or len(top) == 2 or top.lower() in TOP_DOMAINS
        # q@k.mT is a product and no address in Malta.
        is_domain &= top.islower() or top.isupper() or not top.isascii()
        is_call = text[match.end() : match.end() + 1] in ("(", "[")
        if is_domain and not is_call and user.lower() not in SERVICE_NAMES:
            yield match.span()


INTERNATIONAL = (
    r"\+[1-9]\d{8,14}"  # E.164: without separators
    r"|\+[1-9]\d{0,2}[ .\-]?(?:\(\d{1,4}\)[ .\-]?)?\d{1,12}(?:[ .\-]\d{2,12}){0,4}"  # in groups
)
NORTH_AMERICAN = r"(?:1[ .\-])?(?:\(\d{3}\) ?\d{3}[ .\-]\d{4}|\d{3}-\d{3}-\d{4}|[2-9]\d{2}\.[2-9]\d{2}\.\d{4})"
PHONE = re.compile(rf"(?<![\w.+\-/])(?:{INTERNATIONAL}|{NORTH_AMERICAN})(?![\w\-]|\.\d)")
PHONE_WORDS: dict[tuple[str, ...], tuple[str, ...]] = {
    (): (
        "phone", "tel", "mobile", "cell", "fax", "whatsapp", "hotline", "telephone", "telefon", "telefono", "telefone",
        "teléfono", "téléphone", "tél", "handy", "mobil", "portable", "móvil", "celular", "cellulare", "telemóvel",
        "telefoon", "komórka", "τηλ", "τηλέφωνο",
    ),
    ("RU", "BY", "KZ", "UA", "BG"): ("тел", "телефон", "телефона", "моб", "мобильный", "факс", "сотовый"),
    ("CN", "TW", "HK", "JP"): ("电话", "電話", "手机", "手機", "传真", "傳真", "携帯"),
    ("KR",): ("전화", "휴대폰", "팩스"),
    ("EG", "SA", "AE", "MA", "IR"): (
        "هاتف", "جوال", "موبايل", "تلفن", "تلفون", "تليفون", "فاكس",
        "الهاتف", "الجوال", "الموبايل", "التلفون", "التليفون", "الفاكس",
    ),
    ("IN",): ("फ़ोन", "फोन", "मोबाइल", "दूरभाष"),
    ("TH",): ("โทร", "โทรศัพท์", "มือถือ"),
}  # fmt: skip
"""Regions of a script or language -> its words for a telephone: its numbers count behind them, whatever was chosen."""
NATIONAL = r"(?:\d[ \-]?)?(?:\(\d{1,5}\)[ \-]?)?\d{1,12}(?:[ .\-/]\d{1,12}){0,5}(?![\w\-]|\.\d|/\d)"
YEARS = re.compile(r"(?:19|20)\d\d(?:[ .\-/](?:19|20)\d\d)+")
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
    if DATE.match(number) or YEARS.fullmatch(number):
        return False
    return any(is_valid(number, region) for region in regions)


def find_phone_numbers(regions: Sequence[str]) -> Callable[[str], Iterator[Span]]:
    """A search for international numbers, and for the national forms of some regions (ISO 3166 codes)."""
    north_american = next((r for r in regions if phonenumbers.country_code_for_region(r) == NORTH_AMERICA), None)

    announced = [
        Announced(words, NATIONAL, functools.partial(is_announced, regions=(*regions, *own)))
        for own, words in PHONE_WORDS.items()
    ]

    def find(text: str) -> Iterator[Span]:
        lowered = lower_case(text)
        found = {span for kind in announced for span in kind.find(text, lowered)}
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
    words = tuple(word for of_script in PHONE_WORDS.values() for word in of_script)
    candidate = f"{forms}|{Announced(words, NATIONAL, bool).candidate}"
    return PersonalDataKind(candidate, "<PHONE_NUMBER>", find_phone_numbers(regions))


CONTACTS = {
    "email": PersonalDataKind(r"[\w.%+\-]@[\w\-]+\.", "<EMAIL>", find_emails),
    "ip_address": PersonalDataKind(r"[0-9]\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]", "<IP_ADDRESS>", find_ipv4),
    "ip_address_v6": PersonalDataKind(
        r"[23][0-9A-Fa-f]{3}:[0-9A-Fa-f]{0,4}:", "<IP_ADDRESS>", matches(IPV6, is_public)
    ),
}
