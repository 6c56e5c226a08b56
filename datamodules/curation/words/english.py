"""English exceptions: contractions, abbreviations and emoticons, which rules about single characters split wrongly.

A table of some thousand strings, made from the few lists below at import, instead of a tokenizer library. Which
strings are special, and where they part, follows spaCy's English tokenizer (Honnibal and Montani, MIT license).
"""

from collections.abc import Iterator

CONTRACTIONS = {
    ("n't",): "ai are ca could dare did do does had has have is may might must need ought sha should was were wo would",
    ("n't", "'ve"): "ca could did do does had may might must need ought sha should wo would",
    ("'ve",): "could how i might must not should there these they those we what when where who why would you",
    ("'d",): "he how i it she that there these they this those we what when where who why you",
    ("'d", "'ve"): "he how i it she that there these they this those we what when where who why you",
    ("'ll",): "he how i it she that there these they this those we what when where who why you",
    ("'ll", "'ve"): "he how i it she that there these they this those we what when where who why you",
    ("'s",): "he how it let she that there this what when where who why",
    ("'re",): "how there these they those we what when where who why you",
    ("'m",): "i",
    ("'m", "a"): "i",
    ("'d", "'y"): "how",
    ("on",): "c'm",
    ("all",): "y'",
}
"""Endings -> the words they are joined to; written with either apostrophe or, but for `WORDS`, with none."""
WORDS = frozenset(["cmon", "shed", "hell", "ill", "shell", "well", "its", "lets", "howdy", "were", "whore"])
"""What a contraction without its apostrophe would be mistaken for."""
JOINED = {"cannot": ("can", "not"), "gonna": ("gon", "na"), "gotta": ("got", "ta")}
CLIPPED = "doin goin havin lovin nothin nuthin ol somethin"
"""Words that keep an apostrophe at their end."""
INFORMAL = "'bout 'cause 'cos 'coz 'cuz 'd 'em 'll 'nuff 're 's ma'am o'clock '' "
ABBREVIATIONS = (
    "Adm. Ak. Ala. Apr. Ariz. Ark. Aug. Bros. Calif. Co. Colo. Conn. Corp. D.C. Dec. Del. Dr. E.G. E.g. Feb. Fla. "
    "Ga. Gen. Gov. I.E. I.e. Ia. Id. Ill. Inc. Ind. Jan. Jr. Jul. Jun. Kan. Kans. Ky. La. Ltd. Mar. Mass. Md. Messrs. "
    "Mich. Minn. Miss. Mo. Mont. Mr. Mrs. Ms. Mt. N.C. N.D. N.H. N.J. N.M. N.Y. Neb. Nebr. Nev. Nov. Oct. Okla. Ore. "
    "Pa. Ph.D. Prof. Rep. Rev. S.C. Sen. Sep. Sept. St. Tenn. Va. Wash. Wis. a.m. co. e.g. i.e. p.m. v.s. vs. ä. ö. ü. "
    "C++ and/or w/o em ll nuff <space>"
)
EMOTICONS = r"""
' (*_*) (-8 (-: (-; (-_-) (._.) (: (; (= (>_<) (^_^) (o: (¬_¬) (ಠ_ಠ) (╯°□°）╯︵┻━┻ )-: ): -_- -__- ._. 0.0
0.o 0_0 0_o 8) 8-) 8-D 8D :'( :') :'-( :'-) :( :(( :((( :() :) :)) :))) :* :-( :-(( :-((( :-) :-)) :-)))
:-* :-/ :-0 :-3 :-> :-D :-O :-P :-X :-] :-o :-p :-x :-| :-} :/ :0 :1 :3 :> :D :O :P :X :] :o :o) :p :x :|
:} :’( :’) :’-( :’-) ;) ;-) ;-D ;D ;_; <.< </3 <3 <33 <333 =( =) =/ =3 =D =[ =] =| >.< >.> >:( >:o
><(((*> @_@ O.O O.o O_O O_o V.V V_V XD XDD [-: [: [= \") \n \t ]= ^_^ ^__^ ^___^ o.0 o.O o.o o_0 o_O o_o
v.v v_v xD xDD ¯\(ツ)/¯ ಠ_ಠ ಠ︵ಠ — ‘S ‘s ’
"""


def special_cases() -> dict[str, tuple[str, ...]]:
    """String -> the words it is split into, one for a string that stays whole."""
    cases: dict[str, tuple[str, ...]] = {word: (word,) for word in (*ABBREVIATIONS.split(), *EMOTICONS.split())}
    for letter in "abcdefghijklmnopqrstuvwxyz":
        cases[f"{letter}."] = (f"{letter}.",)
    for word in [form for stem in CLIPPED.split() for form in (stem, f"{stem}'")] + INFORMAL.split():
        for form in _with_capital(word):
            cases |= {form: (form,), form.replace("'", "’"): (form.replace("'", "’"),)}
    for endings, stems in CONTRACTIONS.items():
        for stem in stems.split():
            for parts in _spellings((stem, *endings)):
                cases["".join(parts)] = parts
    for word, (first, last) in JOINED.items():
        cases |= {word: (first, last), word.capitalize(): (first.capitalize(), last)}
    for hour in range(1, 13):
        for half in ("am", "pm", "a.m.", "p.m."):
            cases[f"{hour}{half}"] = (str(hour), half)
    for scale in "CFKcfk":
        cases[f"°{scale}."] = ("°", scale, ".")
    return cases


def _with_capital(word: str) -> tuple[str, str]:
    place = 1 if word.startswith("'") else 0
    return word, word[:place] + word[place : place + 1].upper() + word[place + 1 :]


def _spellings(parts: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for first in (parts[0], parts[0][0].upper() + parts[0][1:]):
        for apostrophe in ("'", "’", ""):
            spelled = tuple(part.replace("'", apostrophe) for part in (first, *parts[1:]))
            if apostrophe or "".join(spelled).lower() not in WORDS:
                yield spelled
