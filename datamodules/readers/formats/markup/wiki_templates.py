"""Wiki templates that are part of a sentence: measures, numbers, foreign words, signs, quotations.

A template is a program of its wiki, and a table of some two hundred names is no wiki. But the same few make most gaps
in sentences, in every language, and what they show is mostly an argument of theirs.
"""

import re
from collections.abc import Callable, Mapping

_SIGNS = {
    "!": "|", "=": "=", "'": "'", "'s": "'s", "’s": "’s", "-": "", "snd": " – ", "spnd": " – ", "sndash": " – ",
    "spaced ndash": " – ", "spaced en dash": " – ", "spaced em dash": " — ", "ndash": "–", "en dash": "–", "–": "–",
    "mdash": "—", "em dash": "—", "—": "—", "nbsp": " ", "spaces": " ", "space": " ", "pi": "π", "tau": "τ",
    "hbar": "ħ", "·": " · ", "dot": " · ", "middot": " · ", "•": " • ", "bull": " • ", "bullet": " • ", "pipe": "|",
    "(": "(", ")": ")", "{": "{", "}": "}", "minus": "−", "plusminus": "±", "times": "×", "degree": "°", "°": "°",
    "infin": "∞", "prime": "′", "e": "e", "er": "er", "1er": "1er", "euro": "€", "h.": "h.",
    "$": "$", "numero": "№", "no.": "No.", "число пи": "π", "av. j.-c.": "av. J.-C.",
}  # fmt: skip
_FIRST = frozenset({
    "nowrap", "nobr", "nobreak", "no break", "nobold", "noitalic", "small", "smaller", "big", "larger", "large",
    "abbr", "abbrlink", "tooltip", "em", "strong", "italic", "sc", "smallcaps", "small caps", "mvar", "var", "math",
    "bigmath", "texmath", "tmath", "tt", "mono", "kbd", "samp", "key", "overline", "underline", "highlight", "hl",
    "ill", "interlanguage link", "interlanguage link multi", "illm", "iw", "iwl", "link-interwiki", "translation",
    "not a typo", "notatypo", "as written", "proper name", "typo", "linktext", "vanchor", "visible anchor", "visanc",
    "chem2", "ce", "cmath", "flag", "flagcountry", "flagu", "script", "serif", "sans-serif", "unicode", "polytonic",
    "hebrew", "arabic", "nastaliq", "script/hebrew", "script/arabic", "okina", "citation bloc", "citation",
    "citation étrangère", "quote", "quotation", "blockquote", "block quote", "cquote", "bq", "poemquote",
    "poem quote", "zitat", "cita", "citat", "citazione", "цитата", "начало цитаты", "citaat", "plainlist",
    "plain list", "resize", "nombre", "число", "abréviation discrète", "abréviation", "abrev", "petit",
    "petite capitale", "pc", "romain", "lien", "overset", "center", "block indent", "indent", "dfn", "ins",
    "mark", "angbr", "angle bracket", "trad", "nw", "keypress", "button", "menu", "no wrap", "unlinked", "wikt",
    "нобр", "nobreaks", "abk", "nowiki", "жирный", "подсказка",
})  # fmt: skip
"""Templates that show their first argument, or that called text, quote, texte, content or lien."""
_SECOND = frozenset({
    "lang", "langx", "langue", "lang2", "idioma", "lingua", "color", "colored text", "font color",
    "fgcolor", "background color", "bg", "fontcolor", "font", "texte coloré", "wikt-lang", "anchor text", "taal",
    "язык", "legend inline", "color box text", "rtl-lang", "script lang",
})  # fmt: skip
_SHIPS = frozenset(
    {"HMS", "USS", "SS", "RMS", "HMAS", "HMCS", "HMNZS", "USCGC", "SMS", "MV", "MS", "HNLMS", "HDMS", "USNS", "PS"}
)
_MONEY = {
    "us$": "US$", "usd": "US$", "€": "€", "eur": "€", "£": "£", "gbp": "£", "¥": "¥", "jpy": "¥", "a$": "A$",
    "aud": "A$", "ca$": "CA$", "cad": "CA$", "nz$": "NZ$", "inr": "₹", "₹": "₹", "hk$": "HK$",
    "philippine peso": "₱", "₱": "₱",
}  # fmt: skip
_BEFORE = {
    "circa": "c.", "c.": "c.", "ca.": "c.", "ca": "c.", "floruit": "fl.", "fl.": "fl.", "reign": "r.", "r.": "r.",
    "born-in": "b.", "b.": "b.", "died-in": "d.", "d.": "d.", "as of": "As of", "isbn": "ISBN", "issn": "ISSN",
    "doi": "doi:", "oclc": "OCLC", "sqrt": "√", "radic": "√",
}  # fmt: skip
_RANGES = {
    "-": "–", "–": "–", "to": " to ", "to(-)": " to ", "to about": " to about ", "and": " and ", "and(-)": " and ",
    "&": " & ", "or": " or ", "by": " by ", "x": " × ", "×": " × ", "xx": " × ", "*": " × ", "+/-": " ± ",
    "±": " ± ", "+": " + ", ",": ", ",
}  # fmt: skip
_UNITS = {
    "c": "°C", "f": "°F", "k": "K", "sqmi": "sq mi", "sqft": "sq ft", "cuft": "cu ft", "cuyd": "cu yd",
    "cumi": "cu mi", "usgal": "US gal", "impgal": "imp gal", "l/100 km": "L/100 km", "kn": "knots",
    "uston": "short tons", "lton": "long tons", "oztroy": "troy ounces", "$/acre": "$/acre", "foot": "feet",
    "inch": "inches",
}  # fmt: skip
_MIXED_UNITS = frozenset(
    {"ft", "in", "mi", "yd", "lb", "st", "oz", "ch", "foot", "stlb", "furlong", "miles", "feet", "cwt", "long ton"}
)
_NUMBER = re.compile(r"[-−+]?[\d.,/ +⁄]*\d[\d.,]*(?:e[-+]?\d+)?", re.I)
_LANGUAGE_TEMPLATE = re.compile(r"lang-[a-z-]{2,20}|[a-z]{2,3}-?s")
_GERMAN_LANGUAGE = re.compile(r"[a-z]{2,3}S")
_NAMED = re.compile(r"\s*([^=<>\[\]{}|]{1,40}?)\s*=", re.S)


def arguments_of(parts: list[str]) -> tuple[list[str], dict[str, str]]:
    """Arguments in order, and those with a name; `1=x` is the first."""
    ordered: dict[int, str] = {}
    named: dict[str, str] = {}
    count = 0
    for part in parts:
        if found := _NAMED.match(part):
            value = part[found.end() :].strip()
            if found[1].isdecimal() and len(found[1]) < 3:
                ordered[int(found[1])] = value
            else:
                named[found[1].lower()] = value
        else:
            count += 1
            ordered[count] = part.strip()
    return [ordered.get(index, "") for index in range(1, max(ordered, default=0) + 1)], named


def rendered(name: str, parts: list[str]) -> str | None:
    """What a template shows in a sentence, in wikitext, or None for one that is not known or shows nothing there.

    Args:
        name: as written.
        parts: arguments as written, templates in them rendered.
    """
    written = " ".join(name.replace("_", " ").split()).removeprefix("Template:").removeprefix("template:").strip()
    key = written.lower()
    function, colon, value = written.partition(":")
    if colon:
        change = _FUNCTIONS.get(function.lower().strip())
        return change(value.strip()) if change else None
    if key in _SIGNS and (key not in ("e", "er") or not parts):
        return _SIGNS[key]
    ordered, named = arguments_of(parts)
    if key in _KINDS:
        return _KINDS[key](ordered, named)
    if key in _FIRST:
        return _argument(ordered, named, 1) or None
    if key in _SECOND:
        return _argument(ordered, named, 2) or None
    if key in _BEFORE:
        return " – ".join(f"{_BEFORE[key]} {value}".strip() for value in ordered[:2] if value) or _BEFORE[key]
    if key in _MONEY:
        return f"{_MONEY[key]}{ordered[0] if ordered else ''}"
    if written in _SHIPS and ordered:
        return f"{written} ''{ordered[0]}''"
    if _GERMAN_LANGUAGE.fullmatch(written) or (_LANGUAGE_TEMPLATE.fullmatch(key) and key.startswith("lang-")):
        return _argument(ordered, named, 1) or None
    return None


def _argument(ordered: list[str], named: Mapping[str, str], number: int) -> str:
    value = ordered[number - 1] if len(ordered) >= number else ""
    return value or next(
        (
            named[key]
            for key in ("text", "quote", "texte", "content", "lien", "texto", "testo", "zitat")
            if named.get(key)
        ),
        "",
    )


def _convert(ordered: list[str], named: Mapping[str, str]) -> str | None:
    """Measure in the unit given: what it converts to is arithmetic, and no word of the sentence."""
    if len(ordered) < 2:
        return ordered[0] if ordered else None
    values, at = ordered[0], 0
    while at + 2 < len(ordered) and ordered[at + 1] in _RANGES:
        values += _RANGES[ordered[at + 1]] + ordered[at + 2]
        at += 2
    unit = ordered[at + 1] if at + 1 < len(ordered) else ""
    shown = f"{values} {_UNITS.get(unit.lower(), unit)}".strip()
    while (
        unit in _MIXED_UNITS
        and at + 3 < len(ordered)
        and _NUMBER.fullmatch(ordered[at + 2])
        and ordered[at + 3] in _MIXED_UNITS
    ):
        at += 2
        unit = ordered[at + 1]
        shown += f" {ordered[at]} {unit}"
    return shown


def _val(ordered: list[str], named: Mapping[str, str]) -> str | None:
    number = ordered[0] if ordered else ""
    if len(ordered) > 2 and ordered[2]:
        number += f" +{ordered[1].lstrip('+')} −{ordered[2].lstrip('-−')}"
    elif len(ordered) > 1 and ordered[1]:
        number += f"±{ordered[1]}"
    if power := named.get("e") or named.get("10"):
        number = f"({number})" if "±" in number else number
        number += f"×10{_power(power)}" if number else f"10{_power(power)}"
    unit = named.get("u") or named.get("ul") or ""
    per = named.get("up") or named.get("upl")
    unit += f"/{per}" if per else ""
    shown = named.get("p", "") + number + named.get("s", "") + (f" {unit}" if unit and unit not in "°%" else unit)
    return shown or None


def _power(exponent: str) -> str:
    return f"^{exponent}" if len(exponent) == 1 else f"^{{{exponent}}}"


def _fraction(ordered: list[str], named: Mapping[str, str]) -> str | None:
    values = [value for value in ordered if value]
    if len(values) > 2:
        return f"{values[0]} {values[1]}/{values[2]}"
    return "/".join(values if len(values) == 2 else ["1", *values]) if values else None


def _chem(ordered: list[str], named: Mapping[str, str]) -> str | None:
    return "".join(f"<sub>{part}</sub>" if part[:1].isdecimal() else part for part in ordered) or None


def _script(raised: bool) -> Callable[[list[str], Mapping[str, str]], str | None]:
    tag = "sup" if raised else "sub"
    return lambda ordered, named: f"<{tag}>{ordered[0]}</{tag}>" if ordered and ordered[0] else None


def _both_scripts(ordered: list[str], named: Mapping[str, str]) -> str | None:
    above, below = [*ordered, "", ""][:2]
    above, below = named.get("p", above), named.get("b", below)
    return (f"<sub>{below}</sub>" if below else "") + (f"<sup>{above}</sup>" if above else "") or None


def _joined(between: str) -> Callable[[list[str], Mapping[str, str]], str | None]:
    return lambda ordered, named: between.join(value for value in ordered if value) or None


def _last(ordered: list[str], named: Mapping[str, str]) -> str | None:
    return ordered[-1] if ordered and ordered[-1] else None


def _code(ordered: list[str], named: Mapping[str, str]) -> str | None:
    # {{code|text|lang}} in English, {{code|lang|text}} in some other wikis: names of languages are one short word.
    texts = [value for value in (named.get("code"), *ordered) if value]
    return f"<code>{max(texts[:2], key=len)}</code>" if texts else None


def _chinese(ordered: list[str], named: Mapping[str, str]) -> str | None:
    keys = ("c", "s", "t", "p", "tp", "w", "j", "y", "l", "hangul", "hanja", "rr", "mr", "kanji", "romaji")
    return ", ".join(named[key] for key in keys if named.get(key)) or (ordered[0] if ordered else None)


def _nihongo(ordered: list[str], named: Mapping[str, str]) -> str | None:
    english, *others = [*ordered, ""]
    within = ", ".join(value for value in others[:2] if value)
    return f"{english} ({within})" if english and within else english or within or None


def _sic(ordered: list[str], named: Mapping[str, str]) -> str | None:
    text = "".join(ordered[:2])
    return text if named.get("hide") or named.get("nolink") == "hide" else f"{text} [sic]".strip()


def _ship(ordered: list[str], named: Mapping[str, str]) -> str | None:
    prefix, name = [*ordered, "", ""][:2]
    return f"{prefix} ''{name}''".strip() if name else prefix or None


def _not_translated(ordered: list[str], named: Mapping[str, str]) -> str | None:
    return (ordered[1] if len(ordered) > 1 and ordered[1] else ordered[0] if ordered else None) or None


def _century(ordered: list[str], named: Mapping[str, str]) -> str | None:
    if not ordered or not re.fullmatch(r"[IVX]{1,6}", ordered[0]):  # elsewhere it keeps a line together
        return ordered[0] if ordered else None
    return f"{ordered[0]}{ordered[1] if len(ordered) > 1 else 'e'} siècle"


def _date(ordered: list[str], named: Mapping[str, str]) -> str | None:
    return " ".join(value for value in ordered[:3] if value) or None


def _literally(ordered: list[str], named: Mapping[str, str]) -> str | None:
    return f"lit. '{ordered[0]}'" if ordered and ordered[0] else None


_KINDS: dict[str, Callable[[list[str], Mapping[str, str]], str | None]] = {
    **dict.fromkeys(
        ("convert", "cvt", "conv", "converter", "umrechnung", "unité", "unite", "unidad", "m", "num", "unit"), _convert
    ),
    **dict.fromkeys(("val", "value"), _val),
    **dict.fromkeys(("frac", "fraction", "sfrac", "bruch", "дробь", "sfraction"), _fraction),
    **dict.fromkeys(("chem", "chemform"), _chem),
    **dict.fromkeys(("sup", "exp", "exposant", "e^", "superscript"), _script(True)),
    **dict.fromkeys(("sub", "ind", "indice", "subscript"), _script(False)),
    **dict.fromkeys(("su", "subsup", "sup sub"), _both_scripts),
    **dict.fromkeys(("hlist", "flatlist", "flat list"), _joined(" · ")),
    **dict.fromkeys(("ubl", "unbulleted list", "ublist", "bulleted list"), _joined("\n")),
    **dict.fromkeys(("bibleverse", "bible", "bibleref2"), _joined(" ")),
    **dict.fromkeys(("transl", "transliteration", "script/nastaliq"), _last),
    **dict.fromkeys(("code", "code inline"), _code),
    **dict.fromkeys(("zh", "lang-zh", "korean", "ko-hhrm", "zh-full"), _chinese),
    **dict.fromkeys(("nihongo", "nihongo2", "nihongo3", "nihongo foot", "japonais", "japanisch"), _nihongo),
    **dict.fromkeys(("нп", "нп1", "нп2", "нп3", "нп4", "нп5", "не переведено", "не переведено 5"), _not_translated),
    **dict.fromkeys(("s-", "s", "sap", "sav", "siècle"), _century),
    **dict.fromkeys(("literal translation", "lit", "literally", "lit."), _literally),
    "sic": _sic,
    "date": _date,
    "ship": _ship,
    "e": lambda ordered, named: f"×10{_power(ordered[0])}" if ordered and ordered[0] else None,
    "x10^": lambda ordered, named: f"×10{_power(ordered[0])}" if ordered and ordered[0] else None,
    "10^": lambda ordered, named: f"10{_power(ordered[0])}" if ordered and ordered[0] else None,
    "abs": lambda ordered, named: f"|{ordered[0]}|" if ordered else None,
    "gloss": lambda ordered, named: f"‘{ordered[0]}’" if ordered else None,
    "angbr": lambda ordered, named: f"⟨{ordered[0]}⟩" if ordered else None,
}
_FUNCTIONS: dict[str, Callable[[str], str]] = {
    "formatnum": str, "lc": str.lower, "uc": str.upper, "plural": str, "grammar": str,
    "lcfirst": lambda value: value[:1].lower() + value[1:], "ucfirst": lambda value: value[:1].upper() + value[1:],
}  # fmt: skip
"""Functions of MediaWiki that change how a value looks."""
