"""JATS reader: scientific articles in the XML of PubMed Central, publishers and SciELO.

Text, headings and TeX of formulas are kept; tables, figures and references, which read as debris without their layout,
are dropped, as in The Pile's PubMed Central (Gao et al. 2020, appendix C.2).
"""

from collections.abc import Iterator
from xml.etree.ElementTree import Element

from datamodules.readers.base import InputFile
from datamodules.readers.document import Document, unless_surrogates
from datamodules.readers.formats.bounded_streams import RefusedError, open_bounded, read_whole, tar_members
from datamodules.readers.formats.xml import parse_xml, text_of
from datamodules.readers.html import creative_commons
from datamodules.readers.paths import PathReader

_LEFT_OUT = frozenset({
    "table-wrap", "table", "fig", "fig-group", "ref-list", "supplementary-material",
    "fn-group", "fn", "media", "graphic",
    "back", "mml:math", "math", "object-id", "label",
})  # fmt: skip
_BLOCKS = frozenset({"title", "p", "disp-formula", "list-item", "disp-quote", "verse-line", "def"})


class JatsArticles(PathReader):
    """JATS articles, one document each: title, abstract and sections, with DOI, license and date of publication.

    Tar archives of articles, as PubMed Central's bulk packages are, give one document a member. What has no body is
    dropped as `no_body`, unless it has an abstract.
    """

    SUFFIXES = (".xml", ".nxml", ".tar", ".tgz")

    def documents(self, path: str, file: InputFile) -> Iterator[Document]:
        """The article of an XML file, or all of an archive."""
        with open_bounded(path) as stream:
            if self.format_of(file.name) not in (".tar", ".tgz"):
                yield article(read_whole(stream, self.max_bytes))
                return
            for name, raw in tar_members(stream, self.max_bytes):
                if name.lower().endswith((".xml", ".nxml")):
                    yield Document(None, reason="too_large") if raw is None else article(raw)


def article(raw: bytes) -> Document:
    """The document of a JATS article, or the reason why there is none."""
    try:
        root = parse_xml(raw)
    except RefusedError as refused:
        return Document(None, reason=str(refused))
    found = root if root.tag == "article" else root.find(".//article")
    if found is None:
        return Document(None, reason="no_article")
    front = found.find("front/article-meta")
    parts: list[str] = []
    if front is not None:
        title = front.find("title-group/article-title")
        parts += [text_of(title, _LEFT_OUT)] if title is not None else []
        for abstract in front.findall("abstract"):
            parts += ["Abstract", *_blocks(abstract)] if abstract.find("title") is None else _blocks(abstract)
    body = found.find("body")
    parts += _blocks(body) if body is not None else []
    if body is None and (front is None or front.find("abstract") is None):
        return Document(None, reason="no_body")
    document = unless_surrogates("\n\n".join(part for part in parts if part))
    if front is None or document.text is None:
        return document
    return Document(document.text, url=_url(front), license=_license(front), date=_date(front))


def _blocks(element: Element) -> list[str]:
    """Headings and paragraphs in order; a block within a block is part of it, once."""
    found: list[str] = []
    stack = [element]
    while stack:
        node = stack.pop()
        if node.tag in _LEFT_OUT:
            continue
        if node.tag in _BLOCKS:
            tex = node.find(".//tex-math") if node.tag == "disp-formula" else None
            found.append(text_of(node if tex is None else tex, _LEFT_OUT))
        else:
            stack += reversed(node)
    return found


def _url(front: Element) -> str | None:
    for kind, address in (("doi", "https://doi.org/"), ("pmcid", "https://www.ncbi.nlm.nih.gov/pmc/articles/")):
        found = front.find(f"article-id[@pub-id-type='{kind}']")
        if found is not None and (identifier := text_of(found)):
            return address + identifier
    return None


def _license(front: Element) -> str | None:
    """SPDX identifier of a Creative Commons address anywhere in the license, else what `license-type` says."""
    for license in front.iterfind("permissions/license"):
        addresses = [value for node in license.iter() for value in (*node.attrib.values(), node.text or "")]
        declared = next((found for found in map(creative_commons, addresses) if found), None)
        if declared or license.get("license-type"):
            return declared or license.get("license-type")
    return None


def _date(front: Element) -> str | None:
    """Earliest complete date of publication, as far as it is given: year, month, day."""
    dates = []
    for date in front.findall("pub-date"):
        numbers = [date.findtext(part, "").strip() for part in ("year", "month", "day")]
        known = []
        for number, width in zip(numbers, (4, 2, 2), strict=True):
            if not (number.isascii() and number.isdigit()):
                break
            known.append(number.zfill(width))
        if known:
            dates.append("-".join(known))
    return min(dates, key=lambda date: (-len(date), date), default=None)
