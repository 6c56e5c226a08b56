"""Foreign tokenizers that lose text are refused when they are loaded; those that keep it are taken."""

import json
from pathlib import Path
from typing import Any

import pytest

from common.errors import InputError
from datamodules.tokenization.base import TokenizerSettings
from datamodules.tokenization.files import find_tokenizer, load_tokenizer
from datamodules.tokenization.sentencepiece import train_tokenizer
from datamodules.tokenization.tokenizer_json import write_hugging_face_tokenizer
from tests.helpers.corpus import TEXTS

tokenizers = pytest.importorskip("tokenizers")
LETTERS = [chr(code) for code in range(33, 127)]


def bert() -> Any:
    words = {word: number for number, word in enumerate(["[UNK]", "[SEP]", *LETTERS, *(f"##{x}" for x in LETTERS)])}
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece(words, unk_token="[UNK]"))
    made.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    made.decoder = tokenizers.decoders.WordPiece()
    return made


def t5() -> Any:
    pieces = [("<unk>", 0.0), ("</s>", 0.0), ("\u2581", -2.0), *((letter, -3.0) for letter in LETTERS)]
    made = tokenizers.Tokenizer(tokenizers.models.Unigram(pieces, unk_id=0))
    made.normalizer = tokenizers.normalizers.NFKC()
    made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    made.decoder = tokenizers.decoders.Metaspace()
    return made


def byte_level(normalizer: Any = None) -> Any:
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    names = {name: number for number, name in enumerate([*sorted(alphabet), "</s>"])}
    made = tokenizers.Tokenizer(tokenizers.models.BPE(names, []))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    if normalizer is not None:
        made.normalizer = normalizer
    return made


def save(made: Any, folder: Path, eos: str) -> Path:
    made.add_special_tokens([eos])
    made.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": eos}))
    return folder / "tokenizer.json"


@pytest.mark.parametrize(
    ("made", "eos"),
    [(bert(), "[SEP]"), (t5(), "</s>"), (byte_level(tokenizers.normalizers.NFKC()), "</s>"),
     (byte_level(tokenizers.normalizers.Lowercase()), "</s>"), (byte_level(tokenizers.normalizers.Strip()), "</s>")],
)  # fmt: skip
def test_a_tokenizer_that_loses_text_is_refused(tmp_path: Path, made: Any, eos: str) -> None:
    path = save(made, tmp_path, eos)
    with pytest.raises(InputError, match="tokenizer.json loses text .* take a byte-level tokenizer") as error:
        load_tokenizer(path)
    assert "\n" not in str(error.value)


def test_tokenizers_that_keep_text_are_taken(tmp_path: Path) -> None:
    for number, normalizer in enumerate((None, tokenizers.normalizers.NFC())):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert load_tokenizer(save(byte_level(normalizer), folder, "</s>")).encode("a")
    own = train_tokenizer(TEXTS, TokenizerSettings(vocabulary_size=380))
    (tmp_path / "own").mkdir()
    write_hugging_face_tokenizer(own, None, tmp_path / "own")
    assert len(load_tokenizer(tmp_path / "own/tokenizer.json")) == len(load_tokenizer(find_tokenizer(tmp_path / "own")))
