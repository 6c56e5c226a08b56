from datamodules.balance import Balance
from datamodules.cleaning.c4 import C4Lines, C4Page
from datamodules.cleaning.classifier import QualityClassifier
from datamodules.cleaning.code_quality import CodeQuality
from datamodules.cleaning.decontaminate import Decontaminate
from datamodules.cleaning.fineweb import FineWebQuality
from datamodules.cleaning.gopher import GopherQuality, GopherRepetition
from datamodules.cleaning.language import Language
from datamodules.cleaning.length import Length
from datamodules.cleaning.lines import RepeatedLines
from datamodules.cleaning.minhash import NearDuplicates
from datamodules.cleaning.normalize import RepairUnicode
from datamodules.cleaning.pii import MaskPersonalData
from datamodules.cleaning.pipeline import Source
from datamodules.cleaning.substring import RepeatedSpans
from datamodules.cleaning.toxicity import ToxicityClassifier, WordList
from datamodules.cleaning.url_blocklist import UrlBlocklist
from datamodules.cleaning.url_duplicates import UrlDuplicates
from datamodules.instructions import InstructionData
from datamodules.parquet_tokens import ParquetTokens
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
    Licences,
    PythonSources,
    Readmes,
    WikipediaDump,
)
from datamodules.rows import DocstringRows, FileRows
from datamodules.tasks import ArgumentRows, ArithmeticRows, BracketRows

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
    "InstructionData",
    "JatsArticles",
    "Language",
    "Length",
    "Licences",
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
    "Source",
    "ToxicityClassifier",
    "UrlBlocklist",
    "UrlDuplicates",
    "WikipediaDump",
    "WordList",
]
