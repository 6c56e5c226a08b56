"""Raw files as the readers meet them, and what a reader makes of them."""

import io
import tarfile
import uuid

from datamodules.readers import Reader
from datamodules.readers.document import Document

HEADER = (
    '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" xml:lang="de"><siteinfo><sitename>W</sitename>'
    "<base>https://de.wikipedia.org/wiki/Hauptseite</base><namespaces>"
    '<namespace key="6" case="first-letter">Datei</namespace><namespace key="14">Kategorie</namespace>'
    "</namespaces></siteinfo>"
)
ARTICLE = """<?xml version="1.0"?>
<!DOCTYPE article PUBLIC "-//NLM//DTD JATS (Z39.96) v1.2//EN" "JATS-archivearticle1.dtd">
<article xmlns:xlink="http://www.w3.org/1999/xlink"><front><article-meta>
<article-id pub-id-type="doi">10.1/x</article-id>
<title-group><article-title>On <italic>things</italic></article-title></title-group>
<pub-date pub-type="ppub"><year>2020</year></pub-date>
<pub-date pub-type="epub"><day>3</day><month>2</month><year>2020</year></pub-date>
<permissions><license license-type="open" xlink:href="http://creativecommons.org/licenses/by/4.0/"><p>x</p></license>
</permissions><abstract><p>Short &alpha;.</p></abstract></article-meta></front>
<body><sec><title>Results</title><p>One <xref>1</xref>.</p><table-wrap><p>DEBRIS</p></table-wrap>
<disp-formula><tex-math>x^2</tex-math></disp-formula></sec></body><back><ref-list><p>DEBRIS</p></ref-list></back></article>
"""


def read_all(reader: Reader) -> list[Document]:
    """Documents of all files, in the order of the names of the files."""
    files = sorted(reader.files(), key=lambda file: file.name)
    return [document for file in files for document in reader.read(file)]


def outcomes(reader: Reader) -> list[str]:
    """Texts, or reasons in angle brackets."""
    return [f"<{document.reason}>" if document.text is None else document.text for document in read_all(reader)]


def tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            information = tarfile.TarInfo(name)
            information.size = len(content)
            archive.addfile(information, io.BytesIO(content))
    return buffer.getvalue()


def record(kind: str, url: str, payload: bytes, http: str = "") -> bytes:
    block = http.encode() + payload
    content = "application/http; msgtype=response" if http else "text/plain"
    header = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {url}\r\nWARC-Date: 2024-02-20T21:00:00Z\r\n"
        f"WARC-Record-ID: <urn:uuid:{uuid.uuid4()}>\r\nContent-Type: {content}\r\nContent-Length: {len(block)}\r\n\r\n"
    )
    return header.encode() + block + b"\r\n\r\n"


def response(url: str, payload: bytes, kind: str = "text/html", status: str = "200 OK") -> bytes:
    return record("response", url, payload, f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n\r\n")


def page(title: str, text: str, ns: int = 0, extra: str = "", model: str = "wikitext") -> str:
    escaped = text.replace("&", "&amp;").replace("<", "&lt;")
    return (
        f"<page><title>{title}</title><ns>{ns}</ns><id>1</id>{extra}<revision><id>2</id><timestamp>2024-01-02T03:04:05Z"
        f"</timestamp><model>{model}</model><text>{escaped}</text></revision></page>"
    )


def dump(*pages: str) -> bytes:
    return (HEADER + "".join(pages) + "</mediawiki>").encode()
