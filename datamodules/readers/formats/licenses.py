"""License detection: SPDX identifiers in headers, and the usual license texts by phrases that only they have.

A list of phrases knows the thirty licenses that nearly all repositories are under and nothing else; what it does not
know counts as no permission.
"""

import re
from functools import lru_cache
from pathlib import Path

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
_TEXTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("AGPL-3.0", ("gnu affero general public license", "version 3")),
    ("LGPL-3.0", ("gnu lesser general public license", "version 3")),
    ("LGPL-2.1", ("gnu lesser general public license", "version 2.1")),
    ("LGPL-2.0", ("gnu library general public license",)),
    ("GPL-3.0", ("gnu general public license", "version 3")),
    ("GPL-2.0", ("gnu general public license", "version 2")),
    ("MPL-2.0", ("mozilla public license", "2.0")),
    ("EPL-2.0", ("eclipse public license - v 2.0",)),
    ("EPL-1.0", ("eclipse public license - v 1.0",)),
    ("EUPL-1.2", ("european union public licen", "1.2")),
    ("ECL-2.0", ("educational community license, version 2.0",)),
    ("SHL-0.51", ("solderpad hardware license", "0.51")),
    ("BUSL-1.1", ("business source license 1.1",)),
    ("Apache-2.0", ("apache license", "version 2.0")),
    ("Artistic-2.0", ("the artistic license 2.0",)),
    ("CC-BY-NC-SA-4.0", ("attribution-noncommercial-sharealike 4.0",)),
    ("CC-BY-NC-4.0", ("attribution-noncommercial 4.0",)),
    ("CC-BY-SA-4.0", ("attribution-sharealike 4.0",)),
    ("CC-BY-4.0", ("attribution 4.0 international",)),
    ("CC0-1.0", ("cc0 1.0 universal",)),
    ("Unlicense", ("this is free and unencumbered software released into the public domain",)),
    ("PSF-2.0", ("python software foundation license",)),
    ("BSL-1.0", ("boost software license - version 1.0",)),
    ("Zlib", ("altered source versions must be plainly marked as such",)),
    ("BSD-3-Clause-No-Nuclear-License-2014", ("redistribution and use in source and binary forms", "nuclear facility")),
    ("BSD-3-Clause-Clear", ("redistribution and use in source and binary forms", "no express or implied licenses")),
    ("BSD-4-Clause", ("redistribution and use in source and binary forms", "all advertising materials mentioning")),
    ("BSD-3-Clause", ("redistribution and use in source and binary forms", "endorse or promote products")),
    ("BSD-2-Clause", ("redistribution and use in source and binary forms",)),
    ("ISC", ("permission to use, copy, modify, and/or distribute this software for any purpose",)),
    ("ISC", ("permission to use, copy, modify, and distribute this software for any purpose",)),
    ("MIT", ("permission is hereby granted, free of charge, to any person", "the above copyright notice and this")),
    ("MIT-0", ("permission is hereby granted, free of charge, to any person",)),
)  # fmt: skip
"""(identifier, phrases that must all be there); the first that fits counts, so variants come first."""


def license_of_text(text: str) -> str | None:
    """SPDX identifier of a license's text, or None where it is not known."""
    flat = " ".join(re.sub(r"[*#>=_]+", " ", text).lower().split())
    return next((name for name, phrases in _TEXTS if all(phrase in flat for phrase in phrases)), None)


def declared_license(source: str) -> str | None:
    """The SPDX expression in the header of a source file, or None."""
    found = _SPDX.search(source, 0, HEADER_CHARACTERS)
    return " ".join(found[1].split()).removesuffix("--").rstrip("( -") or None if found else None


def is_allowed(expression: str, allowed: tuple[str, ...] | list[str]) -> bool:
    """True if an SPDX expression permits use under licenses of a list: any side of OR, both sides of AND.

    Parentheses around OR within AND are read as if they stood around nothing, so that such an expression is refused
    rather than allowed: every license named in it must be on the list.
    """
    names = {name.lower() for name in allowed}
    plain = re.sub(r"\s+WITH\s+[\w.-]+", "", expression, flags=re.I)
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
            names.append(license_of_text(file.read(LICENSE_BYTES).decode("utf-8", "replace")))
    return None if not names or None in names else " AND ".join(sorted({str(name) for name in names}))


def nearest_license_files(folder: Path, root: Path) -> list[Path]:
    """License files of the nearest folder at or above one, up to a root, that has any; links are not followed."""
    while folder == root or root in folder.parents:
        names = sorted(path for path in folder.iterdir() if is_license_file(path.name))
        if files := [path for path in names if path.is_file() and not path.is_symlink()]:
            return files
        folder = folder.parent
    return []
