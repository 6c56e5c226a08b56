"""WARC, WET and HTML: what is a page, in which encoding, from where."""

import contextlib
import gzip
import time
from pathlib import Path

import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from resiliparse.parse.html import HTMLTree

from common.errors import InputError
from datamodules.readers import CommonCrawl, HtmlFiles
from datamodules.readers import common_crawl as crawl
from datamodules.readers.document import Document
from datamodules.readers.formats.bounded_streams import RefusedError
from datamodules.readers.formats.web.html_bounds import refuse_slow
from datamodules.readers.formats.web.html_depth import MAX_DEPTH, depth
from datamodules.readers.formats.web.xhtml import xhtml_as_html
from datamodules.readers.html import creative_commons, decode_html, page_license
from tests.helpers.reading import outcomes, read_all, record, response

SHARED = Path(__file__).parents[4] / "shared/data/crawl.warc.gz"
BODY = "<p>" + "The main text of this page has a sentence or two, and goes on for a while. " * 3 + "</p>"


@pytest.mark.skipif(not SHARED.exists(), reason="no crawl.warc.gz beside the project")
def test_a_real_crawl_gives_its_pages_with_address_and_date() -> None:
    documents = read_all(CommonCrawl([str(SHARED)]))
    texts = [document.text for document in documents if document.text]
    assert len(texts) > 12
    assert all(document.url and document.date and document.date.startswith("2020-08-08") for document in documents)
    assert any("Сервис" in text or "компани" in text.lower() for text in texts)  # windows-1251
    assert any("的" in text for text in texts)  # gb2312
    assert not any("<div" in text for text in texts)


def test_only_pages_that_were_there_are_read(tmp_path: Path) -> None:
    page = BODY.encode()
    records = [
        record("request", "http://a/", b"GET / HTTP/1.1\r\n\r\n"),
        response("http://a/", page),
        response("http://b/", page, status="404 Not Found"),
        response("http://c/", b"\x89PNG", kind="image/png"),
        response("http://d/", b"<p>Gr\xfc\xdfe aus K\xf6ln, " + page, kind="text/html; charset=ISO-8859-1"),
        response("http://e/", page + b"<a rel='license' href='https://creativecommons.org/licenses/by-sa/4.0/'>x</a>"),
    ]
    (tmp_path / "a.warc.gz").write_bytes(b"".join(map(gzip.compress, records)))
    (tmp_path / "b.warc").write_bytes(records[1])
    documents = read_all(CommonCrawl([str(tmp_path)]))
    assert [document.url for document in documents] == [f"http://{name}/" for name in "abcdea"]
    assert [document.reason for document in documents] == [None, "http_status", "not_html", None, None, None]
    assert "Grüße aus Köln" in (documents[3].text or "")
    assert [document.license for document in documents] == [None] * 4 + ["CC-BY-SA-4.0", None]
    assert {document.date for document in documents} == {"2024-02-20T21:00:00Z"}


def test_wet_holds_texts(tmp_path: Path) -> None:
    records = [
        record("warcinfo", "x", b"Software-Info: x"),
        record("conversion", "http://a/", "Ein Text\nüber nichts.".encode()),
        record("conversion", "http://b/", b"\xff\xfe"),
    ]
    (tmp_path / "a.warc.wet.gz").write_bytes(b"".join(map(gzip.compress, records)))
    assert outcomes(CommonCrawl([str(tmp_path)])) == ["Ein Text\nüber nichts.", "<invalid_utf8>"]


def test_a_cut_crawl_keeps_the_pages_before_and_says_so(tmp_path: Path) -> None:
    whole = b"".join(gzip.compress(response(f"http://{i}/", BODY.encode() * 40)) for i in range(4))
    (tmp_path / "a.warc.gz").write_bytes(whole[: len(whole) - 60])
    reasons = [document.reason for document in read_all(CommonCrawl([str(tmp_path)]))]
    assert reasons[:3] == [None] * 3
    assert reasons[3:] == ["damaged_file"]
    (tmp_path / "a.warc.gz").write_bytes(b"no archive at all" * 100)
    assert outcomes(CommonCrawl([str(tmp_path)])) == ["<damaged_file>"]


TEXTS = [record("conversion", f"http://{i}/", b"Text of a page.") for i in range(10)]
NEXT = gzip.compress(record("conversion", "http://next/", bytes(range(256))), mtime=0)
GZIP = b"".join(map(gzip.compress, TEXTS))
PLAIN = b"".join(TEXTS)
ZSTD = b"".join(pyarrow.compress(text, codec="zstd", asbytes=True) for text in TEXTS)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *(("a.warc.gz", GZIP + NEXT[:size]) for size in (1, 10, 30, 60, 100, 150, len(NEXT) - 40)),
        *(("a.warc", PLAIN + TEXTS[0][:size]) for size in (1, 10, 30, 60, 100, 150, len(TEXTS[0]) - 5)),
        *(("a.warc.zst", ZSTD + ZSTD[:size]) for size in (10, 60, 100)),
        ("a.warc.gz", gzip.compress(PLAIN)[:-3]),
        ("a.warc.gz", GZIP + b"something else"),
        ("a.warc.gz", GZIP + gzip.compress(b"something else")),
        ("a.warc.gz", GZIP + gzip.compress(b"something else") + b"\0" * 500),
        ("a.warc", PLAIN + b"something else"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_crawl_cut_anywhere_does_not_pass_as_whole(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert outcomes(CommonCrawl([str(tmp_path)])) == ["Text of a page."] * 10 + ["<damaged_file>"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.warc.gz", GZIP),
        ("a.warc.gz", GZIP + b"\0" * 500),
        ("a.warc.gz", gzip.compress(PLAIN)),
        ("a.warc.gz", gzip.compress(b"".join(TEXTS[:4])) + gzip.compress(b"".join(TEXTS[4:]))),
        ("a.warc", PLAIN),
        ("a.warc", PLAIN + b"\0" * 500),
        ("a.warc.zst", ZSTD),
        ("a.warc.gz", GZIP + gzip.compress(record("metadata", "http://a/", b"x"))),
        ("a.warc.wet", PLAIN),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_whole_crawl_is_not_damaged(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert outcomes(CommonCrawl([str(tmp_path)])) == ["Text of a page."] * 10


def test_a_page_that_breaks_the_extractor_is_dropped_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(raw: bytes, *_: object, **__: object) -> Document:
        if b"hostile" in raw:
            raise IndexError
        return Document(raw.decode())

    monkeypatch.setattr(crawl, "page", breaks)
    records = [response("http://a/", payload) for payload in (b"one", b"hostile", b"two")]
    (tmp_path / "a.warc.gz").write_bytes(b"".join(map(gzip.compress, records)))
    assert outcomes(CommonCrawl([str(tmp_path)])) == ["one", "<damaged_page>", "two"]


def test_a_page_above_the_limit_is_dropped_and_the_next_is_read(tmp_path: Path) -> None:
    bomb = gzip.compress(b"<p>" + b"x" * 30_000_000)
    header = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Encoding: gzip\r\n\r\n"
    records = [
        response("http://a/", BODY.encode() * 10_000),
        record("response", "http://b/", bomb, header),
        response("http://c/", BODY.encode()),
    ]
    (tmp_path / "a.warc.gz").write_bytes(b"".join(map(gzip.compress, records)))
    documents = read_all(CommonCrawl([str(tmp_path)], max_document_megabytes=1))
    assert [document.reason for document in documents] == ["too_large", "too_large", None]


def test_trees_of_html(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/one.html").write_text(f"<html><nav><a href=x>Menu</a></nav><main>{BODY}</main></html>")
    (tmp_path / "a/two.HTM").write_bytes(b"<meta charset='windows-1251'><p>" + "Привет, мир! ".encode("cp1251") * 20)
    (tmp_path / "b.html").write_text("<script>nothing</script>")
    for extractor in (None, "resiliparse"):
        texts = outcomes(HtmlFiles([str(tmp_path)], extractor=extractor))  # type: ignore[arg-type]
        assert texts[0].startswith("The main text")
        assert "Menu" not in texts[0]
        assert "Привет" in texts[1]
        assert texts[2] == "<no_main_text>"


def test_trafilatura_finds_the_main_text_too(tmp_path: Path) -> None:
    pytest.importorskip("trafilatura")
    (tmp_path / "a.html").write_text(f"<html><nav><a href=x>Menu</a></nav><article>{BODY * 3}</article></html>")
    (text,) = outcomes(HtmlFiles([str(tmp_path)], extractor="trafilatura"))
    assert text.startswith("The main text")
    with pytest.raises(InputError, match="extractor='boilerpipe'"):
        CommonCrawl(["x"], extractor="boilerpipe")  # type: ignore[arg-type]


@pytest.mark.parametrize("tag", ["div", "b", "blockquote", "table><tr><td"])
def test_pages_that_are_too_deep_are_dropped_in_no_time(tmp_path: Path, tag: str) -> None:
    (tmp_path / "a.html").write_text(f"<{tag}>" * 200_000 + "x")
    assert outcomes(HtmlFiles([str(tmp_path)])) == ["<too_deep>"]


def test_long_lists_and_scripts_are_not_deep() -> None:
    assert depth("<ul>" + "<li>item" * 5000 + "</ul>" + "<p>text" * 5000) == 1
    assert depth("<script>" + "'<div>'" * 5000 + "</script><p>x") == 0
    assert depth("<!--" + "<div>" * 5000) == 0


@pytest.mark.parametrize(
    "part",
    [
        "<div></b>", "<!--><div>", "<!---><div>", "<!-- --!><div>", "<rt>", "<rp>", "<optgroup>", "<desc>", "<DIV>",
        "<div a=\"</div>\">", "<div a='</div>'>", "<div a=b/></p>", "<div><!</div>>", "<div></ </div>>", "<div\n/>",
        "<span><div></span></div>", "<form><div></form>", "<b><table><td></b></table>", "<p><b id=1></p>",
        "<div><table><td></div></table>", "<b><b><b><b><div></b></b></b></b></div>", "<iframe><!--</iframe><div>",
        "<svg><g>", "<svg><input>", "<svg><style><g>", "<svg/><path/>",
        "<li><dd>", "<dt><li><b>", "<mi><div></mi>", "<foreignObject><h2></foreignObject>", "<frameset><iframe>",
        "<span></image><image>", "<caption><g></caption>", "<ruby><dd><rt>", "<frameset></h2><h2>",
        "<select><input><div></select>", "<select><select><div></select>", "<svg><font a='color'><g></font></svg><div>",
        "<svg><hr><g></svg>", "<svg><p><div/>", "<svg><title><p></title><g></svg>", "<svg><path><![CDATA[><!--]]><g>",
    ],
)  # fmt: skip
def test_no_tag_hides_how_deep_a_page_is(part: str) -> None:
    assert depth(part * 300) > MAX_DEPTH


@pytest.mark.parametrize(
    "part",
    [
        "<div><span></div>", "<div><section><p></div>", "<ul><li>a<li>b</ul>", "<b><i>x</b></i>", "<h1>x</h2>",
        "<ruby>a<rp>(</rp><rt>b</rt><rp>)</rp></ruby>", "<ruby>a<rt>b</ruby>", "<br/><hr><input>", "<div a='>'></div>",
        '<svg><path d="x"/><g><path/></g></svg>', '<svg><title>Menu</title><path d="x"/></svg>',
        "<svg><style><![CDATA[ a>b <x> ]]></style><path></path></svg>", "<math><mi>x</mi><mo>=</mo></math>",
        "<table><tr><td><form></td></form></table>", "<select><optgroup><option>x</optgroup></select>",
        "<a href=x>y</a>",
        "<script>'<div>'</script><!-- <div> --><textarea><div></textarea>", "<object><param><embed></object>",
    ],
)  # fmt: skip
def test_what_people_write_is_not_deep(part: str) -> None:
    assert depth(part * 300) < 4


def depth_of_tree(html: str) -> int:
    deepest, stack = 0, [(HTMLTree.parse(html).document, 0)]
    while stack:
        node, level = stack.pop()
        deepest = max(deepest, level)
        child = node.first_child
        while child is not None:
            stack.append((child, level + 1))
            child = child.next
    return deepest


tags = st.sampled_from([
    "div", "span", "b", "p", "table", "li", "dd", "svg", "br", "td", "title", "a", "form", "g", "h2", "select", "style",
])  # fmt: skip
markup = st.tuples(st.sampled_from(["<", "</"]), tags, st.sampled_from([">", " a='>'>", "/>"])).map("".join)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(parts=st.lists(markup, min_size=1, max_size=6))
def test_what_nests_in_a_parser_counts(parts: list[str]) -> None:
    html = "".join(parts) * 60
    if depth_of_tree(html) >= 60:
        assert depth("<" * 300 + html) >= 20


@pytest.mark.parametrize(
    "page",
    [
        "<a rel=" + " " * 300_000, "<a rel=" * 40_000, "<a " + "rel= " * 60_000, "<a" + " rel" * 80_000 + ">",
        "<div a='" * 40_000, "<a =" * 80_000, "<a" + " x" * 150_000, "<a " + "=" * 300_000, "<![CDATA[" * 30_000,
        "<script>" * 40_000, "<!--" * 80_000, "</" * 150_000,
        "<div><table>" + "<span>" * 240 + "</div><b></b>" * 20_000,
        "<div><table>" + "<span>" * 4000 + "</div><b></b>" * 100_000,
        "<!DOCTYPE a[" * 30_000, "<?" * 80_000, "<p " + "a='>' " * 50_000, "<title/>" * 50_000,
        "".join(f"<p><font id={i}>" for i in range(20_000)),
    ],
    ids=lambda page: page[:12],
)  # fmt: skip
def test_long_runs_of_anything_take_no_time(page: str) -> None:
    start = time.process_time()
    with contextlib.suppress(RefusedError):
        refuse_slow("<" * 300 + page)
    xhtml_as_html(page)
    page_license(page)
    assert time.process_time() - start < 2


@pytest.mark.parametrize("encoding", ["utf-8", "windows-1251", "utf-16", "iso-2022-jp", "gb18030", "shift_jis"])
def test_encodings_that_are_declared(encoding: str) -> None:
    text = {"windows-1251": "Привет, мир", "gb18030": "你好,世界"}.get(encoding, "こんにちは、世界")
    assert decode_html(text.encode(encoding), encoding).text == text
    assert decode_html("наш мир".encode(), "iso-8859-1").text == "наш мир"  # declared wrongly


@settings(max_examples=100, deadline=None)
@given(raw=st.binary(max_size=200), declared=st.none() | st.sampled_from(["utf-8", "no-such", "utf-16", "gb2312", ""]))
def test_any_bytes_decode_or_have_a_reason(raw: bytes, declared: str | None) -> None:
    document = decode_html(raw, declared)
    assert (document.text is None) == (document.reason is not None)
    if document.text is not None:
        document.text.encode("utf-8")


def test_licenses_of_pages() -> None:
    assert page_license('<link rel="license" href="http://creativecommons.org/publicdomain/zero/1.0/">') == "CC0-1.0"
    assert page_license('<a href="http://creativecommons.org/licenses/by/4.0/">about licenses</a>') is None
    assert creative_commons("https://creativecommons.org/licenses/by-nc-nd/3.0/de/") == "CC-BY-NC-ND-3.0"


def test_manuals_keep_their_lists_tables_and_code(tmp_path: Path) -> None:
    page = (
        "<html><body><div role='navigation'>Next</div><h1>Bugs<a class='headerlink'>¶</a></h1><p>Known ones:</p>"
        "<ul><li>The first of them.</li><li>The second.</li></ul><figure><pre>for x in y:\n    z(x)</pre></figure>"
        "<figure><table><tr><td>Cell</td></tr></table></figure></body></html>"
    )
    (tmp_path / "a.html").write_text(page)
    (text,) = outcomes(HtmlFiles([str(tmp_path)]))
    assert all(part in text for part in ("The first of them.", "The second.", "for x in y:\n    z(x)", "Cell"))
    assert "Next" not in text
    assert "¶" not in text
    (text,) = outcomes(HtmlFiles([str(tmp_path)], extractor="resiliparse"))
    assert "for x in y:\n    z(x)" in text
    assert "Cell" in text


@pytest.mark.parametrize("name", ["a.xhtml", "a.xht"])
def test_files_of_xhtml_are_read_as_xhtml(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(f"<html><head><title/><script src='a.js'/></head><body>{BODY}</body></html>")
    assert outcomes(HtmlFiles([str(tmp_path)]))[0].startswith("The main text")
