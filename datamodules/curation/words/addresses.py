"""Addresses in text: words that are a URL or an e-mail address and stay whole."""

import numpy as np

from common.compute.compiled import compiled
from datamodules.curation.words.characters import (
    ALPHANUMERIC,
    LOWER,
    bits_at,
)
from datamodules.curation.words.tables import SplitterTables


@compiled
def _is_host_byte(byte: int) -> bool:
    # U+00A1 to U+FFFF count as letters of a host; their UTF-8 begins at 0xC2.
    return (
        ord("a") <= byte <= ord("z") or ord("A") <= byte <= ord("Z") or ord("0") <= byte <= ord("9") or byte >= 0x80
    )  # fmt: skip


@compiled
def is_host(text: np.ndarray, start: int, stop: int, rules: SplitterTables) -> bool:
    """True if bytes are a host or an address of IPv4, with or without a port and a path."""
    place = start
    labels, numbers = 0, 0
    while True:
        label = place
        letters, digits, all_lower = 0, 0, True
        while place < stop:
            byte = text[place]
            if not (_is_host_byte(byte) or (place > label and (byte == ord("-") or byte == ord("_")))):
                break
            bits, size = bits_at(text, place, rules.characters)
            all_lower &= bits & LOWER > 0
            digits += ord("0") <= byte <= ord("9")
            letters += 1
            place += size
        if letters == 0:
            return False
        if place < stop and text[place] == ord("."):
            if letters > 64 or not _is_host_byte(text[place - 1]):
                return False
            labels += 1
            numbers += digits == letters and letters <= 3
            place += 1
            continue
        is_name = labels >= 1 and all_lower and 2 <= letters <= 63
        is_address = labels == 3 and numbers == 3 and digits == letters and letters <= 3
        if not (is_name or is_address):
            return False
        break
    if place < stop and text[place] == ord(":"):
        digits = 0
        while place + 1 + digits < stop and ord("0") <= text[place + 1 + digits] <= ord("9"):
            digits += 1
        if not 2 <= digits <= 5:
            return False
        place += 1 + digits
    return place == stop or text[place] == ord("/") or text[place] == ord("?") or text[place] == ord("#")


@compiled
def is_url(text: np.ndarray, start: int, stop: int, rules: SplitterTables) -> bool:
    """True if bytes are a URL, with or without a scheme, or an e-mail address."""
    begin, place = start, start
    while place < stop - 2:
        byte = text[place]
        if byte == ord(":"):
            if place - start >= 2 and text[place + 1] == ord("/") and text[place + 2] == ord("/"):
                begin = place + 3
            break
        bits, size = bits_at(text, place, rules.characters)
        is_mark = byte == ord("_") or byte == ord("+") or byte == ord("-") or byte == ord(".")
        if not (bits & ALPHANUMERIC or is_mark):
            break
        place += size
    if is_host(text, begin, stop, rules):
        return True
    first, last = -1, -1
    for place in range(begin + 1, stop):
        if text[place] == ord("@"):
            first = place if first < 0 else first
            last = place
    if last > 0 and is_host(text, last + 1, stop, rules):
        return True
    return first > 0 and first != last and is_host(text, first + 1, stop, rules)
