from datamodules.cleaning.dedup import NearDuplicates
from datamodules.cleaning.pii import MaskPersonalData
from datamodules.cleaning.pipeline import Source
from datamodules.cleaning.quality import C4Page, CodeQuality, GopherQuality, GopherRepetition, Length
from datamodules.pretraining import PretrainingData
from datamodules.random_tokens import RandomTokens
from datamodules.readers import Docstrings, Files, Licences, PythonSources, Readmes

__all__ = [
    "C4Page",
    "CodeQuality",
    "Docstrings",
    "Files",
    "GopherQuality",
    "GopherRepetition",
    "Length",
    "Licences",
    "MaskPersonalData",
    "NearDuplicates",
    "PretrainingData",
    "PythonSources",
    "RandomTokens",
    "Readmes",
    "Source",
]
