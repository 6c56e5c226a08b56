"""Character encodings as browsers decode them: the Encoding Standard's labels on Python's codecs.

Python's `shift_jis`, `euc_kr`, `gbk`, `big5` and `euc_jp` are the encodings of the norms, the Standard's are what is
written under these names: one character beyond a norm is no reason to doubt the label of a page. Bytes that an encoding
does not define become U+FFFD, one each, where the Standard has C1 control characters for some.
"""

import re

UNDECODABLE_SHARE = 0.01
"""Share of replacement characters above which bytes were no text in an encoding."""
REPLACEMENT = "\ufffd"

_CODECS = {
    "shift_jis": ("cp932",),
    "euc_kr": ("cp949",),
    "gbk": ("gb18030",),
    "big5": ("big5hkscs",),
    "euc_jp": (
        "euc_jp",
        "euc_jis_2004",
    ),  # the second has NEC's row 13 (circled digits), the first differs nowhere else
    "iso2022_jp": ("iso2022_jp", "iso2022_jp_ext"),
    "iso8859-11": ("cp874",),
}
"""Codecs tried in order by the name that resiliparse maps a label to; the last replaces what it cannot decode."""
_BEYOND = {
    "x-mac-cyrillic": "mac_cyrillic", "x-mac-ukrainian": "mac_cyrillic", "iso-2022-kr": "iso2022_kr",
    "csiso2022kr": "iso2022_kr", "cp932": "shift_jis", "ms932": "shift_jis", "cp949": "euc_kr",
    "uhc": "euc_kr", "ms949": "euc_kr", "cp936": "gbk", "cp950": "big5", "cp437": "cp437", "cp850": "cp850",
    "cp852": "cp852", "cp1047": "cp1047", "macroman": "mac_roman", "x-mac-roman": "mac_roman",
    "x-mac-ce": "mac_latin2", "iso-8859-12": "latin_1",
}  # fmt: skip
"""Labels that the Standard leaves out, and what those who write them mean."""
_BYTE_ORDER_MARKS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
_XML = re.compile(rb"\s*<\?xml[^>]{0,200}?\bencoding\s*=\s*[\"']\s*([\w.:-]{1,40})")
_META = re.compile(rb"<meta\b[^>]{0,1000}?\bcharset\s*=\s*[\"']?\s*([\w.:-]{1,40})", re.I)
_PRESCAN = 4096
"""Bytes in which a page may name its own encoding: browsers look at 1,024, but wait for more as they please."""


def byte_order_mark(raw: bytes) -> str | None:
    """The encoding that a byte-order mark says, which no label overrules; None without one."""
    return next((label for mark, label in _BYTE_ORDER_MARKS if raw.startswith(mark)), None)


def label_within(raw: bytes) -> str | None:
    """Label of the encoding that a page names itself, by its XML declaration or a `meta` element."""
    head = raw[:_PRESCAN]
    found = _XML.match(head) or _META.search(head)
    if found is None:
        return None
    label = found[1].decode("ascii", "replace")
    # It was read as ASCII, so that it is no UTF-16.
    return "utf-8" if label.lower().startswith(("utf-16", "ucs-2", "unicode")) else label


def codec_of(label: str) -> str | None:
    """Name of the encoding that a label means, or None for no known label."""
    from resiliparse.parse.encoding import map_encoding_to_html5

    label = label.strip().lower()
    return _BEYOND.get(label) or map_encoding_to_html5(label, fallback_utf8=False)


def decoded(raw: bytes, codec: str) -> str | None:
    """Characters of bytes in an encoding, U+FFFD for each that has none; None where these are many.

    Args:
        raw: bytes, a byte-order mark included.
        codec: see `codec_of`.
    """
    *strict, last = _CODECS.get(codec, (codec,))
    for name in strict:
        try:
            return raw.decode(name)
        except UnicodeDecodeError:
            continue
    try:
        text = raw.decode(last, "replace").removeprefix("\ufeff")
    except (UnicodeError, LookupError):  # stateful codecs refuse some bytes whatever the errors are
        return None
    return text if text.count(REPLACEMENT) <= UNDECODABLE_SHARE * len(text) else None


def mostly_utf8(raw: bytes, declared: bool) -> str | None:
    """Bytes as UTF-8 where a few are wrong, U+FFFD for each; None where these are no UTF-8.

    What is not UTF-8 hardly ever holds a sequence of bytes that is: nine of them for each wrong one prove it, one where
    it is declared.

    Args:
        raw: bytes that are not UTF-8.
        declared: whether they say they are; then a single wrong byte in ASCII is believed, too.
    """
    text = raw.decode("utf-8", "replace").removeprefix("\ufeff")
    wrong = text.count(REPLACEMENT)
    right = len(text) - len(text.encode("ascii", "ignore")) - wrong
    return text if wrong * (1 if declared else 9) <= right or (declared and wrong == 1) else None
