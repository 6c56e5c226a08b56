"""JATS reader: scientific articles in the XML of PubMed Central, publishers and SciELO.

Text, headings, formulas and code are kept; tables, figures and references, which read as debris without their layout,
are dropped, as in The Pile's PubMed Central (Gao et al. 2020, appendix C.2).
"""

from collections.abc import Iterator
from dataclasses import replace
from xml.etree.ElementTree import Element

from datamodules.readers.base import InputFile
from datamodules.readers.document import Document, unless_surrogates
from datamodules.readers.formats.bounded_streams import RefusedError, open_bounded, read_whole, tar_members
from datamodules.readers.formats.markup.jats_text import paragraphs, title_text
from datamodules.readers.formats.xml import parse_xml, text_of
from datamodules.readers.html import creative_commons
from datamodules.readers.paths import PathReader


class JatsArticles(PathReader):
    """JATS articles, one document each: title, abstract and sections, with DOI, license and date of publication.

    Tar archives of articles, as PubMed Central's bulk packages are, give one document a member; a file may hold several
    articles. Translations and reviews within an article (`sub-article`, `response`) are documents of its group. What
    has neither text nor abstract is dropped as `no_body`, XML that is no JATS as `no_article`.
    """

    SUFFIXES = (".xml", ".nxml", ".tar", ".tgz")

    def documents(self, path: str, file: InputFile) -> Iterator[Document]:
        """The articles of an XML file, or all of an archive."""
        with open_bounded(path) as stream:
            if self.format_of(file.name) not in (".tar", ".tgz"):
                yield from articles(read_whole(stream, self.max_bytes))
                return
            members = tar_members(stream, self.max_bytes, lambda name: name.lower().endswith((".xml", ".nxml")))
            for _, raw in members:
                if raw is None:
                    yield Document(None, reason="too_large")
                else:
                    yield from articles(raw)


def articles(raw: bytes) -> Iterator[Document]:
    """The documents of a JATS file, or the reason why there is none."""
    try:
        root = parse_xml(raw)
    except RefusedError as refused:
        yield Document(None, reason=str(refused))
        return
    found = [root] if root.tag == "article" else root.findall(".//article")
    if not found:
        yield Document(None, reason="no_article")
    for each in found:
        whole = _article(each, None)
        parts = [_article(part, whole) for name in ("sub-article", "response") for part in each.iterfind(f".//{name}")]
        if parts:
            group = whole.url or next((part.url for part in parts if part.url), None)
            yield replace(whole, group=group)
            yield from (replace(part, group=group) for part in parts)
        else:
            yield whole


def _article(found: Element, whole: Document | None) -> Document:
    """An article, or a part of one that has its facts but for those that are its own."""
    front = found.find("front/article-meta") if whole is None else found.find("front-stub")
    if front is None and whole is not None:
        front = found.find("front/article-meta")
    facts = Document(None) if whole is None else replace(whole, text=None, reason=None)
    head: list[str] = []
    parts: list[str] = []
    if front is not None:
        own = Document(None, url=_url(front), license=_license(front), date=_date(front))
        facts = replace(
            facts, url=own.url or facts.url, license=own.license or facts.license, date=own.date or facts.date
        )
        title = front.find("title-group/article-title")
        head = [title_text(title)] if title is not None else []
    try:
        for abstract in front.findall("abstract") if front is not None else []:
            if blocks := paragraphs(abstract):
                parts += blocks if abstract.find("title") is not None else ["Abstract", *blocks]
        body = found.find("body")
        parts += paragraphs(body) if body is not None else []
    except RefusedError as refused:
        return replace(facts, reason=str(refused))
    if not any(parts):
        return replace(facts, reason="no_body")
    document = unless_surrogates("\n\n".join(part for part in (*head, *parts) if part))
    return replace(facts, text=document.text, reason=document.reason)


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
