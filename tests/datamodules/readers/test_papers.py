r"""LaTeX and JATS: one text a paper, from the first section to the bibliography."""

import gzip
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from datamodules.readers import ArxivSources, JatsArticles
from datamodules.readers.arxiv import arxiv_number
from datamodules.readers.formats import latex
from datamodules.readers.formats.latex import definitions, expand, paper
from datamodules.readers.formats.markup.latex_source import strip_comments
from tests.helpers.reading import ARTICLE, outcomes, read_all, tar

MAIN = r"""\documentclass{article}
\usepackage{own}
\newcommand{\R}{\mathbb{R}}
\newcommand{\norm}[1]{\lVert #1 \rVert}
\def\eps{\varepsilon}
\begin{document}
\title{T} % a title
\input{sections/intro}
% \input{secret}
\include{method}
\bibliography{refs}
After.
\end{document}
"""
INTRO = "\\section{Introduction}\nLet $x \\in \\R$ and $\\norm{x} < \\eps$, at 50\\% or so.\n%gone\n"
METHOD = "\\section{Method}\nWe use \\own{}.\n"


FILES = {
    "main.tex": MAIN.encode(),
    "sections/intro.tex": INTRO.encode(),
    "method.tex": METHOD.encode(),
    "own.sty": rb"\newcommand{\own}{our own way}",
}
EXPECTED = (
    "\\section{Introduction}\nLet $x \\in \\mathbb{R}$ and $\\lVert x \\rVert < \\varepsilon$, at 50\\% or so.\n\n"
    "\\section{Method}\nWe use our own way{}."
)


def test_archives_and_folders_give_the_same_paper(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/2301.00001.tar.gz").write_bytes(gzip.compress(tar(FILES)))
    bulk = {
        "2301/2301.00002.gz": gzip.compress(tar(FILES)),
        "2301/2301.00003.gz": gzip.compress(MAIN.replace("\\input{sections/intro}", INTRO).encode()),
        "2301/2301.00004.pdf": b"%PDF",
        "2301/2301.00005.gz": gzip.compress(tar(FILES))[:200],
    }
    (tmp_path / "b").mkdir()
    (tmp_path / "b/arXiv_src_2301_001.tar").write_bytes(tar(bulk))
    for name, content in FILES.items():
        path = tmp_path / "c" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    documents = read_all(ArxivSources([str(tmp_path)]))
    texts = [document.text for document in documents]
    assert texts[0] == texts[1] == texts[5] == EXPECTED
    assert (texts[2] or "").startswith("\\section{Introduction}\nLet $x \\in \\mathbb{R}$")
    assert [document.reason for document in documents] == [None, None, None, "no_latex", "damaged_file", None]
    assert (documents[0].url, documents[0].date) == ("https://arxiv.org/abs/2301.00001", "2023-01")
    assert documents[3].url == "https://arxiv.org/abs/2301.00004"


def test_nothing_outside_the_folder_is_included(tmp_path: Path) -> None:
    (tmp_path / "secret.tex").write_text("SECRET")
    (tmp_path / "paper").mkdir()
    (tmp_path / "paper/link.tex").symlink_to(tmp_path / "secret.tex")
    source = (
        "\\documentclass{a}\\section{S}x\\input{../secret}\\input{"
        + str(tmp_path / "secret")
        + "}\\input{link}\\input{main}"
    )
    (tmp_path / "paper/main.tex").write_text(source)
    (text,) = outcomes(ArxivSources([str(tmp_path / "paper")]))
    assert "SECRET" not in text
    assert text.startswith("\\section{S}x")


def naive_strip(source: str) -> str:
    """Character by character: what follows an unescaped % goes, and a line that held nothing else."""
    kept = []
    for line in source.replace("\r\n", "\n").split("\n"):
        out, escaped, commented = "", False, False
        for character in line:
            if character == "%" and not escaped:
                commented = True
                break
            escaped = character == "\\" and not escaped
            out += character
        if not commented:
            kept.append(line)
        elif out.strip():
            kept.append(out.rstrip())
    return "\n".join(kept)


@settings(max_examples=300, deadline=None)
@given(source=st.text("a \\%\n{}", max_size=60))
@example(source="a\\\\% b\\% c\n%\n x % y")
def test_comments_as_a_naive_reading_has_them(source: str) -> None:
    stripped = strip_comments(source)
    assert stripped == naive_strip(source)
    assert strip_comments(stripped) == stripped


def test_verbatim_text_has_no_comments() -> None:
    source = "\\begin{verbatim}\n100% sure\n\\end{verbatim}\nx % y"
    assert strip_comments(source) == "\\begin{verbatim}\n100% sure\n\\end{verbatim}\nx"


@settings(max_examples=100, deadline=None)
@given(source=st.text("\\ab{}#12[] \n", max_size=80))
def test_any_source_expands_within_bounds(source: str) -> None:
    macros, rest = definitions("\\newcommand{\\a}[1]{#1#1\\b}\\def\\b{{a}}" + source)
    assert len(expand(rest, macros)) <= 4**5 * (len(rest) + 10_000)


def test_macros_that_double_are_not_followed() -> None:
    source = "".join(f"\\def\\{chr(98 + i)}{{\\{chr(97 + i) * 1}\\{chr(97 + i)}}}" for i in range(20))
    macros, rest = definitions("\\def\\a{" + "lol" * 1000 + "}" + source + "\\section{x}" + "\\u" * 50)
    assert len(expand(rest, macros)) < 200_000


def test_expansion_is_that_of_tex_for_simple_macros() -> None:
    macros, rest = definitions(r"\newcommand{\p}[2]{(#2,#1)}\newcommand*\q{\alpha}\p{a}{\p{b}{c}} \q x \qq \p z")
    assert expand(rest, macros) == r"((c,b),a) \alpha x \qq \p z"


SIZE = 400_000


@pytest.mark.parametrize(
    "source",
    [
        "\\newcommand\\a" + " " * SIZE + "x", "\\def\\a" + "\n" * SIZE + "x", "\\section" + " " * SIZE,
        "\\section[" * (SIZE // 9), "\\section{A}" + " \t" * (SIZE // 2) + "x", "\\section{A}" + " \n" * (SIZE // 2),
        "\\def\\a{" * (SIZE // 7), "\\section{A}" + "\\def\\a{" * (SIZE // 7), "\\usepackage" + " " * SIZE,
        "\\usepackage[" * (SIZE // 12), "\\%" * (SIZE // 2), "\\" * SIZE, "\\\\%" * (SIZE // 3),
        "\\begin{verbatim}" * (SIZE // 16), "\\newcommand{\\a}[1]{#1}\\section{A}" + "\\a{" * (SIZE // 3),
        "".join(f"\\def\\{'a' * (i % 97)}{chr(97 + i % 26)}{{x}}" for i in range(SIZE // 60)), "{" * SIZE, "}" * SIZE,
        "\\input" + " " * SIZE, "\\section{A}" + "\\" * SIZE, "\\newcommand" + "{" * SIZE,
    ],
    ids=lambda source: ascii(source[:24]),
)  # fmt: skip
def test_long_runs_of_anything_take_no_time(source: str) -> None:
    start = time.process_time()
    paper("m", {"m": source}.get, 2 * SIZE)
    assert time.process_time() - start < 2


@settings(max_examples=300, deadline=None)
@given(before=st.text("ab\\{}\n", max_size=20), after=st.text("ab\\{}\n", max_size=40))
def test_groups_end_where_counting_braces_ends(before: str, after: str) -> None:
    # Braces looked at follow a name, never a backslash.
    source = before.rstrip("\\") + "a{" + after
    start = len(before.rstrip("\\")) + 1
    level, position, expected = 0, start, -1
    while position < len(source) and expected < 0:
        if source[position] == "\\":
            position += 1
        else:
            level += {"{": 1, "}": -1}.get(source[position], 0)
            expected = position + 1 if not level else -1
        position += 1
    assert latex._Groups(source).end(start) == expected


def test_a_paper_without_a_section_is_none() -> None:
    assert paper("m", {"m": "\\documentclass{a}text"}.get, 1000) is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("src/2301.12345v2.tar.gz", ("2301.12345v2", "2023-01")),
        ("hep-th9901001.gz", ("hep-th/9901001", "1999-01")),
        ("math/0503066", ("math/0503066", "2005-03")),
        ("paper.tex", (None, None)),
    ],
)
def test_numbers(name: str, expected: tuple[str | None, str | None]) -> None:
    assert arxiv_number(name) == expected


def test_jats(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(ARTICLE)
    (tmp_path / "b.tar.gz").write_bytes(gzip.compress(tar({"x/a.nxml": ARTICLE.encode(), "x/b.jpg": b""})))
    for document in read_all(JatsArticles([str(tmp_path)])):
        assert document.text == "On things\n\nAbstract\n\nShort α.\n\nResults\n\nOne 1.\n\nx^2"
        assert (document.url, document.license, document.date) == ("https://doi.org/10.1/x", "CC-BY-4.0", "2020-02-03")


def test_hostile_xml_has_reasons(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("SECRET")
    laughs = "".join(f'<!ENTITY a{i + 1} "{f"&a{i};" * 10}">' for i in range(10))
    external = f'<!DOCTYPE article [<!ENTITY x SYSTEM "file://{tmp_path}/secret">]><article><body>&x;</body></article>'
    cases = {
        "a": (
            f'<!DOCTYPE article [<!ENTITY a0 "lol">{laughs}]><article><body>&a10;</body></article>',
            "<xml_entities>",
        ),
        "b": (external, "<xml_entities>"),
        "c": ("<a>" * 1_000_000, "<too_deep>"),
        "d": (ARTICLE[:300], "<invalid_xml>"),
        "e": ("", "<invalid_xml>"),
        "f": ("<article><body>\x00</body></article>", "<invalid_xml>"),
        "g": ("<html/>", "<no_article>"),
        "h": ("<article><front/></article>", "<no_body>"),
    }
    for name, (content, _) in cases.items():
        (tmp_path / f"{name}.xml").write_text(content)
    assert outcomes(JatsArticles([str(tmp_path)])) == [expected for _, expected in cases.values()]
