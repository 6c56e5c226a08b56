r"""MathML as text of a document: a formula in one line, in the notation of TeX.

Fractions, roots, scripts and tables become TeX; symbols stay the characters that they are, since names for all of them
would be a table of two thousand lines. TeX that the publisher left as an annotation is taken as it is.
"""

from collections.abc import Callable
from xml.etree.ElementTree import Element

from datamodules.readers.formats.bounded_streams import RefusedError

MAX_FORMULA = 100_000
"""Characters of a formula at most: those of papers have a hundredth of it."""

_ACCENTS = {
    "¯": "bar", "‾": "bar", "_": "bar", "ˉ": "bar", "^": "hat", "ˆ": "hat", "\u0302": "hat", "~": "tilde", "˜": "tilde",
    "→": "vec", "\u20d7": "vec", "˙": "dot", ".": "dot", "¨": "ddot", "⏞": "overbrace", "︷": "overbrace",
    "ˇ": "check", "˘": "breve",
}  # fmt: skip
_NO_TEXT = frozenset({"mphantom", "maligngroup", "malignmark", "none", "mprescripts", "annotation-xml"})
_INVISIBLE = {ord(character): None for character in "\u2061\u2062\u2063\u2064\u200b"}


def mathml_text(formula: Element) -> str:
    """A formula in one line.

    Args:
        formula: the element `math`, its names without a namespace.

    Raises:
        RefusedError: `too_large` beyond `MAX_FORMULA` characters.
    """
    written: dict[int, str] = {}
    size = 0
    # Children before their parents, without recursion: depth is the document's choice.
    for node in reversed(list(formula.iter())):
        children = [written.pop(id(child)) for child in node]
        text = _written(node, children)
        size += len(node.text or "")
        if len(text) > MAX_FORMULA or size > MAX_FORMULA:
            raise RefusedError("too_large")
        written[id(node)] = text
    return " ".join(written[id(formula)].split())


def _written(node: Element, children: list[str]) -> str:
    name = node.tag
    if name in _NO_TEXT or (name == "annotation" and "tex" not in node.get("encoding", "").lower()):
        return ""
    if not children:
        return _token(name, (node.text or "").translate(_INVISIBLE))
    if name in _LAYOUTS and len(children) == _LAYOUTS[name][0]:
        return _LAYOUTS[name][1](children)
    if name == "semantics":
        annotated = [text for child, text in zip(node, children, strict=True) if child.tag == "annotation" and text]
        return annotated[0] if annotated else children[0]
    if name == "msqrt":
        return f"\\sqrt{{{_row(children)}}}"
    if name == "mmultiscripts":
        return _scripts(node, children)
    if name == "mfenced":
        between = f"{node.get('separators', ',').strip()[:1]} "
        return node.get("open", "(") + between.join(child.strip() for child in children) + node.get("close", ")")
    if name in ("mtr", "mlabeledtr"):
        return " & ".join(child.strip() for child in children[name == "mlabeledtr" :])
    if name == "mtable":
        return " \\\\ ".join(children)
    return _row(children)


def _token(name: str, text: str) -> str:
    text = " ".join(text.split())
    if name == "mspace":
        return " "
    if name == "mtext":
        return f" {text} " if text else " "
    if name == "ms":
        return f'"{text}"'
    # Names of functions of several letters, and signs between others, need room on both sides.
    return f" {text} " if (name == "mi" and len(text) > 1) or (name == "mo" and text in _SPACED) else text


_SPACED = frozenset("=<>≤≥≠≈≡∼≅∝→←↔⇒⇐⇔∈∉⊂⊆⊃∪∩∧∨+−±×·÷∘⊗⊕:≪≫≔") | {":=", "<=", ">=", "->"}


def _row(children: list[str]) -> str:
    return "".join(children)


def _braced(text: str) -> str:
    text = text.strip()
    return text if len(text) == 1 else f"{{{text}}}"


def _base(text: str) -> str:
    text = text.strip()
    return text if text.isalnum() or len(text) < 2 or text.startswith("\\") or text[0] in "([{" else f"{{{text}}}"


def _over(children: list[str]) -> str:
    if accent := _ACCENTS.get(children[1].strip()):
        return f"\\{accent}{{{children[0].strip()}}}"
    return f"{_base(children[0])}^{_braced(children[1])}"


def _under(children: list[str]) -> str:
    if children[1].strip() in ("_", "¯", "\u0332", "‾"):
        return f"\\underline{{{children[0].strip()}}}"
    return f"{_base(children[0])}_{_braced(children[1])}"


def _both(children: list[str]) -> str:
    return f"{_base(children[0])}_{_braced(children[1])}^{_braced(children[2])}"


def _scripts(node: Element, children: list[str]) -> str:
    """A base with pairs of scripts behind it and, after `mprescripts`, before it."""
    base, before, after, prescripts = children[0], "", "", False
    pairs = list(zip(node, children, strict=True))[1:]
    index = 0
    while index < len(pairs):
        if pairs[index][0].tag == "mprescripts":
            prescripts, index = True, index + 1
            continue
        below, above = pairs[index][1], pairs[index + 1][1] if index + 1 < len(pairs) else ""
        both = (f"_{_braced(below)}" if below.strip() else "") + (f"^{_braced(above)}" if above.strip() else "")
        before, after = (before + both, after) if prescripts else (before, after + both)
        index += 2
    return (f"{{}}{before}" if before else "") + _base(base) + after


_LAYOUTS: dict[str, tuple[int, Callable[[list[str]], str]]] = {
    "mfrac": (2, lambda parts: f"\\frac{{{parts[0].strip()}}}{{{parts[1].strip()}}}"),
    "mroot": (2, lambda parts: f"\\sqrt[{parts[1].strip()}]{{{parts[0].strip()}}}"),
    "msup": (2, lambda parts: f"{_base(parts[0])}^{_braced(parts[1])}"),
    "msub": (2, lambda parts: f"{_base(parts[0])}_{_braced(parts[1])}"),
    "msubsup": (3, _both),
    "mover": (2, _over),
    "munder": (2, _under),
    "munderover": (3, _both),
}
"""Elements with a fixed number of children; any other number is written as a row."""
