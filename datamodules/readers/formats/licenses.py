"""License detection: SPDX identifiers in headers, and license texts compared word by word with their templates.

A text counts as a license only if every word of it is the license's, a title or a notice of copyright: the MIT license
with a condition more is another license. What is not known counts as no permission, so that some files that allow
everything in words of their own are lost.
"""

import re
from bisect import bisect
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import xxhash

from datamodules.readers.formats.license_templates import LONG_TEXTS, SHORT_TEXTS, TITLES, license_words

PERMISSIVE_LICENSES = (
    "MIT-0", "MIT", "MIT-feh", "Apache-2.0", "BSD-3-Clause", "BSD-3-Clause-Clear",
    "BSD-3-Clause-No-Nuclear-License-2014", "BSD-2-Clause", "CC0-1.0", "Unlicense", "ISC", "Artistic-2.0", "ECL-2.0",
    "SHL-0.51",
)  # fmt: skip
"""The Stack (Kocetkov et al. 2022, section 3.1), without the weak copyleft licenses (MPL-2.0, EPL-1.0, LGPL) that its
version 1.1 took out."""

LICENSE_BYTES = 100_000
HEADER_CHARACTERS = 2000
"""Of a source file, searched for an SPDX identifier."""

_LICENSE_FILE = re.compile(
    r"(?:licen[sc]es?|copying|unlicense)(?:[-_.](?:mit|apache|bsd|lesser|gpl|lgpl)[\w.-]{0,10})?(?:\.(?:txt|md|rst))?",
    re.I,
)
_SPDX = re.compile(r"SPDX-License-Identifier:[ \t]*([\w.+() -]{1,200})")
_BEFORE_SPDX = re.compile(r"(?:[\W_]|\b(?:dnl|rem|c|comment)\b)*", re.I)
"""Signs and words of comments before an identifier."""
NO_ASSERTION = "NOASSERTION"
"""SPDX's word for a license that is not known."""
EXCEPTIONS = frozenset(name.lower() for name in (
    "389-exception", "Asterisk-exception", "Autoconf-exception-2.0", "Autoconf-exception-3.0",
    "Autoconf-exception-generic", "Autoconf-exception-macro", "Bison-exception-1.24", "Bison-exception-2.2",
    "Bootloader-exception", "Classpath-exception-2.0", "CLISP-exception-2.0", "DigiRule-FOSS-exception",
    "eCos-exception-2.0", "Fawkes-Runtime-exception", "FLTK-exception", "Font-exception-2.0", "freertos-exception-2.0",
    "GCC-exception-2.0", "GCC-exception-3.1", "GNAT-exception", "gnu-javamail-exception", "GPL-CC-1.0",
    "i2p-gpl-java-exception", "LGPL-3.0-linking-exception", "Libtool-exception", "Linux-syscall-note",
    "LLVM-exception", "LZMA-exception", "mif-exception", "Nokia-Qt-exception-1.1", "OCaml-LGPL-linking-exception",
    "OCCT-exception-1.0", "OpenJDK-assembly-exception-1.0", "openvpn-openssl-exception", "Qt-GPL-exception-1.0",
    "Qt-LGPL-exception-1.1", "Qwt-exception-1.0", "SHL-2.0", "SHL-2.1", "Swift-exception", "u-boot-exception-2.0",
    "Universal-FOSS-exception-1.0", "WxWindows-exception-3.1", "x11vnc-openssl-exception",
))  # fmt: skip
"""Exceptions of SPDX's list: each permits more than the license before it. Anything else behind WITH need not."""
_SHORT = [(name, re.compile(rf"(?<!\S){pattern}(?!\S)")) for name, pattern in SHORT_TEXTS]
_TITLES = [(set(names), re.compile(rf"(?<!\S)(?:{pattern})(?!\S)")) for names, pattern in TITLES]
_LICENSED = re.compile(
    r"(?<!\S)((?:\S+ ){1,6})(?:is|are) (?:released|licensed|distributed|provided|made available) under (?:the )?"
    r"(?:terms of )?(?:the )?\0+(?: license)?(?: reproduced| as reproduced)?(?: below| as follows)?(?!\S)"
)
"""A sentence that says no more than a title, which NUL covers."""
_COPYRIGHT = re.compile(r"[\W_]*(?:(?:portions|parts|SPDX-FileCopyrightText:) )?(?:copyrights?\b|\(c\)|©|&copy;)", re.I)
_ADDRESS = re.compile(r"\S+@\S+|\S*(?:://|www\.)\S*|\b[\w-]+\.(?:com|org|net|io|de)\b\S*")
MAX_HOLDER_WORDS, MAX_OTHER_WORDS = 40, 3
"""Words in one line of a notice of copyright, and of these such as are neither a name nor usual between names."""
_BETWEEN_NAMES = frozenset({
    "and", "by", "of", "the", "for", "in", "at", "to", "from", "present", "contributors", "contributor",
    "authors", "author", "others", "inc", "ltd", "llc", "gmbh", "co", "all", "rights", "reserved", "see",
    "file", "txt", "md", "de", "van", "von", "der", "la", "le", "copyright", "holders", "holder", "owners",
    "owner", "developers", "team", "project", "portions", "parts", "et", "al",
})  # fmt: skip
_HEADINGS = frozenset({
    "license", "licenses", "the", "software", "copyright", "notice", "and", "or", "version", "file", "txt",
    "md", "rst", "spdx", "identifier", "all", "rights", "reserved",
})  # fmt: skip
_CONDITIONS = frozenset({
    "may", "not", "must", "shall", "will", "can", "cannot", "only", "unless", "except", "if", "provide", "used",
    "use", "uses", "using", "usage", "copy", "copied", "modify", "modified", "distribute", "distributed",
    "redistribute", "redistributed", "sell", "sold", "license", "licensed", "licenses", "sublicense",
    "permission", "permissions", "permitted", "permit", "permits", "grant", "granted", "allowed", "allow",
    "allows", "forbidden", "prohibited", "restricted", "restriction", "restrictions", "condition", "conditions",
    "terms", "subject", "commercial", "noncommercial", "academic", "educational", "train", "trained",
    "training", "evaluation", "proprietary", "confidential", "secret", "warranty", "agreement", "clause",
    "evil", "harm", "military", "no", "nor", "never", "without", "excluding", "solely", "require", "required",
    "requires", "written", "consent", "fee", "free", "purpose", "purposes",
})  # fmt: skip
"""Words of which conditions are made, and names are not."""
_ALSO_NAMES = frozenset(["Will", "Grant", "Free", "May"])
_HEADING = re.compile(
    r"\s*(?:#+ (?:[\w.+-]+ ?){1,3}|(?:the )?(?:[\w.+-]+ ){1,3}licen[sc]e\W*|for [\w.+-]+ software)\s*", re.I
)
"""The title of a project, in Markdown or with the word license behind."""
_SHARES = frozenset(["part", "parts", "portion", "portions", "some", "most", "other"])


def license_of_text(text: str) -> str | None:
    """SPDX identifier of a license's text, or None where it is not known or holds anything else.

    Several licenses one behind the other all hold, and are joined by AND.
    """
    words = license_words(text)
    flat = " ".join(word for word, _, _ in words)
    found: list[tuple[str | None, int, int]] = []
    for name, pattern in _SHORT:
        found += ((name, *match.span()) for match in pattern.finditer(flat) if not _has_conditions(match.groups()))
    for long_name, first, count, digest in LONG_TEXTS:
        found += ((long_name, *span) for span in _long_text(flat, first, count, digest))
    # BSD-3-Clause is all of BSD-3-Clause-No-Nuclear but its last sentence.
    found = [one for one in found if not any(a <= one[1] and one[2] < b for _, a, b in found)]
    names = {name for name, _, _ in found if name}
    if not names:
        return None
    for _, start, end in found:
        flat = flat[:start] + "\0" * (end - start) + flat[end:]
    rest = _without_titles(flat, names)
    return " AND ".join(sorted(names)) if _holds_nothing_else(text, words, rest) else None


def _has_conditions(holders: Sequence[str | None]) -> bool:
    """True if a license's text has more than names at the places of names."""
    return any(_CONDITIONS.intersection((holder or "").split()) for holder in holders)


def _long_text(flat: str, first: str, count: int, digest: int) -> Iterator[tuple[int, int]]:
    """Where runs of `count` words begin and end that begin like a long license and have its hash."""
    start = flat.find(first)
    while start >= 0:
        body = " ".join(flat[start:].split(" ", count)[:count])
        if xxhash.xxh3_64_intdigest(body.encode()) == digest:
            yield start, start + len(body)
        start = flat.find(first, start + 1)


def _without_titles(flat: str, names: set[str]) -> str:
    """Words with NUL over the titles of licenses that were found, and over sentences that name one of them."""

    def cover(match: re.Match[str]) -> str:
        return "\0" * len(match[0])

    def cover_sentence(match: re.Match[str]) -> str:
        subject = set(match[1].split())
        return match[0] if subject & (_CONDITIONS | _SHARES) else cover(match)

    for titled, pattern in _TITLES:
        if titled & names:
            flat = pattern.sub(cover, flat)
    return _LICENSED.sub(cover_sentence, flat)


def _holds_nothing_else(text: str, words: list[tuple[str, int, int]], rest: str) -> bool:
    """True if the words that NUL does not cover are notices of copyright and headings."""
    breaks = [match.start() for match in re.finditer(r"\n", text)]
    lines: dict[int, list[int]] = {}
    place = 0
    for index, (word, start, _) in enumerate(words):
        if rest[place] != "\0":
            lines.setdefault(bisect(breaks, start), []).append(index)
        place += len(word) + 1
    is_notice, previous = False, -2
    for number, members in lines.items():
        # From the line's own beginning, for the sign of copyright is no word.
        begin = breaks[number - 1] + 1 if number else 0
        if members[0]:
            begin = max(begin, words[members[0] - 1][2])
        line = text[begin : words[members[-1]][2]]
        is_notice = _is_notice(line, is_continued=is_notice and number == previous + 1)
        said = {words[index][0] for index in members}
        is_heading = said <= _HEADINGS or (_HEADING.fullmatch(line) and not (said - _HEADINGS) & _CONDITIONS)
        if not is_notice and not is_heading:
            return False
        previous = number
    return True


def _is_notice(line: str, is_continued: bool) -> bool:
    """True if a line is a notice of copyright, or goes on with names where the line above is one."""
    if not is_continued and not _COPYRIGHT.match(line):
        return False
    spoken = re.findall(r"[^\W\d_]+", _ADDRESS.sub(" ", line))
    if len(spoken) > MAX_HOLDER_WORDS or _CONDITIONS.intersection(
        word.lower() for word in spoken if word not in _ALSO_NAMES
    ):
        return False
    return sum(word.islower() and len(word) > 1 and word not in _BETWEEN_NAMES for word in spoken) <= MAX_OTHER_WORDS


def declared_license(source: str) -> str | None:
    """The SPDX expression in the header of a source file, or None; several identifiers all hold, joined by AND.

    An identifier behind words that are no notice of copyright ("not under") asserts nothing: `NO_ASSERTION`.
    """
    expressions: list[str] = []
    for found in _SPDX.finditer(source, 0, HEADER_CHARACTERS):
        expression = " ".join(found[1].split()).removesuffix("--").rstrip("( -")
        before = source[source.rfind("\n", 0, found.start()) + 1 : found.start()]
        if not _BEFORE_SPDX.fullmatch(before) and not _is_notice(before, is_continued=False):
            expression = NO_ASSERTION
        if expression and expression not in expressions:
            expressions.append(expression)
    if len(expressions) < 2:
        return expressions[0] if expressions else None
    return " AND ".join(f"({one})" if " " in one else one for one in expressions)


def is_allowed(expression: str, allowed: tuple[str, ...] | list[str]) -> bool:
    """True if an SPDX expression permits use under licenses of a list: any side of OR, both sides of AND.

    A license WITH what is none of `EXCEPTIONS` is another license. Parentheses around OR within AND are read as if they
    stood around nothing, so that such an expression is refused rather than allowed: every license named in it must be
    on the list.
    """
    names = {name.lower() for name in allowed}
    plain = re.sub(
        r"\s+WITH\s+([\w.-]+)", lambda found: "" if found[1].lower() in EXCEPTIONS else found[0], expression, flags=re.I
    )
    if "(" in plain or re.search(r"\bAND\b", plain, re.I):
        parts = re.split(r"\bAND\b|\bOR\b|[()]", plain, flags=re.I)
        return all(part.strip().lower() in names for part in parts if part.strip())
    return any(part.strip().lower() in names for part in re.split(r"\bOR\b", plain, flags=re.I))


def is_license_file(name: str) -> bool:
    """True if a file is named as licenses are: LICENSE, LICENSE-MIT, COPYING.txt."""
    return _LICENSE_FILE.fullmatch(name) is not None


@lru_cache(maxsize=4096)
def license_of_folder(folder: Path, root: Path) -> str | None:
    """License of the license files nearest above a folder's files, up to a root: all of them, joined by AND.

    Args:
        folder: within the root.
        root: the search ends here; files outside are not looked at.

    Returns:
        None where there is no license file, or the nearest ones hold a text that is not known.
    """
    found = nearest_license_files(folder, root)
    names = []
    for path in found:
        with path.open("rb") as file:
            raw = file.read(LICENSE_BYTES + 1)
        # What lies behind would not be seen, and could be a condition.
        names.append(license_of_text(raw.decode("utf-8", "replace")) if len(raw) <= LICENSE_BYTES else None)
    if not names or None in names:
        return None
    return " AND ".join(sorted({part for name in names for part in str(name).split(" AND ")}))


def nearest_license_files(folder: Path, root: Path) -> list[Path]:
    """License files of the nearest folder at or above one, up to a root, that has any; links are not followed.

    A repository ends the search: what lies above its .git is the license of something else.
    """
    while folder == root or root in folder.parents:
        names = sorted(path for path in folder.iterdir() if is_license_file(path.name))
        if files := [path for path in names if path.is_file() and not path.is_symlink()]:
            return files
        if (folder / ".git").exists():
            break
        folder = folder.parent
    return []
