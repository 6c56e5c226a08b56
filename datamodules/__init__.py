from datamodules.balance import Balance
from datamodules.cleaning.minhash import NearDuplicates
from datamodules.cleaning.pii import MaskPersonalData
from datamodules.cleaning.pipeline import Source
from datamodules.cleaning.quality import C4Page, CodeQuality, GopherQuality, GopherRepetition, Length
from datamodules.instructions import InstructionData
from datamodules.parquet_tokens import ParquetTokens
from datamodules.preferences import PreferenceData
from datamodules.pretraining import PretrainingData
from datamodules.prompts import PromptData
from datamodules.random_tokens import RandomTokens
from datamodules.readers import Docstrings, Files, Licences, PythonSources, Readmes
from datamodules.rows import DocstringRows, FileRows
from datamodules.tasks import ArgumentRows, ArithmeticRows, BracketRows

__all__ = [
    "ArgumentRows",
    "ArithmeticRows",
    "Balance",
    "BracketRows",
    "C4Page",
    "CodeQuality",
    "DocstringRows",
    "Docstrings",
    "FileRows",
    "Files",
    "GopherQuality",
    "GopherRepetition",
    "InstructionData",
    "Length",
    "Licences",
    "MaskPersonalData",
    "NearDuplicates",
    "ParquetTokens",
    "PreferenceData",
    "PretrainingData",
    "PromptData",
    "PythonSources",
    "RandomTokens",
    "Readmes",
    "Source",
]
