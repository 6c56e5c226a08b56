"""URL blocklist: documents dropped by lists of domains and by words in the address.

A domain on a list is kept as a 64-bit hash: the adult list of UT1 with its 4.6 million domains takes 40 MB instead
of 500, and one lookup in 10^12 goes wrong.
"""

import functools
import gzip
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import daft
import numpy as np
import xxhash
from daft import DataType, Expression, Series, col

from common.errors import InputError
from common.files import checksum
from common.path_lists import PathList, path_list
from datamodules.curation.filters.base import Filter, Threshold

MAX_PATH_PARTS = 32
"""Parts of a path, and labels of a host, that are compared with entries; a longer address is one of a kind."""
FIELDS = {name: DataType.int64() for name in ("url_listed", "url_words", "url_soft_words")}


def normal_entry(entry: str) -> str:
    """A listed domain or address as it is looked up: lower case, no scheme, no leading `www.`, no final slash."""
    entry = entry.strip().lower()
    entry = entry.partition("://")[2] or entry
    host, slash, path = entry.removeprefix("www.").partition("/")
    return (ascii_host(host.rstrip(".")) + slash + path).rstrip("/")


def ascii_host(host: str) -> str:
    """An internationalized host in the ASCII form that lists use; one that has no such form stays."""
    if host.isascii():
        return host
    try:
        return host.encode("idna").decode("ascii")
    except UnicodeError:
        return host


@functools.lru_cache(maxsize=64)
def read_entries(path: str, checksum: str) -> np.ndarray:
    """Hashes of a list's entries, uint64 [entries], sorted; one entry per line, `#` begins a comment.

    Args:
        path: of a file as UT1 (Université Toulouse) gives them, `domains` or `urls`; .gz is decompressed.
        checksum: of the file, so that a changed one is read again.
    """
    with gzip.open(path, "rb") if path.endswith(".gz") else open(path, "rb") as file:
        lines = (line.partition(b"#")[0].strip().decode("utf-8", "replace") for line in file)
        hashes = [xxhash.xxh3_64_intdigest(normal_entry(line).encode()) for line in lines if line]
    return np.unique(np.array(hashes, dtype=np.uint64))


def candidates(url: str) -> Iterator[str]:
    """Entries under which a list may hold an address: its host, the parents of that, its host with each beginning of
    the path."""
    host, _, path = normal_entry(url).partition("/")
    path = re.split(r"[?#]", path, maxsplit=1)[0]
    host = re.split(r"[?#]", host, maxsplit=1)[0].rpartition("@")[2].partition(":")[0]
    labels = host.split(".")
    for start in range(max(len(labels) - MAX_PATH_PARTS, 0), len(labels)):
        yield ".".join(labels[start:])
    parts = [part for part in path.split("/") if part][:MAX_PATH_PARTS]
    whole = host
    for part in parts:
        whole = f"{whole}/{part}"
        yield whole


class UrlBlocklist(Filter):
    """Drops documents by where they were published, as RefinedWeb (Penedo et al. 2023, appendix G.1) and FineWeb do.

    Looks at the column `url`; a document without one is kept. Lists are not part of this project: UT1's
    (https://dsi.ut-capitole.fr/blacklists/) are what both papers took.

    Args:
        domains: files with one domain per line, which covers all below it too, or an address without its scheme,
            which covers all that begin with it.
        words: an address with one of these between characters that are no letters or digits is dropped.
        subwords: likewise, anywhere in the address, also across such characters.
        soft_words: words of which more than `max_soft_words` different ones have to occur.
        max_soft_words: RefinedWeb drops at two.

    Raises:
        InputError: for a list that is not there or holds nothing, or when there is nothing to look for.
    """

    summary = "published at a listed address (Penedo et al. 2023, appendix G.1)"
    LOCATIONS = ("domains",)

    def __init__(
        self,
        domains: PathList | None = None,
        words: Sequence[str] = (),
        subwords: Sequence[str] = (),
        soft_words: Sequence[str] = (),
        max_soft_words: int = 1,
    ) -> None:
        self.domains = path_list(domains)
        self.words, self.subwords, self.soft_words = (
            sorted({word.lower() for word in given}) for given in (words, subwords, soft_words)
        )
        self.max_soft_words = max_soft_words
        if not (self.domains or self.words or self.subwords or self.soft_words):
            raise InputError("domains, words, subwords and soft_words are all empty: name one, or leave the rule out")
        for word in (*self.words, *self.subwords, *self.soft_words):
            if not word.isalnum():
                raise InputError(f"word {word!r}: only letters and digits are looked for, give it without others")
        for path in self.domains:
            if not Path(path).is_file():
                raise InputError(f"domains: {path} is no file, give the file `domains` or `urls` of a list")
        # Part of the fingerprint: the same name may hold other entries tomorrow.
        self.checksums = [checksum(Path(path)) for path in self.domains]
        for path, entries in zip(self.domains, self._lists(), strict=True):
            if not len(entries):
                raise InputError(f"domains: {path} holds no entry, leave it out")

    def _lists(self) -> list[np.ndarray]:
        return [read_entries(path, digest) for path, digest in zip(self.domains, self.checksums, strict=True)]

    def measure(self, url: str) -> tuple[int, int, int]:
        """True if a list names the address, banned words in it, different soft words in it."""
        hashes = np.array([xxhash.xxh3_64_intdigest(entry.encode()) for entry in candidates(url)], dtype=np.uint64)
        listed = any(
            (entries[np.minimum(np.searchsorted(entries, hashes), len(entries) - 1)] == hashes).any()
            for entries in self._lists()
        )
        parts = re.findall(r"[^\W_]+", url.lower())
        present, together = set(parts), "".join(parts)
        banned = sum(word in present for word in self.words) + sum(word in together for word in self.subwords)
        return int(listed), banned, sum(word in present for word in self.soft_words)

    def measures(self, text: Expression) -> dict[str, Expression]:
        """True if a list names the address, how many banned words it holds, and how many different soft ones."""
        measure = self.measure

        @daft.func.batch(return_dtype=DataType.struct(FIELDS))
        def look_up(urls: Series) -> list[dict[str, Any]]:
            return [dict(zip(FIELDS, measure(url) if url else (0, 0, 0), strict=True)) for url in urls.to_pylist()]

        found = look_up(col("url"))
        return {name: found.get(name) for name in FIELDS}

    def thresholds(self) -> dict[str, Threshold]:
        """`url_listed`, `url_word`, `url_soft_words`."""
        return {
            "url_listed": Threshold("url_listed", ">", 0),
            "url_word": Threshold("url_words", ">", 0),
            "url_soft_words": Threshold("url_soft_words", ">", self.max_soft_words),
        }
