"""License templates: the wording of standard licenses, by which their texts are recognized.

Short licenses are written out as patterns of words. Of the long ones only the number of words and a hash are kept, in
fifty characters each instead of fifty thousand; what such a hash refuses cannot be shown word by word.
"""

import re

SPELLINGS = (("licenc", "licens"), ("dgement", "dgment"))
"""British and American."""
_DROPPED = re.compile(r"\w|\d\d|[ivx]{2,5}|https?|www")
"""List numbers in all their forms, single letters (also of "party's"), and what differs between addresses."""
_WORD = re.compile(r"[^\W_]+(?:\.\d+)*")


def license_words(text: str) -> list[tuple[str, int, int]]:
    """Words by which licenses are compared, in lower case, with the characters where each begins and ends.

    Punctuation, marks of comments and of Markdown, and the numbers of lists are left out, as SPDX's guidelines for
    matching have it.
    """
    found = []
    for match in _WORD.finditer(text):
        word = match[0].lower()
        if not _DROPPED.fullmatch(word):
            for british, american in SPELLINGS:
                word = word.replace(british, american)
            found.append((word, *match.span()))
    return found


_NAME = r"((?:\S+ ){1,16}?)"
"""A holder or an organization, which a license's text names at some places: a group, for its words are looked at."""
_AS_IS = (
    "is provided as is without warranty of any kind express or implied including but not limited to the warranties of"
)
_MIT_GRANT = (
    "permission is hereby granted free of charge to any person obtaining copy of this software and associated "
    "documentation files? (?:the )?software to deal in the software without restriction including without "
    "limitation the rights to use copy modify merge publish distribute (?:sublicense|sub license) and or sell "
    "copies of the software and to permit persons to whom the software is furnished to do so "
)
_MIT_NOTICE = "subject to the following conditions the above copyright notice and this permission notice "
_MIT_DISCLAIMER = (
    f"the software {_AS_IS} merchantability fitness for particular purpose and non ?infringement in no event "
    f"shall the {_NAME}be liable for any claim damages or other liability whether in an action of contract tort "
    "or otherwise arising from out of or in connection with the software or the use or other dealings in the "
    "software"
)
_BSD_GRANT = (
    "redistribution and use (?:of this software )?in source and binary forms with or without modification are permitted"
)
_BSD_TERMS = (
    " provided that the following conditions are met redistributions? of source code must retain the above "
    "copyright notice this list of conditions and the following disclaimer redistributions? in binary form must "
    "reproduce the above copyright notice this list of conditions and the following disclaimer in the "
    "documentation and or other materials provided with the distribution "
)
_BSD_NAMES = (
    f"(?:neither the names? (?:of )?{_NAME}(?:nor|or) (?:the names?|those) of (?:its|any|the|their|other) (?:\\S+ "
    f")?contributors may be|the names? of {_NAME}may not be) used to endorse or promote products derived from "
    "this software without specific prior written permission "
)
_BSD_ADVERTISING = (
    "all advertising materials mentioning features or use of this software must display the following "
    f"acknowledgment this product includes software developed by {_NAME}"
)
_BSD_DISCLAIMER = (
    f"this software is provided by {_NAME}as is and any express or implied warranties including but not limited "
    "to the implied warranties of merchantability and fitness for particular purpose are disclaimed in no event "
    f"(?:shall|will) {_NAME}be liable for any direct indirect incidental special exemplary or consequential "
    "damages including but not limited to procurement of substitute goods or services loss of use data or "
    "profits or business interruption however caused and on any theory of liability whether in contract strict "
    "liability or tort including negligence or otherwise arising in any way out of the use of this software even "
    "if advised of the possibility of such damages?"
)
_ISC_GRANT = (
    "permission to use copy modify (?:and or|and|or) distribute this software (?:and its documentation )?for any "
    "purpose with or without fee is hereby granted "
)
_ISC_DISCLAIMER = (
    f"the software is provided as is and {_NAME}disclaims? all warranties with regard to this software including "
    f"all implied warranties of merchantability and fitness in no event shall {_NAME}be liable for any special "
    "direct indirect or consequential damages or any damages whatsoever resulting from loss of use data or "
    "profits whether in an action of contract negligence or other tortious action arising out of or in "
    "connection with the use or performance of this software"
)
SHORT_TEXTS: tuple[tuple[str, str], ...] = (
    (
        "MIT",
        f"{_MIT_GRANT}{_MIT_NOTICE}(?:including the next paragraph )?shall be included in all copies or "
        f"substantial portions of the software {_MIT_DISCLAIMER}",
    ),
    ("MIT-0", f"{_MIT_GRANT}{_MIT_DISCLAIMER}"),
    (
        "MIT-feh",
        f"{_MIT_GRANT}{_MIT_NOTICE}shall be included in all copies of the software and its documentation and "
        "acknowledgment shall be given in the documentation and software packages that this software was used "
        f"{_MIT_DISCLAIMER}",
    ),
    ("BSD-2-Clause", f"{_BSD_GRANT}{_BSD_TERMS}{_BSD_DISCLAIMER}"),
    ("BSD-3-Clause", f"{_BSD_GRANT}{_BSD_TERMS}{_BSD_NAMES}{_BSD_DISCLAIMER}"),
    ("BSD-4-Clause", f"{_BSD_GRANT}{_BSD_TERMS}{_BSD_ADVERTISING}{_BSD_NAMES}{_BSD_DISCLAIMER}"),
    (
        "BSD-3-Clause-Clear",
        f"{_BSD_GRANT} subject to the limitations in the disclaimer below{_BSD_TERMS}{_BSD_NAMES}no express or "
        f"implied licenses to any party patent rights are granted by this license {_BSD_DISCLAIMER}",
    ),
    (
        "BSD-3-Clause-No-Nuclear-License-2014",
        f"{_BSD_GRANT}{_BSD_TERMS}{_BSD_NAMES}{_BSD_DISCLAIMER} you acknowledge that this software is not "
        "designed licensed or intended for use in the design construction operation or maintenance of any "
        "nuclear facility",
    ),
    (
        "ISC",
        f"{_ISC_GRANT}provided that the above copyright notice and this permission notice appear in all copies "
        f"{_ISC_DISCLAIMER}",
    ),
    ("0BSD", f"{_ISC_GRANT}{_ISC_DISCLAIMER}"),
    (
        "Unlicense",
        "this is free and unencumbered software released into the public domain anyone is free to copy modify "
        "publish use compile sell or distribute this software either in source code form or as compiled binary "
        "for any purpose commercial or non commercial and by any means in jurisdictions that recognize copyright "
        "laws the author or authors of this software dedicate any and all copyright interest in the software to "
        "the public domain we make this dedication for the benefit of the public at large and to the detriment "
        "of our heirs and successors we intend this dedication to be an overt act of relinquishment in "
        f"perpetuity of all present and future rights to this software under copyright law {_MIT_DISCLAIMER}(?: "
        "for more information please refer to (?:<)?unlicense org)?",
    ),
    (
        "Zlib",
        "this software is provided as is without any express or implied warranty in no event will the authors? "
        "be held liable for any damages arising from the use of this software permission is granted to anyone to "
        "use this software for any purpose including commercial applications and to alter it and redistribute it "
        "freely subject to the following restrictions the origin of this software must not be misrepresented you "
        "must not claim that you wrote the original software if you use this software in product an "
        "acknowledgment in the product documentation would be appreciated but is not required altered source "
        "versions must be plainly marked as such and must not be misrepresented as being the original software "
        "this notice may not be removed or altered from any source distribution",
    ),
    (
        "BSL-1.0",
        "permission is hereby granted free of charge to any person or organization obtaining copy of the "
        "software and accompanying documentation covered by this license the software to use reproduce display "
        "distribute execute and transmit the software and to prepare derivative works of the software and to "
        "permit third parties to whom the software is furnished to do so all subject to the following the "
        "copyright notices in the software and this entire statement including the above license grant this "
        "restriction and the following disclaimer must be included in all copies of the software in whole or in "
        "part and all derivative works of the software unless such copies or derivative works are solely in the "
        f"form of machine executable object code generated by source language processor the software {_AS_IS} "
        "merchantability fitness for particular purpose title and non ?infringement in no event shall the "
        "copyright holders or anyone distributing the software be liable for any damages or other liability "
        "whether in contract tort or otherwise arising from out of or in connection with the software or the use "
        "or other dealings in the software",
    ),
    *(
        (
            name,
            f"licensed under the {title} the license you may not use (?:this|these) files? except in compliance "
            f"with the license you may obtain copy of the license at {address} (?:txt )?unless required by "
            "applicable law or agreed to in writing software (?:hardware and materials )?distributed under "
            "(?:the|this) license is distributed on an as is basis without warranties or conditions of any kind "
            "either express or implied see the license for the specific language governing permissions and "
            "limitations under the license",
        )
        for name, title, address in (
            ("Apache-2.0", "apache license version 2.0", "apache org licenses license 2.0"),
            ("ECL-2.0", "educational community license version 2.0", "(?:osedu|opensource) org licenses ecl 2.0"),
            ("SHL-0.51", "solderpad hardware license version 0.51", "solderpad org licenses shl 0.51"),
        )
    ),
    (
        "MPL-2.0",
        "this source code form is subject to the terms of the mozilla public license 2.0 if copy of the mpl was "
        "not distributed with this file you can obtain one at mozilla org mpl 2.0",
    ),
)
"""(identifier, pattern of its words). What one of them allows inside of itself are names alone."""

LONG_TEXTS: tuple[tuple[str | None, str, int, int], ...] = (
    ("Apache-2.0", "definitions license shall mean the terms", 1365, 0xd1c596ec125e5513),
    (None, "appendix how to apply the apache", 83, 0x506824fbb4a93125),
    ("Artistic-2.0", "preamble this license establishes the terms", 1306, 0xc478f630e9a8220e),
    ("ECL-2.0", "definitions license shall mean the terms", 1435, 0xf05a2727f166e28f),
    (None, "the educational community license version 2.0", 51, 0x6ee9cffb6dbb3f4f),
    (None, "appendix how to apply the educational", 85, 0x63c6d171ed18a65f),
    ("SHL-0.51", "definitions license shall mean the terms", 1441, 0xc989a463f438bbcb),
    (None, "this license is based closely on", 102, 0xd91f1c426084b499),
    (None, "appendix how to apply this license", 81, 0x0b1b9cbab4770fc1),
    ("CC0-1.0", "statement of purpose the laws of", 952, 0x1b41a87a15124da7),
    (None, "creative commons corporation is not law", 71, 0xf2248076403dbf17),
    ("GPL-2.0", "preamble the licenses for most software", 2379, 0x9716582835a94466),
    (None, "how to apply these terms to", 220, 0x6795f382c4aafca9),
    (None, "also add information on how to", 173, 0x8b0292f151938a1b),
    ("LGPL-2.0", "preamble the licenses for most software", 3654, 0xfdcc206b992bc0f8),
    (None, "how to apply these terms to", 236, 0x8895621341c83b54),
    (None, "also add information on how to", 75, 0x4df6d597d4d3f1dc),
    ("LGPL-2.1", "preamble the licenses for most software", 3828, 0x4f4fff3d7e4aef2c),
    (None, "how to apply these terms to", 237, 0x4b3c318076c9cda3),
    ("GPL-3.0", "preamble the gnu general public license", 4957, 0x290dfa2b816ecaca),
    (None, "how to apply these terms to", 360, 0x846f57d633bf2364),
    (None, "the gnu general public license does", 57, 0xa158f73185662efa),
    ("AGPL-3.0", "preamble the gnu affero general public", 4911, 0x818bd898b063d631),
    (None, "how to apply these terms to", 347, 0x228dc036e25d0d2b),
    ("LGPL-3.0", "this version of the gnu lesser", 1129, 0x5a3fbc78f3035a03),
    ("MPL-2.0", "definitions 1.1 contributor means each individual", 2270, 0xafbee5bad9581198),
    ("EPL-1.0", "the accompanying program is provided under", 1634, 0xb443b4fd3e1950e7),
    ("EPL-2.0", "the accompanying program is provided under", 2043, 0x6f4348545e57b827),
    ("EUPL-1.2", "this european union public license the", 2137, 0x35862babbbb0ccc5),
    ("CC-BY-4.0", "section definitions adapted material means material", 1830, 0xa0dcc5e46f1548d1),
    ("CC-BY-SA-4.0", "section definitions adapted material means material", 2016, 0x3af9d5fe329ed722),
    ("CC-BY-NC-4.0", "section definitions adapted material means material", 1911, 0x9e12584efc736ac8),
    ("CC-BY-NC-SA-4.0", "section definitions adapted material means material", 2100, 0xacca016f93e66b3f),
    ("CC-BY-ND-4.0", "section definitions adapted material means material", 1797, 0xcccbe4adea1c1049),
    ("CC-BY-NC-ND-4.0", "section definitions adapted material means material", 1879, 0xcd122305397f5226),
    ("PSF-2.0", "this license agreement is between the", 361, 0xaa535a207da2ef6f),
    ("BUSL-1.1", "terms the licensor hereby grants you", 511, 0x43562c9bcfa80901),
    ("CC-BY-4.0", "creative commons corporation creative commons is", 2441, 0x90deb5eec1ef9b77),
    ("CC-BY-SA-4.0", "creative commons corporation creative commons is", 2629, 0x181b3dc168270be5),
    ("CC-BY-NC-4.0", "creative commons corporation creative commons is", 2524, 0xea0100d0aa6bf620),
    ("CC-BY-NC-SA-4.0", "creative commons corporation creative commons is", 2715, 0xc5cbc16da2ef6680),
    ("CC-BY-ND-4.0", "creative commons corporation creative commons is", 2410, 0x6d0d77b75084f236),
    ("CC-BY-NC-ND-4.0", "creative commons corporation creative commons is", 2494, 0x6f4467803074f9bf),
    (None, "how to apply these terms to", 237, 0xf594dc18a4c0eb42),
    ("GPL-2.0", "preamble the licenses for most software", 2383, 0x33a9cdb4d675f362),
    (None, "how to apply these terms to", 220, 0x4aad6d595776c018),
    (None, "this general public license does not", 52, 0xabc6752f30a0b7a9),
    (None, "how to apply these terms to", 236, 0x8c82ebc63398414e),
)  # fmt: skip
"""(identifier, first words, number of words, xxh3 of them with a blank between). Without identifier: how to
apply one."""

_GNU = (
    "gnu (?:{}) ?(?:general )?public license(?: version(?: 2.1)?)?(?: (?:june|february|november) (?:1991|1999|2007))?"
)
TITLES: tuple[tuple[tuple[str, ...], str], ...] = (
    (("MIT", "MIT-0", "MIT-feh"), "(?:the )?(?:expat )?mit license(?: mit| expat)?|mit(?: no "
        "attribution)?|opensource org licenses mit(?: license)?(?: php| html)?"),
    (("BSD-2-Clause", "BSD-3-Clause", "BSD-4-Clause"), "(?:the )?(?:new |modified |simplified |revised |original "
        ")?(?:clause )?bsd(?: clause)?(?: new or revised| original or old| simplified)?(?: license)?(?: clause| "
        "revised)?|opensource org licenses bsd(?: clause)?(?: license)?(?: php)?"),
    (("BSD-3-Clause-No-Nuclear-License-2014",), "use is subject to license terms"),
    (("SHL-0.51",), "copyright and related rights are"),
    (("BSD-3-Clause-Clear",), "(?:the )?clear bsd license"),
    (("ISC",), "(?:the )?isc license(?: isc)?|isc"),
    (("0BSD",), "(?:bsd zero clause license|zero clause bsd license|0bsd)"),
    (("Apache-2.0", "ECL-2.0", "SHL-0.51"), "(?:the )?apache (?:software )?license(?: version)?(?: v?2.0)?(?: "
        "january 2004)?(?: apache org licenses(?: license 2.0(?: txt| html)?)?)?|apache 2.0|terms and conditions "
        "for use reproduction and distribution|end of terms and conditions"),
    (("ECL-2.0",), "educational community license version 2.0 april 2007|osedu org licenses"),
    (("SHL-0.51",), "solderpad hardware license version 0.51"),
    (("Artistic-2.0",), "the artistic license 2.0"),
    (("CC0-1.0",), "creative commons legal code|cc0 1.0 universal"),
    (("Unlicense",), "(?:the )?unlicense"),
    (("Zlib",), "(?:the )?zlib license"),
    (("BSL-1.0",), "boost software license version 1.0 august 17th 2003"),
    (("MPL-2.0",), "mozilla public license(?: version)? 2.0"),
    (("EPL-1.0",), "eclipse public license 1.0"),
    (("EPL-2.0",), "eclipse public license 2.0"),
    (("EUPL-1.2",), "european union public license 1.2 eupl the european union 2007 2016"),
    (("PSF-2.0",), "(?:psf|python software foundation) license(?: agreement for python .{0,20}| version)?"),
    (("BUSL-1.1",), "business source license 1.1|license text|business source license is trademark of mariadb "
        "corporation ab"),
    *(
        ((f"CC-{kind}-4.0",), f"(?:creative commons )?attribution {words}4.0 international(?: public license)?")
        for kind, words in {
            "BY": "", "BY-SA": "share ?alike ", "BY-NC": "non ?commercial ", "BY-NC-SA": "non ?commercial share "
                "?alike ",
            "BY-ND": "no ?derivatives ", "BY-NC-ND": "non ?commercial no ?derivatives ",
        }.items()
    ),
    (("GPL-2.0", "GPL-3.0", "LGPL-3.0"), _GNU.format("general")),
    (("LGPL-2.1", "LGPL-3.0"), _GNU.format("lesser")),
    (("LGPL-2.0",), _GNU.format("library")),
    (("AGPL-3.0",), _GNU.format("affero")),
    (
        ("GPL-2.0", "GPL-3.0", "LGPL-2.0", "LGPL-2.1", "LGPL-3.0", "AGPL-3.0", "Artistic-2.0"),
        "everyone is permitted to copy and distribute verbatim copies of this license document but changing it "
        "is not allowed|end of terms and conditions|(?:franklin st(?:reet)?|temple place)(?: suite 330)?(?: "
        "fifth floor)? boston ma 0211[01] 130[17](?: usa)?|this is the first released version of the "
        "(?:lesser|library) gpl it (?:also counts as the successor of the gnu library public license version "
        "hence the version number 2.1|is numbered because it goes with version of the ordinary gpl)|fsf org|that "
        "all there is to it|gnu org (?:philosophy|licenses) why not lgpl html",
    ),
)  # fmt: skip
"""(identifiers, pattern of their titles): no words of their own where one of these licenses is there."""
