"""Languages: stop words, marks that end a sentence, and scripts without spaces, as rules on words need them.

Eight to ten function words of each language, as many as Gopher's list of English has: enough to tell running text from
lists and menus, and short enough to be read. A language that is not here takes its words as an argument.
"""

STOP_WORDS: dict[str, tuple[str, ...]] = {
    "ar": ("في", "من", "على", "إلى", "أن", "التي", "عن", "مع"),
    "de": ("der", "die", "und", "in", "den", "von", "zu", "das", "mit", "ist"),
    "en": ("the", "be", "to", "of", "and", "that", "have", "with"),
    "es": ("de", "la", "que", "el", "en", "y", "los", "se", "del", "por"),
    "fr": ("de", "la", "le", "et", "les", "des", "en", "un", "du", "que"),
    "hi": ("के", "में", "है", "की", "से", "का", "को", "और"),
    "it": ("di", "e", "il", "la", "che", "in", "per", "un", "non", "del"),
    "ja": ("の", "に", "は", "を", "が", "と", "で", "た"),
    "nl": ("de", "van", "het", "een", "en", "in", "is", "dat", "op", "te"),
    "pl": ("w", "i", "na", "z", "do", "się", "nie", "jest"),
    "pt": ("de", "a", "o", "que", "e", "do", "da", "em", "um", "para"),
    "ru": ("и", "в", "не", "на", "что", "с", "по", "как", "из", "это"),
    "th": ("ที่", "และ", "ใน", "ของ", "เป็น", "การ", "มี", "ได้"),
    "zh": ("的", "是", "在", "了", "和", "有", "不", "这"),
}
"""ISO 639-1 code -> function words; of English those of Rae et al. 2021, of others the most frequent ones."""
UNSPACED_LANGUAGES = frozenset({"ja", "km", "lo", "my", "th", "wuu", "yue", "zh"})
"""Written without spaces between words, in the scripts of `characters.UNSPACED`."""
WITHOUT_END_MARKS = frozenset({"lo", "th"})
"""Sentences end with a space or a new line."""
END_MARKS = {
    **dict.fromkeys(("ja", "wuu", "yue", "zh"), "。！？…」』”"),
    **dict.fromkeys(("as", "bh", "bn", "hi", "mai", "ne", "new", "or", "pa", "sa"), "।?!"),
    **dict.fromkeys(("pnb", "sd", "ur"), "۔؟!"),
    "am": "።?!", "hy": "։՞!", "km": "។?!", "my": "။?!",
}  # fmt: skip
"""Code -> marks that end a sentence, where the full stop is not ASCII's."""
