"""A SentencePiece tokenizer, trained once, for everything that reads rows."""

from pathlib import Path

import pytest

from datamodules.tokenization.base import TokenizerSettings
from datamodules.tokenization.sentencepiece import train_tokenizer
from tests.helpers.corpus import sentences


@pytest.fixture(scope="session")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tokenizer.model` with 400 tokens, of made-up sentences."""
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    settings = TokenizerSettings(vocabulary_size=400)
    path.write_bytes(train_tokenizer([sentences(i, 40) for i in range(20)], settings).model)
    return path
