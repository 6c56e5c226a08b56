"""Personal data replaced by typed placeholders, and counted.

Regular expressions with validation, not a named-entity model: they find what has a form (addresses, numbers) at
tens of megabytes a second, and miss names and the national forms of telephone numbers outside North America. Every
pattern starts at a boundary and has bounded repeats, so that no text takes more than linear time.
"""

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import compress
from typing import Any

import daft
from daft import DataType, Expression, Series
from daft.functions import regexp, to_list

from datamodules.cleaning.step import Rewrite
from errors import InputError

LETTERS = r"A-Za-z\u00c0-\u024f\u0370-\u052f"
"""Latin, Greek and Cyrillic: scripts that part words by spaces, so that a match never swallows the words before it."""
EMAIL = re.compile(
    rf"(?<![{LETTERS}0-9._%+\-])[{LETTERS}0-9._%+\-]{{1,64}}@"
    rf"(?:[{LETTERS}0-9](?:[{LETTERS}0-9\-]{{0,61}}[{LETTERS}0-9])?\.){{1,8}}[A-Za-z]{{2,24}}\b"
)
IPV4 = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w]|\.\d)")
IPV6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:])")
PHONE = re.compile(
    r"(?<![\w.+\-/])(?:"
    r"\+[1-9]\d{8,14}"  # E.164: international, without separators
    r"|\+[1-9]\d{0,2}[ .\-]?(?:\(\d{1,4}\)[ .\-]?)?\d{1,12}(?:[ .\-]\d{2,12}){0,4}"  # international, in groups
    r"|\(\d{3}\) ?\d{3}[ .\-]\d{4}|\d{3}-\d{3}-\d{4}|[2-9]\d{2}\.[2-9]\d{2}\.\d{4}"  # North American
    r")(?![\w\-]|\.\d)"
)


UNICAST_V6 = ipaddress.ip_network("2000::/3")
"""The only IPv6 block given out so far; without it a slice like [::2] reads as an address."""


def _is_public(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return parsed.is_global and (parsed.version == 4 or parsed in UNICAST_V6)


def _is_mail(address: str) -> bool:
    # Pictures for displays of double density are called name@2x.png.
    return not address.lower().endswith((".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp"))


def _is_phone(number: str) -> bool:
    # E.164 allows 15 digits; fewer than 9 with a country code is no subscriber's number.
    return 9 <= sum(character.isdigit() for character in number) <= 15


@dataclass(frozen=True)
class Kind:
    """A kind of personal data.

    Attributes:
        candidate: linear-time expression that a text with a match contains: it spares Python most documents.
        pattern: finds candidates precisely.
        placeholder: what a match is replaced by.
        accepts: whether a match is what it looks like.
    """

    candidate: str
    pattern: re.Pattern[str]
    placeholder: str
    accepts: Callable[[str], bool]


KINDS = {
    "email": Kind(r"[\w.%+\-]@[\w\-]+\.", EMAIL, "<EMAIL>", _is_mail),
    "ip_address": Kind(r"\d\.\d{1,3}\.\d{1,3}\.\d", IPV4, "<IP_ADDRESS>", _is_public),
    "ip_address_v6": Kind(r"[0-9A-Fa-f]{1,4}:[0-9A-Fa-f]{0,4}:[0-9A-Fa-f]", IPV6, "<IP_ADDRESS>", _is_public),
    "phone_number": Kind(
        r"\+\d[\d .()\-]{6}|\(\d{3}\) ?\d{3}|\d{3}[.\-]\d{3}[.\-]\d{4}", PHONE, "<PHONE_NUMBER>", _is_phone
    ),
}


def mask(text: str, kinds: list[str]) -> tuple[str, dict[str, int]]:
    """The text with personal data replaced, and how many of each kind were found.

    Args:
        text: any text.
        kinds: which of `KINDS` to mask.
    """
    counts = {}
    for name in kinds:
        text, counts[name] = _mask_kind(text, KINDS[name])
    return text, counts


def _mask_kind(text: str, kind: Kind) -> tuple[str, int]:
    found = 0

    def replace(match: re.Match[str]) -> str:
        nonlocal found
        if not kind.accepts(match[0]):
            return match[0]
        found += 1
        return kind.placeholder

    return kind.pattern.sub(replace, text), found


class MaskPersonalData(Rewrite):
    """Replaces e-mail addresses, public IP addresses and phone numbers by <EMAIL>, <IP_ADDRESS>, <PHONE_NUMBER>.

    Private, loopback and documentation addresses stay: they identify nobody.

    Args:
        kinds: which of email, ip_address, ip_address_v6, phone_number; null for all.

    Raises:
        InputError: for an unknown kind.
    """

    def __init__(self, kinds: list[str] | None = None) -> None:
        self.kinds = list(KINDS) if kinds is None else kinds
        if unknown := set(self.kinds) - set(KINDS):
            raise InputError(f"kinds={sorted(unknown)}: choose from {list(KINDS)}")

    def rewrite(self, text: Expression) -> Expression:
        """The masked text."""
        return self.masked(text).get("text")

    def masked(self, text: Expression) -> Expression:
        """A struct of `text` and one count a kind."""
        fields = {"text": DataType.string()} | {kind: DataType.int64() for kind in self.kinds}
        kinds = self.kinds

        @daft.func.batch(return_dtype=DataType.struct(fields))
        def mask_batch(texts: Series, candidates: Series) -> list[dict[str, Any]]:
            rows = []
            for original, present in zip(texts.to_pylist(), candidates.to_pylist(), strict=True):
                new, found = mask(original, list(compress(kinds, present)))
                rows.append({"text": new, **dict.fromkeys(kinds, 0), **found})
            return rows

        return mask_batch(text, to_list(*(regexp(text, KINDS[kind].candidate) for kind in kinds)))
