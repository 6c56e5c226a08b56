"""Numbers in text, read exactly as fractions: digits of any script, groups of three, fractions and powers of a base.

A spelling that is read as another number teaches that a right response is wrong, so that what people and tables write
is read here; nothing else is evaluated, and where two readings are possible the simpler one is taken.
"""

import unicodedata
from decimal import Decimal
from fractions import Fraction

import regex

MAX_NUMBER_LENGTH = 64
"""Characters of a number; what is longer is none, so that no response costs more than reading it."""
FINAL = "####"
"""Mark before the final answer in GSM8K."""

_SIGNS = str.maketrans(
    {
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2212\ufe63\uff0d", "-"),  # hyphens, en dash, minus; no em dash
        **dict.fromkeys("\uff0b\ufe62", "+"),
        **dict.fromkeys("\uff0e\u066b", "."),
        **dict.fromkeys("\uff0c\u066c", ","),
        **dict.fromkeys("\u00a0\u2007\u2009\u202f", "\u00a0"),  # spaces that do not part
        **dict.fromkeys("\u2019\u02bc", "'"),
        **dict.fromkeys("\uff0f\u2044", "/"),
        **dict.fromkeys("\u00b7\u22c5\u2217", "*"),
    }
)
_OTHER_DIGIT = regex.compile(r"[\p{Nd}--[0-9]]", regex.VERSION1)
_RAISED = regex.compile(r"(?<=[0-9])\u207b?[\u2070\u00b9\u00b2\u00b3\u2074-\u2079]++")
_SPACED = r"[1-9][0-9]{0,2}+(?: [0-9]{3})++(?! ?[0-9])"
_NUMBER = regex.compile(
    r"(?<![\p{L}\p{N}_.^])(?<!\*\*)"  # no part of a name, of a longer number or of a power
    r"(?:(?<![\p{L}\p{N}_.)\]])[-+])?"  # after a number or a bracket it would be an operator
    r"(?:"
    rf"(?:(?:(?<![0-9] ){_SPACED}|[0-9]{{1,3}}(?:([,'_\u00a0])[0-9]{{3}}(?:\1[0-9]{{3}})*+)(?![0-9])|[0-9]++)"
    r"(?:\.[0-9]++)?+)"
    r"|\.[0-9]++"
    r")"
    r"(?:[eE][-+]?[0-9]{1,2}+|/[0-9]++(?:\.[0-9]++)?+"
    r"|(?:\^|\*\*)(?:[-+]?[0-9]{1,2}+|\{[-+]?[0-9]{1,2}+\})"
    r"|[ ]?(?:\u00d7|\\times|\*|[xX])[ ]?10(?:\^|\*\*)(?:[-+]?[0-9]{1,2}+|\{[-+]?[0-9]{1,2}+\}))?+"
    r"(?!\.?[0-9]|[eE][-+]?[0-9]|\^|\*\*)"
)
_TIMES = regex.compile(r" ?(?:\u00d7|\\times|(?<!\*)\*(?!\*)|[xX]) ?")


def final_number(text: str) -> Fraction | None:
    """The first number behind the last `####`, or the last number where there is no such mark; None for no number."""
    parts = text.rsplit(FINAL, 1)
    found = [value for match in _NUMBER.finditer(_plain(parts[-1])) if (value := number(match[0])) is not None]
    if not found:
        return None
    return found[0] if len(parts) > 1 else found[-1]


def number(spelled: str) -> Fraction | None:
    """The exact value of one number in ASCII; None for what is too long, divided by 0 or 0 to a negative power."""
    if len(spelled) > MAX_NUMBER_LENGTH:
        return None
    factor, *power = _TIMES.split(spelled, 1)
    if power:
        mantissa, scale = number(factor), number(power[0])
        return None if mantissa is None or scale is None else mantissa * scale
    sign = -1 if spelled.startswith("-") else 1
    base, _, exponent = spelled.lstrip("+-").replace("**", "^").partition("^")
    above, _, below = regex.sub(r"[,' _\u00a0]", "", base).partition("/")
    divisor, raised = Fraction(below or 1), int(exponent.strip("{}") or 1)
    value = Fraction(Decimal(above))
    if not divisor or (not value and raised < 0):
        return None
    return sign * (value / divisor) ** raised


def _plain(text: str) -> str:
    """Text with digits, signs and raised digits in ASCII."""
    text = _OTHER_DIGIT.sub(lambda match: str(unicodedata.decimal(match[0])), text.translate(_SIGNS))
    return _RAISED.sub(lambda match: "^" + unicodedata.normalize("NFKC", match[0]).replace("\u2212", "-"), text)
