"""URL deduplication: a normal form of URLs, and its hash as a key.

Only what RFC 3986 calls equivalent would be safe and would leave most copies of a page standing: links are shared
with trackers, fragments and either scheme. So the form goes further where pages practically never differ, and stops
where they do (`www.`, letter case of paths, order of queries).
"""

import re
from collections.abc import Iterator
from urllib.parse import quote

import daft
import pyarrow
import xxhash
from daft import DataType, Expression, Series

from datamodules.curation.deduplication.connected_components import NO_KEY

# RFC 3986, appendix B: splits any string, in linear time.
PARTS = re.compile(r"(?:([^:/?#]+):)?(?://([^/?#]*))?([^?#]*)(?:\?([^#]*))?(?:#(.*))?", re.DOTALL)
PERCENT = re.compile(r"%([0-9A-Fa-f]{2})?")
UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
KEPT_IN_QUOTING = "!#$%&'()*+,/:;=?@[]~"
DEFAULT_PORTS = re.compile(r"(?:\.|:(?:80|443)?)+\Z")
PORT = re.compile(r":[0-9]+\Z")
HOST_NAME = re.compile(r"[a-z0-9._-]+")
MAX_HOST_LENGTH = 262
"""253 characters of a name (RFC 1035), a port, brackets: longer ones are none, and hostile."""
TRACKING_PREFIXES = ("utm_", "mtm_", "pk_", "hsa_", "oly_")
TRACKING = frozenset(
    (
        "_ga", "_gl", "_hsenc", "_hsmi", "dclid", "fbclid", "gbraid", "gclid", "gclsrc", "igshid", "mc_cid", "mc_eid",
        "mkt_tok", "msclkid", "phpsessid", "srsltid", "ttclid", "twclid", "vero_id", "wbraid", "wickedid", "yclid",
    )
)  # fmt: skip
"""Parameters that say who linked and not what is shown, in lower case: those of Google, Meta, Microsoft, Matomo, X,
Yandex, TikTok, HubSpot, Marketo and Mailchimp, and PHP's session."""


def normalize_url(url: str) -> str:
    """The form in which two URLs of one page are equal; it is its own form.

    - scheme and host in lower case, http as https; a host beyond ASCII in its IDNA form; credentials, a final dot and
      the ports 80 and 443 dropped;
    - percent-encodings of unreserved characters decoded, all others in upper case; what must be encoded is;
    - '.' and '..' resolved; slashes at the end of the path dropped;
    - tracking parameters and empty ones dropped, the order of the others kept;
    - the fragment dropped, unless it starts with '!' (such a fragment named a page).

    White space around it and control characters in it are dropped. What is not http or https is left as it is.
    """
    url = "".join(character for character in url if character >= " " and character != "\x7f").strip()
    match = PARTS.fullmatch(url)
    assert match is not None, "the pattern matches every string"
    scheme, authority, path, query, fragment = match.groups()
    if scheme is None or scheme.lower() not in ("http", "https") or not authority:
        return url
    normal = f"https://{_host(authority)}{_path(_encoded(path))}"
    if parameters := "&".join(_parameters(_encoded(query or ""))):
        normal += f"?{parameters}"
    if fragment and fragment.startswith("!"):
        normal += f"#{_encoded(fragment)}"
    return normal


def _host(authority: str) -> str:
    host = authority.rpartition("@")[2].lower()
    if len(host) > MAX_HOST_LENGTH:
        return host if host.isascii() else quote(host, errors="replace").lower()
    host = DEFAULT_PORTS.sub("", host)
    if host.isascii():
        return host
    name, colon, port = host.rpartition(":") if PORT.search(host) else (host, "", "")
    try:
        encoded = name.encode("idna").decode("ascii").lower()
    except UnicodeError:
        encoded = ""
    # Characters may decompose into delimiters: such a name is none.
    if not encoded or not HOST_NAME.fullmatch(encoded):
        encoded = quote(name, errors="replace").lower()
    return DEFAULT_PORTS.sub("", encoded + colon + port)


def _encoded(part: str) -> str:
    def canonical(match: re.Match[str]) -> str:
        character = chr(int(match[1] or "25", 16))
        return character if character in UNRESERVED else f"%{ord(character):02X}"

    quoted = quote(part, safe=KEPT_IN_QUOTING, errors="replace")
    return PERCENT.sub(canonical, quoted)


def _path(path: str) -> str:
    """RFC 3986, 5.2.4, and no slash at the end."""
    kept: list[str] = []
    for segment in path.split("/")[1:]:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    return "/" + "/".join(kept).rstrip("/") if kept else "/"


def _parameters(query: str) -> Iterator[str]:
    for parameter in query.split("&"):
        name = parameter.partition("=")[0].lower()
        if parameter and name not in TRACKING and not name.startswith(TRACKING_PREFIXES):
            yield parameter


NAMELESS = frozenset(("about", "blob", "data", "file", "javascript", "mailto", "tel"))
"""Schemes that name no published document."""
OTHER_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):\S*[^\W_]\S*")


def is_address(url: str) -> bool:
    """Whether a normalized URL names a document: not `N/A`, `#`, `https://` and what else fills an empty column."""
    if url.startswith("https://"):
        host = url.removeprefix("https://").partition("/")[0]
        return "." in host.strip(".") or host.startswith("[")
    found = OTHER_SCHEME.fullmatch(url)
    return found is not None and found[1].lower() not in {"http", "https", *NAMELESS}


class UrlDuplicates:
    """Documents of one URL: what crawls of several months fetched again, and copies of a text in several sources.

    Readers of crawls say so (`Reader.IS_CRAWL`): of a crawled page one fetch is kept. Any other two documents of a URL
    are one only if their signatures resemble each other too: the posts of a thread, the functions of a repository and
    the sections of a page share an address and no text. A source that is no crawl goes before a crawl, so that an
    article is not lost for the page that announces it; then the newest is kept, then the one of the best score.
    """

    def key(self, url: Expression) -> Expression:
        """xxh3 of the normalized URL, uint64; `NO_KEY` where there is no URL."""
        return _url_key(url)


@daft.func.batch(return_dtype=DataType.uint64())
def _url_key(urls: Series) -> Series:
    # As Arrow: a list would pass through floating point.
    return Series.from_arrow(pyarrow.array(map(key_of_url, urls.to_pylist()), pyarrow.uint64()))


def key_of_url(url: str | None) -> int:
    """Hash of the normal form of a URL; `NO_KEY` for none and for what is no address."""
    normal = normalize_url(url) if url else ""
    return xxhash.xxh3_64_intdigest(normal.encode()) if is_address(normal) else NO_KEY
