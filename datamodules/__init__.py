"""Names of data modules, readers, filters and rows that YAML uses as `datamodules.NAME`, imported when first used."""

from typing import TYPE_CHECKING

from common.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from datamodules.conversations.rows import DocstringRows, FileRows
    from datamodules.conversations.synthetic_tasks import ArgumentRows, ArithmeticRows, BracketRows
    from datamodules.curation.config import TextSource
    from datamodules.curation.deduplication.minhash import NearDuplicates
    from datamodules.curation.deduplication.repeated_lines import RepeatedLines
    from datamodules.curation.deduplication.repeated_spans import RepeatedSpans
    from datamodules.curation.deduplication.url import UrlDuplicates
    from datamodules.curation.filters.c4 import C4Lines, C4Page
    from datamodules.curation.filters.code_quality import CodeQuality
    from datamodules.curation.filters.decontaminate import Decontaminate
    from datamodules.curation.filters.fineweb import FineWebQuality
    from datamodules.curation.filters.gopher import GopherQuality, GopherRepetition
    from datamodules.curation.filters.language import Language
    from datamodules.curation.filters.length import Length
    from datamodules.curation.filters.normalize import RepairUnicode
    from datamodules.curation.filters.quality_classifier import QualityClassifier
    from datamodules.curation.filters.toxicity import ToxicityClassifier, WordList
    from datamodules.curation.filters.url_blocklist import UrlBlocklist
    from datamodules.curation.personal_data.mask import MaskPersonalData
    from datamodules.mixing.balance import Balance
    from datamodules.preferences import PreferenceData
    from datamodules.pretraining import PretrainingData
    from datamodules.prompts import PromptData
    from datamodules.random_tokens import RandomTokens
    from datamodules.readers import (
        ArxivSources,
        Books,
        CodeFiles,
        CommonCrawl,
        Docstrings,
        Files,
        HtmlFiles,
        HuggingFaceFolder,
        JatsArticles,
        Licenses,
        PythonSources,
        Readmes,
        WikipediaDump,
    )
    from datamodules.sft import SFTData
    from datamodules.shards.parquet_tokens import ParquetTokens

__all__ = [
    "ArgumentRows",
    "ArithmeticRows",
    "ArxivSources",
    "Balance",
    "Books",
    "BracketRows",
    "C4Lines",
    "C4Page",
    "CodeFiles",
    "CodeQuality",
    "CommonCrawl",
    "Decontaminate",
    "DocstringRows",
    "Docstrings",
    "FileRows",
    "Files",
    "FineWebQuality",
    "GopherQuality",
    "GopherRepetition",
    "HtmlFiles",
    "HuggingFaceFolder",
    "JatsArticles",
    "Language",
    "Length",
    "Licenses",
    "MaskPersonalData",
    "NearDuplicates",
    "ParquetTokens",
    "PreferenceData",
    "PretrainingData",
    "PromptData",
    "PythonSources",
    "QualityClassifier",
    "RandomTokens",
    "Readmes",
    "RepairUnicode",
    "RepeatedLines",
    "RepeatedSpans",
    "SFTData",
    "TextSource",
    "ToxicityClassifier",
    "UrlBlocklist",
    "UrlDuplicates",
    "WikipediaDump",
    "WordList",
]

__getattr__ = lazy_exports(__name__, __file__)
