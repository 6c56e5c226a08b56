r"""Paragraphs of a JATS document: blocks apart, formulas in TeX or one line, no citations in superscript.

Elements that are not known here are text of the paragraph around them: glued words are seen sooner than lost ones.
"""

import re
from xml.etree.ElementTree import Element

from datamodules.readers.formats.markup.mathml import mathml_text
from datamodules.readers.formats.markup.scripts import scripted

_LEFT_OUT = frozenset({
    "table-wrap", "table-wrap-group", "table", "fig", "fig-group", "ref-list", "supplementary-material", "fn-group",
    "fn", "media", "graphic", "inline-graphic", "alt-text", "long-desc", "back", "object-id", "label", "sec-meta",
    "index-term", "index-term-range-end", "related-article", "related-object", "front", "front-stub", "sub-article",
    "response",
})  # fmt: skip
_BLOCKS = frozenset({
    "sec", "title", "subtitle", "p", "disp-formula", "disp-formula-group", "list", "list-item", "disp-quote",
    "verse-group", "def-list", "def-item", "term", "def", "boxed-text", "statement", "speech", "speaker", "attrib",
    "abstract", "chem-struct-wrap",
    "array", "tr", "sig-block", "sig", "notes", "ack", "app", "glossary", "body",
})  # fmt: skip
_FORMULAS = frozenset({"inline-formula", "disp-formula", "alternatives"})
_CITATIONS = frozenset({"bibr", "fn", "table-fn"})
_BETWEEN_CITATIONS = re.compile(r"[\s,;:–—‐‑−&.\[\]()-]*")
_NUMBERS = re.compile(r"[\d\s,;–—‐−a-c*†‡§-]*\d[\d\s,;–—‐−a-c*†‡§-]*|[*†‡§¶]+")
_DOCUMENT = re.compile(r"\\begin\s*\{document\}(.*?)(?:\\end\s*\{document\}|\Z)", re.S)
_DELIMITERS = (("$$", "$$"), ("\\[", "\\]"), ("\\(", "\\)"), ("$", "$"))
_LINE = "\x00"
"""Marks the end of a line within a paragraph: XML has no such character."""


def paragraphs(element: Element) -> list[str]:
    """Headings and paragraphs in order; a block within a block is a paragraph of its own.

    Raises:
        RefusedError: `too_large` for a formula of a size that no page holds.
    """
    writer = _Writer()
    writer.write(element)
    writer.end_block()
    return writer.blocks


def title_text(element: Element) -> str:
    """A title in one line."""
    return " ".join(" ".join(paragraphs(element)).split())


def tex_formula(source: str, display: bool) -> str:
    r"""TeX of a formula without the document around it, a line by itself or between dollar signs within a sentence."""
    found = _DOCUMENT.search(source)
    formula = " ".join((found[1] if found else source).split())
    for opening, closing in _DELIMITERS:
        inner = formula[len(opening) : len(formula) - len(closing)]
        if (
            len(formula) > len(opening + closing)
            and formula.startswith(opening)
            and formula.endswith(closing)
            and opening not in inner
        ):
            formula = inner.strip()
            break
    return formula if display or not formula else f"${formula}$"


class _Writer:
    """Paragraphs written so far, and the text of the one that is open."""

    def __init__(self) -> None:
        self.blocks: list[str] = []
        self.open: list[str] = []
        self.display = False

    def end_block(self) -> None:
        text = " ".join("".join(self.open).split())
        text = re.sub(f" ?{_LINE} ?", "\n", text).strip()
        if text:
            self.blocks.append(text)
        self.open = []

    def write(self, node: Element, without_math: bool | None = None) -> None:
        """Append an element, but not what follows it. Recursive: XML is parsed to a limited depth."""
        name = node.tag
        if name in _LEFT_OUT or (without_math and name == "math") or _is_raised_citation(node):
            return
        if name in ("preformat", "code"):
            self._write_verbatim(node)
        elif name == "math":
            text = mathml_text(node)
            if node.get("display") == "block" and not self.display:
                self.end_block()
                self.open.append(text)
                self.end_block()
            else:
                self.open.append(text)
        elif name == "tex-math":
            self.open.append(tex_formula("".join(node.itertext()), self.display))
        elif name in ("sup", "sub"):
            self._write_script(node, without_math)
        elif name in _BLOCKS:
            self.end_block()
            outside, self.display = self.display, self.display or name == "disp-formula"
            self._write_content(node, without_math)
            self.display = outside
            self.end_block()
        else:
            self._write_content(node, without_math)
            if name in ("break", "td", "th"):
                self.open.append(" ")
            elif name == "verse-line":
                self.open.append(_LINE)

    def _write_content(self, node: Element, without_math: bool | None) -> None:
        if node.tag in _FORMULAS and without_math is None:  # searched once for all formulas within
            without_math = node.find(".//tex-math") is not None
        self.open.append(node.text or "")
        children = list(node)
        glued = False  # the last child was a citation glued to a word, and left out
        for index, child in enumerate(children):
            tail = child.tail or ""
            glued = _is_citation(child) and (glued or self._is_glued(child))
            if not glued:
                self.write(child, without_math)
            elif index + 1 < len(children) and _is_citation(children[index + 1]) and _separates(tail):
                continue
            else:
                glued = False
            self.open.append(tail)

    def _is_glued(self, citation: Element) -> bool:
        """True for a number right behind a word or its punctuation: raised by a style, as in Nature's XML."""
        before = "".join(self.open[-2:])[-1:]
        text = "".join(citation.itertext())
        return (before.isalpha() or before in '.,;:)”’"') and bool(before) and bool(_NUMBERS.fullmatch(text))

    def _write_script(self, node: Element, without_math: bool | None) -> None:
        before, self.open = self.open, []
        self._write_content(node, without_math)
        content = "".join(self.open)
        self.open = before
        self.open.append(scripted("".join(before[-3:]), content, node.tag == "sup"))

    def _write_verbatim(self, node: Element) -> None:
        text = "".join(node.itertext())
        if "\n" in text.strip("\n") or node.tag == "preformat":
            self.end_block()
            lines = [line.rstrip() for line in text.expandtabs(4).strip("\n").split("\n")]
            if any(lines):
                self.blocks.append("\n".join(lines).rstrip())
        else:
            self.open.append(text)


def _is_citation(node: Element) -> bool:
    return node.tag == "xref" and node.get("ref-type") in _CITATIONS


def _separates(text: str) -> bool:
    return len(text) < 10 and _BETWEEN_CITATIONS.fullmatch(text) is not None


def _is_raised_citation(node: Element) -> bool:
    """True for a superscript that holds citations alone, and for a citation that holds a superscript alone."""
    if node.tag == "sup":
        outside = [node.text or "", *(child.tail or "" for child in node)]
        cited = [_is_citation(child) for child in node]
        return any(cited) and all(cited) and all(map(_BETWEEN_CITATIONS.fullmatch, outside))
    if _is_citation(node) and len(node):
        outside = [node.text or "", *(child.tail or "" for child in node)]
        return all(child.tag == "sup" for child in node) and all(map(_BETWEEN_CITATIONS.fullmatch, outside))
    return False
