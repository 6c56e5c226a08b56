"""Character classes: bits of each code point, in a table for compiled loops.

One table of 0.8 MB built once per process, instead of Python's string methods once per character.
"""

import functools
import unicodedata
from typing import Any

import numpy as np
import regex

from common.compute.compiled import compiled

SPACE, ALPHABETIC, LOWER, UPPER, DIGIT, AFFIX = 1, 2, 4, 8, 16, 32
"""White space (`str.isspace`), letters (`str.isalpha`), not upper case, not lower case, 0-9, split off words."""
PREFIX, CURRENCY, QUOTE, ICON, HYPHEN, BEFORE_STOP = 64, 128, 256, 512, 1024, 2048
"""Split off in front; off numbers; quotation marks; pictures; hyphens and dashes; a full stop behind is split off."""
SYMBOL, TERMINAL, PUNCTUATION, ALPHANUMERIC, LINE_END = 4096, 8192, 16384, 32768, 65536
"""datatrove's punctuation; ends a sentence; Unicode category P; `str.isalnum`; `str.splitlines` parts here."""
UNSPACED, COMBINING = 131072, 262144
"""A letter or digit of a script written without spaces between words; a mark on the character before it."""
UNSPACED_SCRIPTS = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
"""A character of such a script, as an expression of `regex`."""

TABLE_SIZE = 0x32400
"""No letter, punctuation or symbol has a higher code point; what is above counts as none of these."""

QUOTES = "'\"”“`‘´’‚,„»«「」『』（）〔〕【】《》〈〉\u2329\u232a⟦⟧"
PUNCTUATION_MARKS = "…,:;!?¿؟¡()[]{}<>_#*&。？！，、；：～·।،۔؛٪"
CURRENCIES = "$£€¥฿₽﷼" + "".join(map(chr, range(0x20A0, 0x20C0)))
SYMBOLS = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~«´»–—’“”„…∶━►、。〈〉《》「」【】！％（），．１：；？～" + "".join(
    chr(code) for code in (*range(0, 9), *range(11, 32), *range(127, 160))
)
"""What datatrove calls punctuation (`datatrove.utils.text.PUNCTUATION`), beside `TERMINALS`."""
TERMINALS = (
    "!.?։؝؞؟۔܀܁܂߹࠷࠹࠽࠾।॥၊။።፧፨᙮᜵᜶។៕៖៙៚᠃᠉᥄᥅᪨᪩᪪᪫᭚᭛᭞᭟᭽᭾᰻᰼᱾᱿‼‽⁇⁈⁉⸮⸼⹓⹔。꓿꘎꘏꛳꛷꡶꡷꣎꣏꤯꧈꧉꩝꩞꩟꫰꫱꯫﹒﹖﹗！．？｡𐩖𐩗𐽕𐽖𐽗𐽘𐽙𐾆𐾇𐾈𐾉"
    "𑁇𑁈𑂾𑂿𑃀𑃁𑅁𑅂𑅃𑇅𑇆𑇍𑇞𑇟𑈸𑈹𑈻𑈼𑊩𑑋𑑌𑗂𑗃𑗉𑗊𑗋𑗌𑗍𑗎𑗏𑗐𑗑𑗒𑗓𑗔𑗕𑗖𑗗𑙁𑙂𑜼𑜽𑜾𑥄𑥆𑩂𑩃𑪛𑪜𑱁𑱂𑻷𑻸\U00011f43\U00011f44𖩮𖩯𖫵𖬷𖬸𖭄𖺘𛲟𝪈"
)
"""Ends of sentences in all scripts, as FineWeb's filter takes them (`datatrove.utils.text.TERMINAL_PUNCTUATION`)."""
LINE_ENDS = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"


@functools.cache
def character_table() -> np.ndarray:
    """Bits of every code point below `TABLE_SIZE`, uint32."""
    characters = list(map(chr, range(TABLE_SIZE)))
    table = np.zeros(TABLE_SIZE, dtype=np.uint32)
    unspaced_script = regex.compile(UNSPACED_SCRIPTS)

    def mark(bit: int, members: np.ndarray) -> None:
        table[members] |= np.uint32(bit)

    alphabetic = np.array([character.isalpha() for character in characters])
    categories = np.array([unicodedata.category(character) for character in characters])
    mark(ALPHABETIC, alphabetic)
    mark(LOWER, alphabetic & ~np.isin(categories, ["Lu", "Lt"]))
    mark(UPPER, alphabetic & (categories != "Ll"))
    mark(ALPHANUMERIC, np.array([character.isalnum() for character in characters]))
    mark(SPACE, np.array([character.isspace() for character in characters]))
    unspaced = np.array([unspaced_script.match(character) is not None for character in characters])
    mark(UNSPACED, unspaced & (np.char.startswith(categories, "L") | np.char.startswith(categories, "N")))
    mark(COMBINING, np.char.startswith(categories, "M"))
    mark(PUNCTUATION, np.char.startswith(categories, "P"))
    # spaCy's list of pictures is Unicode's category So, without the newest emoji.
    mark(ICON | AFFIX, categories == "So")

    def mark_all(bit: int, members: str) -> None:
        mark(bit, np.array([ord(member) for member in members]))

    mark_all(DIGIT | BEFORE_STOP, "0123456789")
    mark_all(AFFIX | BEFORE_STOP, QUOTES + PUNCTUATION_MARKS)
    mark_all(AFFIX, "–—")
    mark_all(PREFIX, "§%=" + CURRENCIES)
    mark_all(CURRENCY, CURRENCIES)
    mark_all(QUOTE, QUOTES)
    mark_all(HYPHEN, "-–—~")
    mark_all(BEFORE_STOP, "%²-+|")
    mark_all(SYMBOL, SYMBOLS + TERMINALS)
    mark_all(TERMINAL, TERMINALS)
    mark_all(LINE_END, LINE_ENDS)
    mark(BEFORE_STOP, (table & LOWER) > 0)
    return table


@compiled
def decode(text: np.ndarray, place: int) -> tuple[int, int]:
    """Code point that begins at a place in valid UTF-8, and its bytes."""
    first: Any = np.int64(text[place])
    if first < 0x80:
        return first, 1
    if first < 0xE0:
        return (first & 0x1F) << 6 | (np.int64(text[place + 1]) & 0x3F), 2
    if first < 0xF0:
        high = (first & 0x0F) << 12 | (np.int64(text[place + 1]) & 0x3F) << 6
        return high | (np.int64(text[place + 2]) & 0x3F), 3
    high = (first & 0x07) << 18 | (np.int64(text[place + 1]) & 0x3F) << 12
    return high | (np.int64(text[place + 2]) & 0x3F) << 6 | (np.int64(text[place + 3]) & 0x3F), 4


@compiled
def bits_at(text: np.ndarray, place: int, table: np.ndarray) -> tuple[int, int]:
    """Bits of the character that begins at a place, and its bytes."""
    bits: Any = 0
    if text[place] < 0x80:
        bits = np.int64(table[text[place]])
        return bits, 1
    code, size = decode(text, place)
    if code < TABLE_SIZE:
        bits = np.int64(table[code])
    return bits, size


@compiled
def previous(text: np.ndarray, place: int) -> int:
    """Start of the character that ends before a position."""
    place -= 1
    while text[place] & 0xC0 == 0x80:
        place -= 1
    return place
