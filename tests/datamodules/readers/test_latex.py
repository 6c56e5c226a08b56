r"""LaTeX as it is written: encodings, comments of every kind, verbatim text, books, and archives full of figures."""

import gzip
import io
import tarfile
import time
from pathlib import Path

import pytest

from datamodules.readers import ArxivSources
from datamodules.readers.formats.latex import expand, paper
from datamodules.readers.formats.markup.latex_encodings import declared_encoding, decode_latex
from datamodules.readers.formats.markup.latex_source import strip_comments, without_false_branches
from tests.helpers.reading import outcomes, read_all, tar

HEAD = "\\documentclass{article}\n"


def text(source: str, **files: str) -> str | None:
    return paper("main.tex", {"main.tex": source, **{f"{name}.tex": file for name, file in files.items()}}.get, 10**6)


def of_archive(tmp_path: Path, files: dict[str, bytes], megabytes: float = 64) -> list[str]:
    (tmp_path / "2301.00001.tar.gz").write_bytes(gzip.compress(tar(files)))
    return outcomes(ArxivSources([str(tmp_path / "2301.00001.tar.gz")], max_document_megabytes=megabytes))


def of_folder(tmp_path: Path, files: dict[str, bytes]) -> list[str]:
    (tmp_path / "f").mkdir()
    for name, content in files.items():
        (tmp_path / "f" / name).write_bytes(content)
    return outcomes(ArxivSources([str(tmp_path / "f")]))


@pytest.mark.parametrize(
    ("options", "codec"),
    [
        ("latin1", "latin-1"), ("latin2", "iso-8859-2"), ("applemac", "mac_roman"), ("utf8,latin1", "latin-1"),
        ("cp1251", "cp1251"), ("koi8-r", "koi8-r"), (" latin9 ", "iso-8859-15"),
    ],
)  # fmt: skip
def test_the_encoding_of_the_main_file_holds_for_its_parts(tmp_path: Path, options: str, codec: str) -> None:
    words = "Привет" if codec in ("cp1251", "koi8-r") else "é"
    main = (
        f"{HEAD}\\usepackage[{options}]{{inputenc}}\n"
        f"\\begin{{document}}\\section{{A}}{words} \\input{{b}}\\end{{document}}"
    )
    files = {"main.tex": main.encode(codec), "b.tex": f"part {words}".encode(codec)}
    expected = [f"\\section{{A}}{words} part {words}"]
    assert of_archive(tmp_path, files) == expected
    assert of_folder(tmp_path, files) == expected


def test_a_part_in_no_encoding_is_dropped_alone(tmp_path: Path) -> None:
    main = f"{HEAD}\\usepackage{{own}}\\section{{A}}x \\input{{b}}\\own y"
    files = {
        "main.tex": main.encode(), "b.tex": b"caf\xe9", "own.sty": b"% \xe9\n\\newcommand{\\own}{mine}\\def\\x{\xe9}",
        "unused.tex": b"caf\xe9",
    }  # fmt: skip
    assert of_archive(tmp_path, files) == ["\\section{A}x mine y", "<invalid_utf8>"]
    # unused.tex is a file of the folder, and so a document of its own.
    assert sorted(of_folder(tmp_path, files)) == ["<invalid_utf8>", "<invalid_utf8>", "\\section{A}x mine y"]
    files["main.tex"] += b"\xe9"
    (tmp_path / "b").mkdir()
    assert of_archive(tmp_path / "b", files) == ["<invalid_utf8>"]


def test_bytes_in_comments_cost_nothing() -> None:
    assert decode_latex(b"a % caf\xe9\nb 5\\% c % d") == "a %\nb 5\\% c % d"
    assert decode_latex(b"a 5\\% caf\xe9") is None
    assert declared_encoding(b"% \\usepackage[latin1]{inputenc}\n 5\\% \\usepackage[latin2]{inputenc}") == "iso-8859-2"
    assert declared_encoding(b"\\documentstyle[12pt,isolatin1]{article}") == "iso-8859-1"
    assert decode_latex("\\begin{CJK}{GBK}{song}汉字".encode("gbk")) == "\\begin{CJK}{GBK}{song}汉字"


@pytest.mark.parametrize("end", ["\r", "\r\n", "\n"])
def test_line_ends_of_any_system(end: str) -> None:
    lines = [HEAD.strip(), "\\begin{document} % a", "\\section{A}", "b % c", "% d", "e"]
    assert text(end.join(lines)) == "\\section{A}\nb\ne"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("\\url{http://a.org/x%20y} b % c", "\\url{http://a.org/x%20y} b"),
        ("\\href{http://a/%7Eb}{c 5\\%} % d", "\\href{http://a/%7Eb}{c 5\\%}"),
        ("\\path|a%b| c%d", "\\path|a%b| c"),
        ("\\verb|a%b| \\verb*+%+ c%d", "\\verb|a%b| \\verb*+%+ c"),
        ("\\lstinline!x % y! % z", "\\lstinline!x % y!"),
        ("\\url{a % b", "\\url{a"),
        ("a\n\\begin{comment}\nb\n\\end{comment}\nc", "a\nc"),
        ("a \\begin{comment} b \\end{comment} c", "a  c"),
        ("\\begin{filecontents*}{x.bib}\n\\section{No}\n\\end{filecontents*}\nc", "c"),
        ("\\begin{comment}\n\\begin{verbatim}\n\\end{comment}\nc % d", "c"),
        ("\\begin{verbatim}\n\\begin{comment}\n% x\n\\end{verbatim}\nc % d",
         "\\begin{verbatim}\n\\begin{comment}\n% x\n\\end{verbatim}\nc"),
    ],
)  # fmt: skip
def test_what_is_a_comment(source: str, expected: str) -> None:
    assert strip_comments(source) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a\\iffalse b\\fi c", "a c"),
        ("a\\iffalse b\\ifx\\x\\y c\\else d\\fi e\\else f\\fi g", "a f g"),
        ("a\\iftrue b\\else c\\fi d", "a b d"),
        ("a\\if0 b\\fi c", "a c"),
        ("\\newif\\ifdraft\\iffalse b\\fi c", "\\newif\\ifdraft c"),
        ("\\let\\ifdraft\\iffalse b \\ifdraft x\\fi", "\\let\\ifdraft\\iffalse b \\ifdraft x\\fi"),
        ("\\iffalse $a \\iff b$ \\ifthenelse{a}{b}{c}\\fi d", " d"),
        ("\\iffalse a", "\\iffalse a"),
        ("\\ifx a\\iffalse b\\fi\\else c\\fi", "\\ifx a\\else c\\fi"),
        ("\\fi \\else \\iffalse x\\fi", "\\fi \\else "),
    ],
)
def test_branches_never_taken(source: str, expected: str) -> None:
    assert without_false_branches(source) == expected


def test_nothing_is_found_within_verbatim_text() -> None:
    verbatim = (
        "\\begin{verbatim}\n\\newcommand{\\R}{no}\n\\input{b}\n\n\n\\bibliography{x}\n\\iffalse\n\\end{document}\n\\R\n"
        "\\end{verbatim}"
    )
    source = (
        f"{HEAD}\\newcommand{{\\R}}{{real}}\\begin{{document}}\\section{{A}}\n{verbatim}\n\\verb|\\R \\input{{b}}| \\R."
    )
    assert text(source, b="EXECUTED") == f"\\section{{A}}\n{verbatim}\n\\verb|\\R \\input{{b}}| real."


def test_environments_of_the_author_are_verbatim_or_comments() -> None:
    source = (
        f"{HEAD}\\lstnewenvironment{{code}}{{}}{{}}\\excludecomment{{notes}}\\begin{{document}}\\section{{A}}\n"
        "\\begin{code}\n% kept\n\\end{code}\n\\begin{notes}\ngone\n\\end{notes}\nend"
    )
    assert text(source) == "\\section{A}\n\\begin{code}\n% kept\n\\end{code}\nend"


def test_the_text_ends_with_the_document() -> None:
    head = f"{HEAD}\\renewcommand\\section{{x}}\\begin{{document}}"
    source = f"{head}\\section{{A}}b \\input{{c}}\\end{{document}}\n\\section{{No}}"
    part = "\\documentclass[main]{subfiles}\\begin{document}part\\end{document}no"
    assert text(source, c=part) == "\\section{A}b part"
    assert text(source, c="part\\endinput no") == "\\section{A}b part"


def test_headings_may_be_macros() -> None:
    source = f"{HEAD}\\newcommand{{\\head}}[1]{{\\section*{{#1}}}}\\begin{{document}}x \\head{{A}} b\\head{{C}}"
    assert text(source) == "\\section*{A} b\\section*{C}"


def test_parts_in_folders() -> None:
    files = {
        "main.tex": f"{HEAD}\\section{{A}}\\import{{x/}}{{a}} \\input{{x/y/c}}",
        "x/a.tex": "a \\input{b}",
        "x/b.tex": "b",
        "x/y/c.tex": "c \\input{d}",
        "x/y/d.tex": "d \\input{../../../secret}",
    }
    assert paper("main.tex", files.get, 1000) == "\\section{A}a b c d"


def test_a_bibliography_in_each_chapter_ends_no_book() -> None:
    chapters = "".join(
        f"\\chapter{{{name}}}{name}\n\\begin{{thebibliography}}x\\end{{thebibliography}}\n" for name in "AB"
    )
    assert text(f"{HEAD}{chapters}\\appendix\\chapter{{C}}") == "\\chapter{A}A\n\\chapter{B}B"


def test_classes_named_in_preambles_and_chapters_with_a_class(tmp_path: Path) -> None:
    files = {
        "main.tex": b"\\input{preamble}\\begin{document}\\section{A}\\x \\subfile{b}\\end{document}",
        "preamble.tex": f"{HEAD}\\newcommand{{\\x}}{{y}}".encode(),
        "b.tex": b"\\documentclass[main]{subfiles}\\begin{document}\\section{B}c\\end{document}",
    }
    expected = ["\\section{A}y \\section{B}c"]
    assert of_folder(tmp_path, files) == expected
    assert of_archive(tmp_path, {name: files[name] for name in ("main.tex", "preamble.tex")}) == ["\\section{A}y"]
    wrapped = {"a4.tex": f"{HEAD}\\input{{body}}".encode(), "body.tex": b"\\def\\x{y}" + files["main.tex"][16:]}
    assert of_folder(tmp_path / "f", wrapped) == ["\\section{A}y"]


def test_parts_of_nothing_are_said(tmp_path: Path) -> None:
    files = {"main.tex": f"{HEAD}\\section{{A}}\\input{{b}}".encode(), "b.tex": b"b", "old.tex": b"\\section{Old}"}
    assert sorted(of_folder(tmp_path, files)) == ["<no_document_class>", "\\section{A}b"]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, None])
def test_figures_count_for_no_limit(tmp_path: Path, form: int | None) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form or tarfile.GNU_FORMAT) as archive:
        for name, content in {"f.eps": b"0123456789" * 300_000, "main.tex": f"{HEAD}\\section{{A}}b".encode()}.items():
            information = tarfile.TarInfo(name)
            information.size = len(content)
            archive.addfile(information, io.BytesIO(content))
    whole = buffer.getvalue()
    if form is None:  # an archive of before 1988, without a mark of its kind
        head = bytearray(whole[:512])
        head[257:512] = bytes(255)
        head[148:156] = b" " * 8
        head[148:156] = f"{sum(head):06o}\0 ".encode()
        whole = bytes(head) + whole[512:]
    (tmp_path / "2301.00001.gz").write_bytes(gzip.compress(whole))
    (tmp_path / "bulk.tar").write_bytes(tar({"2301/2301.00002.gz": gzip.compress(whole, 0), "x.pdf": b"%PDF"}))
    reader = ArxivSources([str(tmp_path)], max_document_megabytes=1)
    assert [d.text or d.reason for d in read_all(reader)] == ["\\section{A}b", "\\section{A}b", "no_latex"]


def test_sources_above_the_limit_cost_their_paper_alone(tmp_path: Path) -> None:
    large = gzip.compress(tar({"a.tex": HEAD.encode() + b"x" * 700_000, "b.tex": b"y" * 700_000}))
    small = gzip.compress(f"{HEAD}\\section{{A}}b".encode())
    (tmp_path / "bulk.tar").write_bytes(
        tar({"1.gz": large, "2.gz": small, "3.gz": gzip.compress(b"%PDF-1.4 \xff" * 99)})
    )
    reader = ArxivSources([str(tmp_path)], max_document_megabytes=1)
    assert outcomes(reader) == ["<too_large>", "\\section{A}b", "<no_latex>"]


@pytest.mark.parametrize(
    "source",
    [
        "\\def\\a#1{" + "#1" * 9_000 + "}\\section{x}" + ("\\a{" + "y" * 19_000 + "}") * 20,
        "\\input{main}" * 50_000,
        "\\usepackage{" + "s," * 200 + "}" * 100 + "\\section{x}" + "y" * 300_000,
        "\\iffalse" * 60_000,
        "\\iffalse\\fi" * 60_000,
        "\\url{" * 80_000 + "%",
        "\\verb" * 80_000 + "%",
        "\\verb|" * 60_000,
        "\\begin{verbatim}\\end{verbatim}" * 12_000,
        "\\begin{comment}\n" * 30_000,
        "\\chapter{a}\\bibliography{b}" * 15_000,
        "\\usepackage[latin1]{inputenc}" * 20_000,
        "\\newif" + " " * 300_000 + "\\iffalse",
        "\\import" + " " * 300_000,
        "\\import{a}" * 40_000,
    ],
    ids=lambda source: ascii(source[:24]),
)
def test_hostile_sources_take_no_time(source: str) -> None:
    start = time.process_time()
    decode_latex(source.encode() + b"\xff")
    paper("main.tex", {"main.tex": source, "s.sty": "x" * 300_000}.get, 10**6)
    assert time.process_time() - start < 3


def test_a_value_is_measured_before_it_is_made() -> None:
    source = "\\a{" + "y" * 19_000 + "}"
    assert expand(source, {"a": (1, "#1" * 9_000)}) == source
