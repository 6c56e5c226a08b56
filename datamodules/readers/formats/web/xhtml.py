"""XHTML as HTML: what the two read differently, rewritten, so that one parser and one extractor serve both.

A parser of XML would read all of XHTML right, but refuse a chapter for one bare ampersand; what is not well-formed is
left to the parser of HTML here.
"""

import re
from html import escape

from datamodules.readers.formats.web.html_depth import ATTRIBUTES

_VOID = frozenset({
    "area", "base", "basefont", "bgsound", "br", "col", "embed", "frame", "hr", "img", "input", "keygen", "link",
    "meta", "param", "source", "track", "wbr",
})  # fmt: skip
_MARKUP = re.compile(
    r"<!--.*?(?:-->|\Z)|<!\[CDATA\[(?P<data>.*?)(?:\]\]>|\Z)|<\?.*?(?:\?>|\Z)|"
    r"(?P<definitions><!DOCTYPE[^\[>]*+\[.*?(?:\]\s*+>|\Z))|"
    rf"<(?P<slash>/?)(?P<name>[a-z_][\w.:-]*+)(?P<rest>{ATTRIBUTES})(?:>|\Z)",
    re.S | re.I,
)
_PREFIX = re.compile(r"xmlns:([\w.-]{1,40})\s{0,9}=\s{0,9}[\"']http://www\.(?:w3|idpf)\.org/")


def begins_as_xml(text: str) -> bool:
    """True if a page begins with an XML declaration."""
    return text[:200].lstrip().startswith("<?xml")


def xhtml_as_html(text: str) -> str:
    """XHTML as HTML that a parser of HTML reads alike: empty elements get end tags, CDATA sections become text.

    In HTML `<title/>` and `<script/>` are start tags, and all that follows is their content. The prefixes of HTML's,
    SVG's and MathML's namespaces go, and so do the XML declaration and definitions within the document type.
    """
    prefixes = tuple({f"{prefix}:" for prefix in _PREFIX.findall(text)})
    within = ""  # the script or style that is open

    def as_html(match: re.Match[str]) -> str:
        nonlocal within
        data, definitions, slash, name, rest = match.groups()
        if data is not None:
            return data if within else escape(data, quote=False)
        if definitions is not None:
            return "<!DOCTYPE html>" if definitions.endswith(">") else match[0]
        if name is None:
            return "" if match[0].startswith("<?") else match[0]
        if prefixes and name.startswith(prefixes):
            name = name.partition(":")[2]
        if slash:
            within = "" if name == within else within
            # Pictures have lines of text beside each other.
            return "</text>\n" if name == "text" else f"</{name}>"
        if rest.endswith("/"):
            rest = rest.rstrip("/ \t\r\n")
            return f"<{name}{rest}>" if name.lower() in _VOID else f"<{name}{rest}></{name}>"
        if name in ("script", "style"):
            within = name
        return f"<{name}{rest}>"

    return _MARKUP.sub(as_html, text)
