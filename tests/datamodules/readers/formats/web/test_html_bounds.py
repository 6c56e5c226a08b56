"""Bounds on HTML: what parsers are slow on is refused, what people write is not."""

import time

import pytest

from datamodules.readers import html_to_text
from datamodules.readers.formats.bounded_streams import RefusedError
from datamodules.readers.formats.web.html_bounds import depth_of_tree, refuse_slow
from datamodules.readers.formats.web.html_depth import MAX_DEPTH


@pytest.mark.parametrize(
    "part",
    [
        '<a id="x"/>text ', "<p><b>text</p>", "<p><span>text</p>", "<a href=x>text ", "<li><b>text", "<dt><i>a<dd>b",
        "<table><tr><td><font size=2>text</td></tr></table>", "<p><font size=1>text", "<p><span/>text</p>",
        "<p><span><div>text</div></p>", "<h2><a name=x></h2>text", "<p><b><i>text</p>", "<p><a name=x>text</p>",
        "<div><a name=x></div>text", "<p><u/>text",
    ],
)  # fmt: skip
def test_shallow_trees_are_not_too_deep(part: str) -> None:
    refuse_slow(part * 400)
    assert depth_of_tree(part * 400) < 12
    assert html_to_text(part * 400).strip()


def test_long_tables_of_unclosed_formatting_are_not_too_deep() -> None:
    refuse_slow("<table>" + "<tr><td><font size=2><b>text</td><td><a name=x>more</tr>" * 5000 + "</table>")


@pytest.mark.parametrize("part", ["<div>", "<b><div></b>", "<i id=1>", "<td><b>", "<blockquote><p>"])
def test_deep_trees_are_too_deep(part: str) -> None:
    assert depth_of_tree(part * 300) > MAX_DEPTH
    with pytest.raises(RefusedError, match="too_deep"):
        refuse_slow(part * 300)


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        ("<select>" + "<option>x" * 80_000, "too_many_options"),
        ("<select><optgroup>" + "<option>x</option>" * 80_000, "too_many_options"),
        (("<select>" + "<option>x" * 5000 + "</select>") * 20, "too_many_options"),
        ("<p " + " ".join(f"a{i}=1" for i in range(80_000)) + ">x", "too_many_attributes"),
        ("<p " + " ".join(f"a{i}='>'" for i in range(80_000)) + ">x", "too_many_attributes"),
        ("x" * 9 + ("<p " + " ".join(f"a{i}" for i in range(4000)) + ">x") * 60, "too_many_attributes"),
        ("".join(f"<body a{i}=1>" for i in range(80_000)), "too_many_attributes"),
        ("".join(f"<p><font id={i}>" for i in range(10_000)), "too_deep"),
    ],
    ids=lambda value: value[:20],
)
def test_what_takes_a_parser_quadratic_time_is_refused_at_once(page: str, reason: str) -> None:
    start = time.process_time()
    with pytest.raises(RefusedError, match=reason):
        refuse_slow(page)
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    "page",
    [
        "<select>" + "<option>x" * 3000 + "</select>",
        ("<select>" + "<option>x" * 200 + "</select>") * 200,
        "<p " + " ".join(f"a{i}=1" for i in range(3000)) + ">x",
        "<img src='data:image/png;base64," + "A" * 3_000_000 + "'>x",
        "<ul>" + "<li>x" * 80_000,
    ],
    ids=lambda value: value[:20],
)
def test_long_pages_that_take_no_time_are_not_refused(page: str) -> None:
    start = time.process_time()
    refuse_slow(page)
    html_to_text(page)
    assert time.process_time() - start < 4
