from datamodules.cleaning.c4 import C4Lines, C4Page
from datamodules.cleaning.code_quality import CodeQuality
from datamodules.cleaning.dedup import NearDuplicates
from datamodules.cleaning.fineweb import FineWebQuality
from datamodules.cleaning.gopher import GopherQuality, GopherRepetition
from datamodules.cleaning.length import Length
from datamodules.cleaning.pii import MaskPersonalData
from datamodules.cleaning.pipeline import Source
from datamodules.instructions import InstructionData
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
    "BracketRows",
    "C4Lines",
    "C4Page",
    "CodeQuality",
    "DocstringRows",
    "Docstrings",
    "FileRows",
    "Files",
    "FineWebQuality",
    "GopherQuality",
    "GopherRepetition",
    "InstructionData",
    "Length",
    "Licences",
    "MaskPersonalData",
    "NearDuplicates",
    "PreferenceData",
    "PretrainingData",
    "PromptData",
    "PythonSources",
    "RandomTokens",
    "Readmes",
    "Source",
]
