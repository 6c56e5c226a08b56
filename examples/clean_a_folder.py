"""Curation of a folder of text from Python: python examples/clean_a_folder.py FOLDER OUTPUT."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from datamodules import Files, GopherQuality, GopherRepetition, Length, NearDuplicates, PretrainingData, TextSource
from datamodules.tokenization.base import TokenizerSettings


def clean(folder: str, output: str) -> Path:
    """Filter, deduplicate and mask the text files of a folder; the folder of clean documents, with a report.

    Args:
        folder: JSONL, Parquet, plain text or Markdown.
        output: folder of prepared data, reused when nothing changed.
    """
    data = PretrainingData(
        folder=output,
        sources={
            "mine": TextSource(Files([folder]), [Length(min_characters=100), GopherQuality(), GopherRepetition()]),
        },
        tokenizer=TokenizerSettings(vocabulary_size=1024),
        near_duplicates=NearDuplicates(),
        validation_fraction=0.1,
    )
    documents = data.curate()
    print(data.examples(samples=1))
    return documents


if __name__ == "__main__":
    found = clean(*(sys.argv[1:] if len(sys.argv) == 3 else ("docs", "data/example")))
    print(f"clean documents: {found}")
