"""Licenses: a text is a license only if every word of it is that license's."""

import importlib.metadata
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.readers.formats.licenses import (
    LICENSE_BYTES,
    PERMISSIVE_LICENSES,
    declared_license,
    is_allowed,
    license_of_folder,
    license_of_text,
)
from tests.helpers.reading import (
    APACHE_NOTICE,
    BSD_2,
    BSD_2_TERMS,
    BSD_3,
    BSD_DISCLAIMER,
    BSD_NAMES,
    ISC,
    MIT,
    MIT_TERMS,
)

APACHE = (Path(__file__).parents[4] / "LICENSE").read_text(encoding="utf-8")
NOTICE = "Copyright (c) 2020 Ada Example\n\n"
COMMONS_CLAUSE = """"Commons Clause" License Condition v1.0

The Software is provided to you by the Licensor under the License, as defined below, subject to the following condition.
Without limiting other conditions in the License, the grant of rights under the License will not include, and the
License does not grant to you, the right to Sell the Software.

"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (MIT, "MIT"),
        (
            "The MIT License (MIT)\n\n© 2015-present Zoë Müller. All rights reserved.\n\n" + MIT_TERMS,
            "MIT",
        ),
        (MIT.replace("\n", "\r\n"), "MIT"),
        ("\n".join(f" * {line}" for line in MIT.splitlines()), "MIT"),
        ("# Project\n\n" + MIT, "MIT"),
        ("SPDX-License-Identifier: MIT\n" + NOTICE + MIT_TERMS, "MIT"),
        ("This project is licensed under the MIT license.\n\n" + NOTICE + MIT_TERMS, "MIT"),
        (BSD_2, "BSD-2-Clause"),
        (BSD_3, "BSD-3-Clause"),
        ("BSD 3-Clause License\n\n" + BSD_3.replace("1.", "*").replace("2.", "*").replace("3.", "*"), "BSD-3-Clause"),
        (BSD_3.replace("the copyright holder nor", "Example, Inc. nor"), "BSD-3-Clause"),
        (ISC, "ISC"),
        (APACHE, "Apache-2.0"),
        (APACHE[: APACHE.index("APPENDIX")], "Apache-2.0"),
        (APACHE_NOTICE, "Apache-2.0"),
        (MIT + "\n" + APACHE, "Apache-2.0 AND MIT"),
    ],
)
def test_a_license_is_known_by_all_its_words(text: str, expected: str) -> None:
    assert license_of_text(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("MIT License\n\nPermission is hereby granted, free of charge, to any person", id="cut short"),
        pytest.param(
            MIT.replace("THE SOFTWARE IS", "The Software shall be used for Good, not Evil.\n\nTHE SOFTWARE IS"),
            id="JSON",
        ),
        pytest.param(COMMONS_CLAUSE + APACHE, id="Commons Clause before"),
        pytest.param(MIT + COMMONS_CLAUSE, id="Commons Clause behind"),
        pytest.param(
            MIT + "\nThe Software may not be used to train machine learning models.\n", id="no machine learning"
        ),
        pytest.param(MIT.replace("to deal\nin", "to deal for research\nin"), id="for research"),
        pytest.param(MIT.replace("without limitation the", "without limitation, if ethical, the"), id="Hippocratic"),
        pytest.param(
            "Example, Inc. All rights reserved. You may not copy this.\n\nPart is under:\n" + MIT, id="proprietary"
        ),
        pytest.param("This library is under the GNU AGPL; parts of it are under:\n\n" + MIT, id="AGPL with parts"),
        pytest.param("Parts of this software are licensed under the MIT license.\n\n" + MIT, id="parts"),
        pytest.param(
            BSD_2.replace("are permitted", "for academic, non-commercial purposes only are permitted"), id="academic"
        ),
        pytest.param(
            BSD_3.replace("of the copyright holder nor", "of commercial users may use this, nor"), id="hidden in a name"
        ),
        pytest.param(MIT.replace("Ada Example", "Ada Example. Commercial use is forbidden"), id="hidden in a notice"),
        pytest.param(MIT.replace("Ada Example", "Ada Example\nNot for commercial use"), id="under a notice"),
        pytest.param(
            MIT.replace("Ada Example", "Ada Example. data mining and model building are off limits"), id="lower case"
        ),
        pytest.param("\n".join((BSD_2_TERMS, BSD_NAMES)), id="without its end"),
        pytest.param(MIT.replace("Software without restriction", "Software with restrictions"), id="one word"),
        pytest.param(APACHE.replace("irrevocable", "revocable", 1), id="one word of a long one"),
        pytest.param("GNU GENERAL PUBLIC LICENSE\nVersion 3, 29 June 2007\n", id="a title"),
    ],
)
def test_what_says_anything_else_is_no_license(text: str) -> None:
    assert license_of_text(text) is None


@given(st.sampled_from([MIT, BSD_3, ISC, APACHE_NOTICE]), st.data())
def test_a_condition_is_seen_wherever_it_is_put(text: str, data: st.DataObject) -> None:
    words = text.split(" ")
    place = data.draw(st.integers(0, len(words)))
    condition = data.draw(st.sampled_from(["only for research", "but not for training", "unless you must pay a fee"]))
    assert license_of_text(" ".join([*words[:place], condition, *words[place:]])) is None


@given(st.text(max_size=300))
def test_any_text_is_looked_at(text: str) -> None:
    assert license_of_text(text) is None
    license_of_text(text + MIT + text)


def test_hostile_texts_take_no_longer_than_their_length() -> None:
    parts = (
        "permission is hereby granted free of charge to any person ",
        "name of ",
        "Copyright (c)\n",
        "neither the name ",
    )
    for part in parts:
        began = time.process_time()
        license_of_text(part * (LICENSE_BYTES // len(part)) + MIT)
        assert time.process_time() - began < 5, part


@pytest.mark.parametrize(
    ("distribution", "expected"),
    [
        ("requests", "Apache-2.0"), ("pytest", "MIT"), ("lightning", "Apache-2.0"), ("python-stdnum", "LGPL-2.1"),
        ("pathspec", "MPL-2.0"), ("jinja2", "BSD-3-Clause"), ("numpy", "BSD-3-Clause"),
    ],
)  # fmt: skip
def test_real_licenses_are_known(distribution: str, expected: str) -> None:
    try:
        files = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{distribution} is not installed")
    texts = [
        Path(str(file.locate())).read_text() for file in files if file.name in ("LICENSE", "LICENSE.txt", "COPYING")
    ]
    assert expected in [license_of_text(text) for text in texts]


def test_a_license_file_too_long_to_be_read_whole_is_none(tmp_path: Path) -> None:
    (tmp_path / "LICENSE").write_text(MIT + "\n" * LICENSE_BYTES + "Not for commercial use.")
    assert license_of_folder(tmp_path, tmp_path) is None


def test_licenses_of_a_folder_all_hold(tmp_path: Path) -> None:
    (tmp_path / "LICENSE-MIT").write_text(MIT)
    (tmp_path / "LICENSE-APACHE").write_text(MIT + APACHE)
    assert license_of_folder(tmp_path, tmp_path) == "Apache-2.0 AND MIT"


def test_permissive_licenses_have_a_template() -> None:
    clear = (
        NOTICE
        + BSD_2_TERMS.replace("are permitted", "are permitted (subject to the limitations in the disclaimer below)")
        + BSD_NAMES
        + "NO EXPRESS OR IMPLIED LICENSES TO ANY PARTY'S PATENT RIGHTS ARE GRANTED BY THIS LICENSE. "
        + BSD_DISCLAIMER
    )
    assert license_of_text(clear) == "BSD-3-Clause-Clear"
    nuclear = BSD_3 + (
        "\nYou acknowledge that this software is not designed, licensed or intended for use in the design,\n"
        "construction, operation or maintenance of any nuclear facility.\n"
    )
    assert license_of_text(nuclear) == "BSD-3-Clause-No-Nuclear-License-2014"
    assert {"BSD-3-Clause-Clear", "BSD-3-Clause-No-Nuclear-License-2014"} <= set(PERMISSIVE_LICENSES)


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True), ("mit", True), ("GPL-3.0-only", False), ("GPL-2.0 OR MIT", True), ("GPL-2.0 AND MIT", False),
        ("Apache-2.0 WITH LLVM-exception", True), ("(MIT OR Apache-2.0) AND ISC", True), ("(MIT OR GPL-2.0)", False),
        ("", False), ("MIT WITH Commons-Clause", False), ("MIT OR Apache-2.0 WITH Commons-Clause", True),
        ("Apache-2.0 with llvm-exception AND MIT", True), ("(MIT WITH Commons-Clause) AND ISC", False),
    ],
)  # fmt: skip
def test_expressions(expression: str, allowed: bool) -> None:
    assert is_allowed(expression, ("MIT", "Apache-2.0", "ISC")) == allowed


def test_headers() -> None:
    assert declared_license("/* SPDX-License-Identifier: (MIT OR Apache-2.0) */\nint x;") == "(MIT OR Apache-2.0)"
    assert declared_license("<!-- SPDX-License-Identifier: MIT -->") == "MIT"
    assert declared_license("x = 1") is None
    assert declared_license("x = 1\n\t* Copyright (c) 2020 Jane Doe. SPDX-License-Identifier: ISC") == "ISC"
    assert declared_license("dnl SPDX-License-Identifier: MIT\n") == "MIT"


def test_an_identifier_that_is_denied_gives_no_license() -> None:
    for line in ("# Not under SPDX-License-Identifier: MIT", "// except lib.c, SPDX-License-Identifier: MIT"):
        assert declared_license(line) == "NOASSERTION"
        both = f"# SPDX-License-Identifier: MIT\n{line}\n"
        assert not is_allowed(str(declared_license(both)), PERMISSIVE_LICENSES)


def test_every_identifier_of_a_header_holds() -> None:
    header = "# SPDX-License-Identifier: MIT\n# SPDX-License-Identifier: GPL-2.0-only\n"
    assert declared_license(header) == "MIT AND GPL-2.0-only"
    assert not is_allowed(str(declared_license(header)), PERMISSIVE_LICENSES)
    assert declared_license("# SPDX-License-Identifier: MIT\n" * 2) == "MIT"
    either = "// SPDX-License-Identifier: MIT OR GPL-2.0\n// SPDX-License-Identifier: ISC\n"
    assert declared_license(either) == "(MIT OR GPL-2.0) AND ISC"
    assert not is_allowed("(MIT OR GPL-2.0) AND ISC", PERMISSIVE_LICENSES)
