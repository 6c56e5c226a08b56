"""Readers: one class per kind of source; each lists files cheaply and reads one file at a time."""

from typing import TYPE_CHECKING

from common.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from datamodules.readers.arxiv import ArxivSources
    from datamodules.readers.base import InputFile, Reader, distinct_tails, provenance_name, stable_hash
    from datamodules.readers.books import Books
    from datamodules.readers.code import CodeFiles
    from datamodules.readers.common_crawl import CommonCrawl
    from datamodules.readers.files import Files, is_blank
    from datamodules.readers.formats.web.html_text import html_to_text
    from datamodules.readers.html import HtmlFiles, looks_like_html
    from datamodules.readers.hugging_face import HuggingFaceFolder
    from datamodules.readers.installed import (
        Definition,
        Docstrings,
        InstalledFiles,
        Licenses,
        PythonSources,
        Readmes,
        definitions,
        parse_python,
    )
    from datamodules.readers.jats import JatsArticles
    from datamodules.readers.json_stream import parse_json
    from datamodules.readers.paths import PathReader
    from datamodules.readers.wikipedia import WikipediaDump

__all__ = [
    "ArxivSources",
    "Books",
    "CodeFiles",
    "CommonCrawl",
    "Definition",
    "Docstrings",
    "Files",
    "HtmlFiles",
    "HuggingFaceFolder",
    "InputFile",
    "InstalledFiles",
    "JatsArticles",
    "Licenses",
    "PathReader",
    "PythonSources",
    "Reader",
    "Readmes",
    "WikipediaDump",
    "definitions",
    "distinct_tails",
    "html_to_text",
    "is_blank",
    "looks_like_html",
    "parse_json",
    "parse_python",
    "provenance_name",
    "stable_hash",
]

__getattr__ = lazy_exports(__name__, __file__)
