"""Document: one type for a text on its way through curation, whatever it was read from."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Document:
    """A document as a reader yields it.

    Attributes:
        text: the text, or None when it could not be read.
        reason: why there is no text.
        group: documents of one group never part between training and validation; by default
            a document is a group of its own.
        url: where it was published.
        license: under which it may be used, an SPDX identifier where one is known.
        date: when it was published or fetched, ISO 8601.
        file: its own path, by the end of which rules for kinds of files know it; None where only the path of what it
            was read from is known.
    """

    text: str | None
    reason: str | None = None
    group: str | None = None
    url: str | None = None
    license: str | None = None
    date: str | None = None
    file: str | None = None


def unless_surrogates(text: str) -> Document:
    """The document, or a reason: a lone surrogate (an escape in JSON or Python source, "\\ud800") is no text."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return Document(None, reason="invalid_utf8")
    return Document(text)


def text_or_reason(raw: bytes, group: str | None = None) -> Document:
    """The document in bytes that should be UTF-8; invalid bytes are a reason to drop it, never to guess.

    A byte-order mark in front is no text: many programs on Windows write it, JSON and Python do not parse with it.
    """
    try:
        return Document(raw.decode("utf-8-sig"), group=group)
    except UnicodeDecodeError:
        return Document(None, reason="invalid_utf8", group=group)
