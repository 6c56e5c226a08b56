r"""Encodings of LaTeX sources: UTF-8, or what inputenc is given, in a file or in the main file for its parts.

Bytes in no declared encoding are never guessed; but those in comments cost nothing, since comments go.
"""

import re

MAX_DECLARATIONS = 100
"""Declarations that are looked at: a source has one or two."""

_DECLARATION = re.compile(
    rb"\\(?:usepackage|RequirePackage)\s*+\[([^\[\]{}]{1,200})\]\s*+\{inputenc\}|\\inputencoding\s*+\{([\w-]{1,20})\}"
    rb"|\\usepackage\s*+\{(isolatin1|umlaut)\}|\\document(?:style|class)\s*+\[([^\[\]{}]{1,300})\]"
    rb"|\\begin\s*+\{CJK\*?\}\s*+\{(\w{2,8})\}"
)
_COMMENTS_BEYOND_ASCII = re.compile(rb"(?<!\\)%[^\r\n]*[\x80-\xff][^\r\n]*")
_ENCODINGS = {
    **{f"latin{number}": f"iso-8859-{number}" for number in range(1, 5)},
    **{"latin5": "iso-8859-9", "latin6": "iso-8859-10", "latin9": "iso-8859-15", "latin10": "iso-8859-16"},
    **{name: name for name in ("cp437", "cp850", "cp852", "cp858", "cp865", "cp866", "koi8-r", "koi8-u", "koi8-t")},
    **{f"cp125{digit}": f"cp125{digit}" for digit in range(9)},
    "isolatin1": "iso-8859-1", "isolatin": "iso-8859-1", "isolatin2": "iso-8859-2", "umlaut": "iso-8859-1",
    "latin-1": "iso-8859-1", "ansinew": "cp1252", "applemac": "mac_roman", "mac": "mac_roman", "macce": "mac_latin2",
    "maccyr": "mac_cyrillic", "iso88595": "iso-8859-5", "iso-8859-7": "iso-8859-7", "8859-8": "iso-8859-8",
    "cp437de": "cp437", "cp862": "cp862", "gbk": "gb18030", "gb": "gb18030", "gb2312": "gb18030", "big5": "big5hkscs",
    "bg5": "big5hkscs", "sjis": "cp932", "jis": "iso2022_jp", "euc": "euc_jp", "ks": "cp949", "koi8-ru": "koi8-u",
}  # fmt: skip
"""inputenc's names, and those of packages before it, as codecs."""


def declared_encoding(raw: bytes) -> str | None:
    """Codec of the last encoding that a source declares outside of comments, or None."""
    declared: str | None = None
    for count, match in enumerate(_DECLARATION.finditer(raw)):
        line = max(raw.rfind(b"\n", 0, match.start()), raw.rfind(b"\r", 0, match.start())) + 1
        if count == MAX_DECLARATIONS:
            break
        if b"%" in raw[line : match.start()].replace(b"\\%", b""):
            continue
        options = next(group for group in match.groups() if group is not None).decode("ascii", "replace")
        for option in options.lower().split(","):
            declared = _ENCODINGS.get(option.strip(), declared)
    return declared


def decode_latex(raw: bytes, main_encoding: str | None = None) -> str | None:
    """A source in UTF-8, in the encoding that it declares, or in that of the main file; None for one in any other."""
    encodings = ("utf-8-sig", None if raw.isascii() else declared_encoding(raw), main_encoding)
    for encoding in dict.fromkeys(encodings):
        if encoding is not None:
            try:
                return raw.decode(encoding)
            except UnicodeDecodeError:
                continue
    try:
        return _COMMENTS_BEYOND_ASCII.sub(b"%", raw).decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
