"""HTML nesting depth and what else makes parsers slow, from the tags alone in linear time.

Building the tree would give the exact depth, but takes time quadratic in it, for which such pages have to be refused;
`html_bounds` builds it where the depth found here is above the limit and the page small enough. So tags are separated
from text as the HTML standard has it (section 13.2.5), and which end tag closes what follows its stack of open elements
(section 13.2.6) as far as depth is concerned: where in doubt, an element is taken to stay open. Not followed is HTML
within SVG or MathML within HTML beyond the first level.
"""

import re
from collections import Counter

from datamodules.readers.formats.bounded_streams import RefusedError

MAX_DEPTH = 256
"""Elements within each other; the limit of libxml2, too. Extraction takes time with the square of the depth."""
MAX_PAIRS = 10**8
"""Pairs of options of one selection, or of attributes of one tag, on a page: 10,000 of either in one place, 0.3 s.
Lexbor compares each with all before it, so that 80,000 take half a minute."""
MAX_STEPS = 2 * 10**7
"""Open elements looked at while end tags are followed, half a second at most."""
_LONG_TAG = 1000
"""Characters of a tag from which its attributes are counted: some 300 in fewer take no time."""
_SMALL = 10_000
"""Characters of a page that cannot hold so many attributes or options that it would take long."""

ATTRIBUTES = (
    r"(?:[\t\n\f\r /]++|[^\t\n\f\r />][^\t\n\f\r />=]*+"
    r"(?:[\t\n\f\r ]*+=[\t\n\f\r ]*+(?:\"[^\"]*+\"?+|'[^']*+'?+|[^\t\n\f\r >\"'][^\t\n\f\r >]*+)?+)?+)*+"
)
_TAG = re.compile(
    r"<(?:!--(?:-?>|.*?(?:--!?>|\Z))|(?P<data>!\[CDATA\[)|[!?][^>]*+>?|/[^a-z>][^>]*+>?|"
    rf"(?P<slash>/?)(?P<name>[a-z][^\t\n\f\r />]*+){ATTRIBUTES}(?:>|\Z))",
    re.I | re.S | re.A,
)
_ATTRIBUTE = re.compile(
    r"(?:^<[^\t\n\f\r />]*+)?+[\t\n\f\r /]++([^\t\n\f\r />][^\t\n\f\r />=]*+)"
    r"(?:[\t\n\f\r ]*+=[\t\n\f\r ]*+(\"[^\"]*+\"?+|'[^']*+'?+|[^\t\n\f\r >]*+))?+"
)
_HTML_TYPES = ("text/html", "application/xhtml+xml")
_FRAMESET = re.compile(r"<frameset", re.I | re.A)
_CAPTION = re.compile(r"[^<]*+</(?:title|desc)[\t\n\f\r ]*+>", re.I | re.A)
_RAW_END = {
    name: re.compile(rf"</{name}(?=[\t\n\f\r />])", re.I | re.A)
    for name in ("script", "style", "textarea", "title", "xmp", "iframe", "noembed", "noframes")
}
_TEXT = frozenset({*_RAW_END, "plaintext"})
_NEVER_NESTED = frozenset({
    "area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr",
    "html", "head", "body", "p", "tr", "td", "th", "thead", "tbody", "tfoot", "option", "colgroup",
    "caption", "image", "keygen", "basefont", "bgsound", "frame", "frameset",
})  # fmt: skip
"""Elements that have no content, and those that end by themselves where the next begins."""
_ITEMS = {"li": frozenset({"li"}), "dt": frozenset({"dt", "dd"}), "dd": frozenset({"dt", "dd"})}
"""Items of lists and the items that end where they begin; those of one kind nest in those of the other."""
_CLOSED_ALONE = frozenset({"form", "select", "svg", "math"})
"""Elements whose end tags may be meant for others than are open, so that what is within them stays open."""
_FORMATTING = frozenset({
    "a", "b", "big", "code", "em", "font", "i", "nobr", "s", "small", "strike", "strong", "tt", "u",
})  # fmt: skip
"""Elements that are opened again behind the end of what they were opened in."""
_HOLDS_HTML = {
    "svg": frozenset({"foreignobject", "desc", "title"}),
    "math": frozenset({"mi", "mo", "mn", "ms", "mtext", "annotation-xml"}),
}
"""Elements of SVG and MathML in which HTML begins again; "!" before their names separates them from HTML's."""
_SCOPES = frozenset({
    "applet", "marquee", "object", "table", "template", "select",
    *(f"!{name}" for names in _HOLDS_HTML.values() for name in names),
})  # fmt: skip
"""Elements out of which no end tag reaches."""
_BLOCKS = _SCOPES | {
    "address", "article", "aside", "blockquote", "button", "center", "details", "dialog", "dir", "div", "dl",
    "fieldset", "figcaption", "figure", "footer", "form", "h1", "header", "hgroup", "listing", "main",
    "menu", "nav", "noscript", "ol", "pre", "search", "section", "summary", "ul", *_ITEMS,
}  # fmt: skip
"""Elements out of which no end tag of a phrase, such as </span>, reaches: "special" in the standard."""
_HEADINGS = frozenset({"h2", "h3", "h4", "h5", "h6"})
_ENDS_FOREIGN = frozenset({
    "b", "big", "blockquote", "body", "br", "center", "code", "dd", "div", "dl", "dt", "em", "embed", "h1",
    "head", "hr", "i", "img", "li", "listing", "menu", "meta", "nobr", "ol", "p", "pre", "ruby", "s", "small", "span",
    "strong", "strike", "sub", "sup", "table", "tt", "u", "ul", "var",
})  # fmt: skip
"""Elements that SVG and MathML cannot hold: they end it."""
_ARK = 3
"""Formatting elements of one kind that are sure to be opened again, and so to be closed wherever their end tag is."""


class _Open:
    """The elements that are open."""

    def __init__(self) -> None:
        self.names: list[str] = []
        # Those that are always asked for have a number: a Counter takes long to say none.
        self.count: Counter[str] = Counter(dict.fromkeys(("li", "select", "ruby"), 0))
        self.foreign: int | None = None  # where the SVG or MathML begins in which everything since then is
        self.steps = 0  # open elements looked at

    def start(self, name: str, ends_itself: bool) -> None:
        """Open an element."""
        if self.foreign is not None and name in _ENDS_FOREIGN:
            self._cut(self.foreign)
        if self.foreign is not None:
            if ends_itself:
                return
        elif name in _NEVER_NESTED or (ends_itself and name in _HOLDS_HTML):
            return
        if self.foreign is None:
            if name in _HOLDS_HTML:
                self.foreign = len(self.names)
            elif name in _ITEMS:
                self._end_item(_ITEMS[name])
            elif name in ("rt", "rp") and self.count["ruby"]:
                while self.names and self.names[-1] in _ITEMS:
                    self._cut(len(self.names) - 1)
            elif name == "select" and (selects := self.count["select"]):
                self.end("select")
                if self.count["select"] < selects:
                    return
        elif name in _HOLDS_HTML[self.names[self.foreign]]:
            self.foreign = None
            name = f"!{name}"
        self.names.append(name)
        self.count[name] += 1

    def _end_item(self, names: frozenset[str]) -> None:
        if not any(self.count[name] for name in names):
            return
        for place in reversed(range(len(self.names))):
            self.steps += 1
            if self.names[place] in names:
                self._cut(place)
                return
            if self.names[place] in _BLOCKS and self.names[place] not in ("div", "address"):
                return

    def end(self, name: str) -> None:
        """Close what an end tag closes."""
        if self.foreign is not None and name in ("p", "br"):
            self._cut(self.foreign)
        if self.names and self.names[-1] == f"!{name}":
            name = f"!{name}"
        if not self.count[name]:
            return
        if self.names[-1] == name:
            del self.names[-1]
            self.count[name] -= 1
            if len(self.names) == self.foreign:
                self.foreign = None
            return
        place = len(self.names) - 1 - self.names[::-1].index(name)
        inside = self.names[place + 1 :]
        self.steps += len(inside)
        if self.foreign is not None:
            if place >= self.foreign:
                self._cut(place)
                return
            inside = self.names[place + 1 : self.foreign]
        if name == "table":
            barrier = frozenset({"template"})
        elif name == "li":
            barrier = _SCOPES | {"ol", "ul"}
        elif (name in _BLOCKS and name != "noscript") or (name in _FORMATTING and self.count[name] <= _ARK):
            barrier = _SCOPES
        else:
            barrier = _BLOCKS
        if not barrier.isdisjoint(inside):
            return
        if name in _FORMATTING or name in _CLOSED_ALONE:
            del self.names[place]
            self.count[name] -= 1
            self.foreign = None
        else:
            self._cut(place)

    def _cut(self, place: int) -> None:
        """Close all from a place on; formatting elements within it will be opened again."""
        in_foreign = self.foreign is not None and place >= self.foreign
        self.steps += len(self.names) - place
        kept = [] if in_foreign else [name for name in self.names[place + 1 :] if name in _FORMATTING]
        self.count.subtract(self.names[place:])
        self.count.update(kept)
        self.names[place:] = kept
        if self.foreign is not None and place <= self.foreign:
            self.foreign = None


def depth(html: str, max_depth: int = MAX_DEPTH, formatting: set[str] | None = None) -> int:
    """Elements within each other at most; counting stops above `max_depth`.

    Elements that end by themselves where the next begins, such as <p> and <li>, are not counted; of a page with too few
    tags to be too deep none are.

    Args:
        html: the page.
        max_depth: where to stop.
        formatting: takes the start tags of formatting elements, each once.

    Raises:
        RefusedError: `too_many_options` and `too_many_attributes` beyond `MAX_PAIRS`, `too_deep` beyond `MAX_STEPS`.
    """
    is_shallow = html.count("<") - html.count("</") <= MAX_DEPTH
    if is_shallow and len(html) < _SMALL:
        return 0
    opened = _Open()
    names, count, search = opened.names, opened.count, _TAG.search
    deepest = position = options = option_pairs = attribute_pairs = root_attributes = 0
    while match := search(html, position):
        position = match.end()
        data, slash, name = match.groups()
        if name is None:
            if data:
                # Text in SVG and MathML, a comment that ends with the tag in HTML.
                mark = ">" if opened.foreign is None else "]]>"
                found = html.find(mark, position)
                position = len(html) if found < 0 else found + len(mark)
            continue
        name = name.lower()
        if position - match.start() > _LONG_TAG:
            attribute_pairs += sum(1 for _ in _ATTRIBUTE.finditer(match[0])) ** 2
            if attribute_pairs > MAX_PAIRS:
                raise RefusedError("too_many_attributes")
        if opened.foreign is None:
            if name in _NEVER_NESTED:
                if name == "option":
                    if not slash and count["select"]:
                        options += 1
                        option_pairs += 2 * options
                        if option_pairs > MAX_PAIRS:
                            raise RefusedError("too_many_options")
                elif name == "input" and count["select"]:
                    opened.end("select")
                elif name in ("html", "body"):
                    # The attributes of all of them become those of one.
                    root_attributes += sum(1 for _ in _ATTRIBUTE.finditer(match[0]))
                    if root_attributes**2 > MAX_PAIRS:
                        raise RefusedError("too_many_attributes")
                elif name == "frameset" and len(_FRAMESET.findall(html)) > MAX_DEPTH:
                    # Among frames all else is passed over, so that anything may come between them.
                    return max_depth + 1
                continue
            # What follows spares most tags the calls below.
            if slash and names and names[-1] == name:
                del names[-1]
                count[name] -= 1
                continue
        if name in _HEADINGS:  # the end tag of any closes any
            name = "h1"
        if slash:
            opened.end(name)
            if opened.steps > MAX_STEPS:
                raise RefusedError("too_deep")
            continue
        if formatting is not None and name in _FORMATTING:
            formatting.add(match[0])
        if opened.foreign is None:
            if name in _TEXT:
                position = _behind_text(html, position, name)
                continue
            if name == "select":
                options = 0
        elif name == "font" and not _attributes(match[0]).keys().isdisjoint(("color", "face", "size")):
            opened.end("br")  # ends SVG and MathML, too
        elif (
            names[opened.foreign] == "svg" and name in ("title", "desc") and (caption := _CAPTION.match(html, position))
        ):
            position = caption.end()
            continue
        if name != "annotation-xml" or _attributes(match[0]).get("encoding") in _HTML_TYPES:
            opened.start(name, html.endswith("/>", match.start(), match.end()))
        else:
            opened.start("annotation", html.endswith("/>", match.start(), match.end()))
        if len(names) > deepest and len(names) - count["li"] > deepest:
            deepest = len(names) - count["li"]
            if deepest > max_depth:
                break
    return 0 if is_shallow else deepest


def _attributes(tag: str) -> dict[str, str]:
    """Names and values of the attributes of a start tag in lower case; of two with one name the first counts."""
    found: dict[str, str] = {}
    for match in _ATTRIBUTE.finditer(tag.lower()):
        found.setdefault(match[1], (match[2] or "").strip("\"'"))
    return found


def _behind_text(html: str, position: int, name: str) -> int:
    """Where the content of an element ends that holds text and no elements."""
    found = _RAW_END[name].search(html, position) if name in _RAW_END else None
    return found.end() if found else len(html)
