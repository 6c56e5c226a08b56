"""Superscripts and subscripts in text of a document: 10^6, H_2O, x_{ij}, in the notation of TeX.

Unicode has raised digits, but not of all letters, and tokenizers know them less well than `^`; flattened text
would make 106 of a million. Ordinals and abbreviations (1st, XIXe, Mme) are words, and stay together.
"""

import re

_ORDINALS = re.compile(
    r"(?:st|nd|rd|th|er|re|e|ers|res|es|ème|èmes|eme|ième|ère|nde?|o|a|os|as|ος|η|ο|й|я|е|го|ª|º)\.?", re.I
)
_BEFORE_ORDINAL = re.compile(r"(?:\d|\b[IVXLCM]{1,8}|\b[Nn])\.?$")
_ABBREVIATIONS = frozenset({
    "me", "mes", "mgr", "lle", "lles", "gr", "st", "nd", "rd", "th", "er", "ère", "ème", "tm", "sm", "™", "®", "©", "’",
})  # fmt: skip
_FOOTNOTE = re.compile(r"[\s*†‡§¶#,;]*|\[[^\[\]]*\]")


def scripted(before: str, content: str, raised: bool) -> str:
    """Text of a superscript or subscript as it follows what is before it.

    Args:
        before: the text that it belongs to; its last characters decide whether it is an ordinal.
        content: the text within.
        raised: superscript.
    """
    inner = content.strip()
    if not inner:
        return content
    if raised and (
        inner.casefold() in _ABBREVIATIONS
        or _FOOTNOTE.fullmatch(inner)
        or (_ORDINALS.fullmatch(inner) and _BEFORE_ORDINAL.search(before[-12:]))
    ):
        return content
    return ("^" if raised else "_") + (inner if len(inner) == 1 or inner.isdecimal() else f"{{{inner}}}")
