"""Downloads: where the copy of a URL lies, and how a URL is shown.

A copy lies at its URL's path, so that a person finds it. What a path cannot say, a query or a name too long for the
file system, is a hash in it; signatures, which change while the file does not, are left out of that.
"""

import re
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, urlsplit

import xxhash

MAX_NAME_BYTES = 200
"""Of a part of a path: file systems take 255, and locks and unfinished copies have longer names."""
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
_SIGNATURE = re.compile(
    r"x-(amz|goog)-.*|signature|expires|policy|key-pair-id|awsaccesskeyid|googleaccessid|sig|se|st|sp|sv|sr|spr|sk\w+",
    re.I,
)
"""Parameters of signed queries of S3, Google's store, CloudFront and Azure."""
_SECRET = re.compile(r"sig|key|token|secret|passw|pwd|credential|auth|policy|session|x-(amz|goog)-", re.I)
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>)\]]+")


def is_url(path: str) -> bool:
    """True if a path names a protocol, as https://, s3:// or hf:// do."""
    return "://" in path


def place(url: str, folder: Path) -> Path:
    """Path of the copy of a URL in the folder of all downloads; of a pattern, the part before its first `*`."""
    parts = urlsplit(url)
    host = _host(parts)
    whole = host + parts.path
    if "*" in whole:
        whole = whole[: whole.index("*")].rpartition("/")[0]
    names = [name for name in whole.split("/") if name not in ("", "..", ".")]
    told_apart = _beyond_path(parts, whole, names)
    if told_apart and names:
        names.insert(-1 if len(names) > 1 else 1, f"query-{told_apart}")
    return folder / Path(parts.scheme, *map(_short, names))


def _host(parts: SplitResult) -> str:
    """Host and port, without name and password of a user."""
    host = parts.netloc.rpartition("@")[2]
    if parts.scheme in _DEFAULT_PORTS:  # elsewhere it is the name of a bucket
        host = host.lower().removesuffix(_DEFAULT_PORTS[parts.scheme])
    return host


def _beyond_path(parts: SplitResult, whole: str, names: list[str]) -> str:
    """Hash of what distinguishes URLs of one path; empty where nothing does."""
    query = parse_qsl(parts.query, keep_blank_values=True) or ([(parts.query, "")] if parts.query else [])
    if any(name.lower() in ("signature", "sig", "x-amz-signature", "x-goog-signature") for name, _ in query):
        query = [(name, value) for name, value in query if not _SIGNATURE.fullmatch(name)]
    fragment = "" if parts.scheme in _DEFAULT_PORTS else parts.fragment
    path = "" if whole.strip("/") == "/".join(names) else whole
    known = repr((query, fragment, path))
    return xxhash.xxh3_64_hexdigest(known.encode()) if query or fragment or path else ""


def _short(name: str) -> str:
    """A name that file systems take: the middle of a long one is a hash."""
    raw = name.encode("utf-8", "surrogateescape")
    if len(raw) <= MAX_NAME_BYTES:
        return name
    begin, end = raw[:100].decode("utf-8", "ignore"), raw[-60:].decode("utf-8", "ignore")
    return f"{begin}-{xxhash.xxh3_64_hexdigest(raw)}-{end}"


def shown(url: str) -> str:
    """A URL, or a local path as it is, without the user's password and the values of keys and signatures."""
    if not is_url(url):
        return url
    head, mark, query = url.partition("?")
    scheme, _, rest = head.partition("://")
    authority, slash, path = rest.partition("/")
    user, at, host = authority.rpartition("@")
    if at:
        authority = f"{user.partition(':')[0]}:***@{host}" if ":" in user else f"***@{host}"
    pairs = []
    for pair in query.split("&") if mark else []:
        name, equals, _ = pair.partition("=")
        pairs.append(f"{name}=***" if equals and (_SECRET.search(name) or _SIGNATURE.fullmatch(name)) else pair)
    return f"{scheme}://{authority}{slash}{path}{mark}{'&'.join(pairs)}"


def without_secrets(message: str) -> str:
    """A message in one line, its URLs as `shown` has them."""
    return _URL.sub(lambda found: shown(found[0]), " ".join(message.split()))
