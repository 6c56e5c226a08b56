"""Addresses are looked up in lists of domains and searched for words."""

import gzip
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputError
from datamodules.curation.filters.toxicity import WordList
from datamodules.curation.filters.url_blocklist import UrlBlocklist, candidates
from tests.helpers.curation import filter_rows


def test_addresses_are_held_against_lists(tmp_path: Path) -> None:
    (tmp_path / "domains").write_text("bad.example\nEvil.co.uk  # worse\n\n203.0.113.9\nmüller.example\n")
    with gzip.open(tmp_path / "urls.gz", "wt") as file:
        file.write("http://www.mixed.example/adult/\n")
    rule = UrlBlocklist([str(tmp_path / "domains"), str(tmp_path / "urls.gz")], ["casino"], ["xxx"], ["free", "live"])
    cases = {
        "https://bad.example/": "url_listed",
        "http://user:word@www.a.b.bad.example:8080/path?q=1": "url_listed",
        "HTTPS://EVIL.CO.UK": "url_listed",
        "http://203.0.113.9/x": "url_listed",
        "http://xn--mller-kva.example/": "url_listed",
        "https://mixed.example/adult/page.html": "url_listed",
        "https://mixed.example/adults": None,
        "https://notbad.example/": None,
        "https://bad.example.org/": None,
        "https://ok.example/?to=bad.example": None,
        "https://ok.example/online-casino/": "url_word",
        "https://ok.example/casinos": None,
        "https://ok.example/x-x-x": "url_word",
        "https://ok.example/free-free": None,
        "https://ok.example/free/live": "url_soft_words",
        "": None,
        "not an address": None,
    }
    urls: list[str | None] = [*cases, None]
    rows = filter_rows(rule, {"text": ["text"] * len(urls), "url": urls})
    assert {row["url"]: row["reason"] for row in rows} == {**cases, None: None}


@settings(max_examples=100, deadline=None)
@given(url=st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_any_address_has_few_candidates(url: str) -> None:
    assert len(list(candidates(url + "/a" * 100 + ".b" * 100))) <= 64


def test_lists_that_cannot_work_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("# nothing\n")
    for arguments, words in [
        ({}, "all empty"),
        ({"domains": [str(tmp_path / "absent")]}, "is no file"),
        ({"domains": [str(tmp_path / "empty")]}, "holds no entry"),
        ({"words": ["two words"]}, "letters and digits"),
    ]:
        with pytest.raises(InputError, match=words):
            UrlBlocklist(**arguments)  # type: ignore[arg-type]


def test_a_changed_list_changes_the_rule(tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_text("one.example\n")
    first = vars(UrlBlocklist([str(path)])), vars(WordList([str(path)]))
    path.write_text("two.example\n")
    rule = UrlBlocklist([str(path)])
    assert vars(rule) != first[0]
    assert vars(WordList([str(path)])) != first[1]
    rows = filter_rows(rule, {"text": ["", ""], "url": ["http://one.example", "http://two.example"]})
    assert [row["reason"] for row in rows] == [None, "url_listed"]
