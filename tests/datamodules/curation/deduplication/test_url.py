"""Normal forms of URLs, exact duplicates' keys."""

import time

import daft
import pytest
import regex
import xxhash
from daft import col
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.curation.deduplication.connected_components import NO_KEY
from datamodules.curation.deduplication.exact import text_key
from datamodules.curation.deduplication.url import UrlDuplicates, normalize_url

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
PIECES = st.lists(
    st.sampled_from(
        ["/", "//", ".", "..", "%", "%2e", "%2F", "%41", "%7e", "%zz", "?", "&", "=", "#", "#!", ":", ":80", ":443",
         "@", "a", "B", "utm_source=x", "fbclid=1", "ü", "。", "℀", " ", "\t", "[::1]", "example.com"]
    ),
    max_size=14,
).map("".join)  # fmt: skip


@settings(max_examples=600, deadline=None)
@given(scheme=st.sampled_from(["http://", "HTTPS://", "//", "ftp://", "urn:", ""]), rest=PIECES | TEXT)
def test_normalization_is_idempotent(scheme: str, rest: str) -> None:
    once = normalize_url(scheme + rest)
    assert normalize_url(once) == once


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("HTTP://User:secret@Example.COM.:80", "https://example.com/"),
        ("https://example.com:443/a/", "https://example.com/a"),
        ("https://example.com:8080/A", "https://example.com:8080/A"),
        ("https://[2001:DB8::1]:443/", "https://[2001:db8::1]/"),
        ("http://example.com/a/./b/../%7Euser/%e4%bd%a0#part", "https://example.com/a/~user/%E4%BD%A0"),
        ("http://example.com/../..//x//", "https://example.com//x"),
        ("https://example.com/你?q=a b", "https://example.com/%E4%BD%A0?q=a%20b"),
        ("https://example.com/?utm_source=x&b=2&FBCLID=3&a=1&", "https://example.com/?b=2&a=1"),
        ("https://example.com/100%/%2F", "https://example.com/100%25/%2F"),
        ("https://example.com/#!/page", "https://example.com/#!/page"),
        ("https://bücher.example:8080/", "https://xn--bcher-kva.example:8080/"),
        (" https://example.com/a\n ", "https://example.com/a"),
        ("https://www.example.com/?", "https://www.example.com/"),
        ("urn:ISBN:0451450523", "urn:ISBN:0451450523"),
        ("mailto:A@B.c", "mailto:A@B.c"),
        ("https://", "https://"),
        ("", ""),
    ],
)
def test_normal_forms(url: str, normal: str) -> None:
    assert normalize_url(url) == normal


def test_what_may_differ_stays_apart() -> None:
    urls = ["https://a.b/x", "https://www.a.b/x", "https://a.b/X", "https://a.b/x?a=1&b=2", "https://a.b/x?b=2&a=1"]
    assert len({normalize_url(url) for url in urls}) == len(urls)


def test_keys_of_urls() -> None:
    df = daft.from_pydict({"url": ["http://a.b/", "https://A.B", None, "", "https://a.b/c"]})
    keys = df.select(UrlDuplicates().key(col("url")).alias("key")).to_pydict()["key"]
    assert keys[0] == keys[1] == xxhash.xxh3_64_intdigest(b"https://a.b/")
    assert keys[2:4] == [NO_KEY, NO_KEY]
    assert keys[4] not in (keys[0], NO_KEY)


@pytest.mark.parametrize(
    "unit", ["a", ":", ".", "/", "../", "%", "&", "#", ":80", "@", "ü", "[", "?utm_a=1&", "。", "\x00"]
)
def test_a_long_url_takes_linear_time(unit: str) -> None:
    start = time.thread_time()
    for prefix in ("http://", "http://a/", "http://a/?"):
        normalize_url(prefix + unit * (200_000 // len(unit)) + "!")
    assert time.thread_time() - start < 10


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(TEXT | st.text("a \n\t\u00a0", max_size=6), min_size=1, max_size=8))
def test_the_key_of_a_text_folds_white_space_only(texts: list[str]) -> None:
    keys = daft.from_pydict({"text": texts}).select(text_key(col("text")).alias("key")).to_pydict()["key"]
    folded = [regex.sub(r"\p{White_Space}+", " ", text).strip(" ") for text in texts]
    assert keys == [xxhash.xxh3_64_intdigest(text.encode()) for text in folded]
