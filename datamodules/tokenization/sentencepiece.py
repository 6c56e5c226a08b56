"""SentencePiece tokenizer, lossless on any text.

Byte-pair encoding with byte fallback instead of the unigram model: it encodes more slowly but trains ten times
faster and has no unknown token. SentencePiece's own defaults rewrite text (NFKC, merged spaces, a space in front);
all of them are off, and the one character it cannot represent, its own space mark U+2581, is escaped.
"""

import functools
import os
import re
from collections.abc import Iterable, Iterator
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow
import sentencepiece

from common.errors import InputError
from datamodules.tokenization.base import (
    BYTE_PIECES,
    ESCAPE,
    ESCAPED_MARK,
    SPACE_MARK,
    TOKENIZER,
    Tokenizer,
    TokenizerSettings,
)
from datamodules.tokenization.bpe import BytePairs
from datamodules.tokenization.word_cache import EncodedWords, joined_bytes

REWRITTEN = " a  b \ufb01\u2460\u3000A"
"""What one rule of SentencePiece or another rewrites: spaces, compatible characters, capitals."""


class SentencePieceTokenizer(Tokenizer):
    """A trained SentencePiece model.

    Args:
        model: the serialized model.

    Raises:
        InputError: when it is damaged, no byte-pair encoding with byte fallback, or rewrites text, as those of Llama 2
            and Mistral do.
    """

    def __init__(self, model: bytes) -> None:
        self.model = model
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise InputError(f"{TOKENIZER} is no SentencePiece model or is damaged") from error
        ids = [self._processor.bos_id(), self._processor.eos_id(), self._processor.pad_id()]
        if min(ids) < 0 or self._processor.normalize(REWRITTEN) != REWRITTEN.replace(" ", SPACE_MARK):
            raise InputError(
                f"{TOKENIZER} was not trained here: it lacks a special token or rewrites text, take the "
                "tokenizer.json of the same model"
            )
        if not self._merges_in_order():
            raise InputError(
                f"{TOKENIZER} was not trained here: it is no byte-pair encoding with a token for every byte and the "
                "space, or has symbols of its own, take the tokenizer.json of the same model"
            )
        self.bos, self.eos, self.pad = (
            self._processor.bos_id(),
            self._processor.eos_id(),
            self._processor.pad_id(),
        )
        self._words: EncodedWords | None = None

    def __len__(self) -> int:
        return int(self._processor.vocab_size())

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._processor.encode(_escape(text))
        return ids

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        ids: list[list[int]] = self._processor.encode([_escape(text) for text in texts], num_threads=-1)
        return ids

    def encode_column(self, texts: pyarrow.Array) -> tuple[np.ndarray, np.ndarray]:
        if self._words is None:
            self._words = EncodedWords(*_word_tables(self.model))
        column = texts.cast(pyarrow.large_string())
        content, starts = _buffers(column)
        if any(content.tobytes().find(mark.encode()) >= 0 for mark in (SPACE_MARK, ESCAPE)):
            content, starts = _buffers(pyarrow.array([_escape(text) for text in texts.to_pylist()], column.type))
        return self._words(content, starts)

    def _merges_in_order(self) -> bool:
        """True if it merges pairs in the order of its tokens, as byte-pair encoding does, all of them in use, and knows
        every byte and the space, whose mark would be spelled in bytes else.
        """
        ids, texts = list(range(len(self))), self.texts()
        own = [score for score, text in zip(self._processor.get_score(ids), texts, strict=True) if text is not None]
        in_order = all(first > second and second.is_integer() for first, second in pairwise(own))
        known = sum(self._processor.is_byte(ids)) == BYTE_PIECES and " " in texts
        return in_order and known and not any(self._processor.is_unused(ids))

    def decode(self, ids: Iterable[int]) -> str:
        return _unescape(self._processor.decode(list(ids)))

    def control_ids(self) -> dict[str, int]:
        processor = self._processor
        return {processor.id_to_piece(i): i for i in range(len(self)) if processor.is_control(i)}

    def token_bytes(self) -> np.ndarray:
        processor = self._processor
        sizes = np.zeros(len(self), dtype=np.int32)
        for token in range(len(self)):
            if processor.is_byte(token):
                sizes[token] = 1
            elif not (processor.is_control(token) or processor.is_unknown(token)):
                sizes[token] = len(processor.id_to_piece(token).replace(SPACE_MARK, " ").encode())
        return sizes

    def pieces(self) -> list[str]:
        """Name of every token id, a space as U+2581; what merges first has the smaller id."""
        names: list[str] = self._processor.id_to_piece(list(range(len(self))))
        return names

    def texts(self) -> list[str | None]:
        """Text of every token id; None for special, control and byte tokens."""
        ids, processor = list(range(len(self))), self._processor
        others = zip(processor.is_byte(ids), processor.is_control(ids), processor.is_unknown(ids), strict=True)
        return [
            None if any(other) else piece.replace(SPACE_MARK, " ")
            for piece, other in zip(self.pieces(), others, strict=True)
        ]

    def byte_ids(self) -> np.ndarray:
        """Token id of each byte, int32 [256]."""
        return np.array([self._processor.piece_to_id(f"<0x{byte:02X}>") for byte in range(BYTE_PIECES)], dtype=np.int32)

    def write(self, folder: Path) -> None:
        (folder / TOKENIZER).write_bytes(self.model)


@functools.lru_cache(maxsize=2)
def _word_tables(model: bytes) -> tuple[BytePairs, np.ndarray]:
    """What encodes words: made once for all files."""
    tokenizer = SentencePieceTokenizer(model)
    texts = tokenizer.texts()
    joined = joined_bytes(text.encode() for text in texts if text is not None)
    return BytePairs(texts, tokenizer.byte_ids()), joined


def train_tokenizer(texts: Iterable[str], settings: TokenizerSettings) -> SentencePieceTokenizer:
    """Train byte-pair encoding on texts.

    Raises:
        InputError: when the texts hold too few distinct pairs for the vocabulary.
    """
    model = BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_sentences(texts),
            model_writer=model,
            vocab_size=settings.vocabulary_size,
            model_type="bpe",
            byte_fallback=True,
            split_digits=True,
            split_by_unicode_script=not settings.cross_scripts,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            max_sentence_length=4 * SENTENCE_CHARACTERS,
            control_symbols=settings.control_tokens,
            required_chars=SPACE_MARK,  # however rare: it has no other token
            unk_id=0,
            bos_id=1,
            eos_id=2,
            pad_id=3,
            num_threads=os.cpu_count() or 1,
            minloglevel=2,
        )
    except (RuntimeError, StopIteration) as error:
        raise InputError(f"tokenizer.vocabulary_size={settings.vocabulary_size} {_why_not(str(error))}") from error
    return SentencePieceTokenizer(model.getvalue())


def _why_not(message: str) -> str:
    """SentencePiece's complaint in words, with the number to take instead."""
    if most := re.search(r"value <= (\d+)", message):
        return f"cannot be filled from this corpus: choose at most {most[1]}, or add text"
    if least := re.search(r"required_chars\. \d+ vs (\d+)", message):
        return f"cannot hold the characters of this corpus: choose at least {least[1]}"
    return f"cannot be filled from this corpus ({' '.join(message.split()) or 'no text'}): add text"


SENTENCE_CHARACTERS = 2000
"""SentencePiece drops longer training sentences without a word, so documents are cut at line ends below this."""


def _sentences(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        sentence = ""
        for line in _escape(text).splitlines(keepends=True):
            for start in range(0, len(line), SENTENCE_CHARACTERS):
                piece = line[start : start + SENTENCE_CHARACTERS]
                if len(sentence) + len(piece) > SENTENCE_CHARACTERS:
                    yield sentence
                    sentence = ""
                sentence += piece
        if sentence:
            yield sentence


def _buffers(column: pyarrow.LargeStringArray) -> tuple[np.ndarray, np.ndarray]:
    """UTF-8 of a column without nulls, uint8 [bytes], and where texts begin and the last ends, int64 [texts + 1]."""
    if not len(column):
        return np.empty(0, dtype=np.uint8), np.zeros(1, dtype=np.int64)
    _, offsets, content = column.buffers()
    starts = np.frombuffer(offsets, dtype=np.int64)[column.offset : column.offset + len(column) + 1]
    whole = np.frombuffer(content, dtype=np.uint8) if content is not None else np.empty(0, dtype=np.uint8)
    return whole[starts[0] : starts[-1]], starts - starts[0]


def _escape(text: str) -> str:
    """Replace U+2581, which SentencePiece reads as a space, by a pair of private-use characters; reversible."""
    if SPACE_MARK in text or ESCAPE in text:
        return text.replace(ESCAPE, ESCAPE * 2).replace(SPACE_MARK, ESCAPE + ESCAPED_MARK)
    return text


def _unescape(text: str) -> str:
    if ESCAPE not in text:
        return text
    # Split on the doubled escape first: what is between cannot hold half of one.
    parts = text.split(ESCAPE * 2)
    return ESCAPE.join(part.replace(ESCAPE + ESCAPED_MARK, SPACE_MARK) for part in parts)
