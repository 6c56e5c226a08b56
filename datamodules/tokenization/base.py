"""Tokenizer interface and the settings of training one.

Shards, chat templates and checkpoints take this interface, so that any model can bring its own tokenizer. The price is
that features of only one library are missing from it.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow

from common.errors import InputError

SPACE_MARK, ESCAPE, ESCAPED_MARK = "\u2581", "\ue000", "\ue001"


BYTE_PIECES = 256


TOKENIZER = "tokenizer.model"
"""Name of a serialized model in a folder of a run or of prepared data."""


RESERVED = re.compile(r"<unk>|<s>|</s>|<pad>|<0x[0-9A-F]{2}>|")
"""Pieces that exist already, by the names SentencePiece gives them, and the empty one."""


@dataclass
class TokenizerSettings:
    """Settings of tokenizer training.

    Args:
        vocabulary_size: number of token ids, special and byte tokens included.
        control_tokens: names reserved for later use (ChatML's by default); text never becomes one of them.
        sample_megabytes: text to train on: of each source the documents that come first.
        cross_scripts: let a piece join letters, digits' neighbors and punctuation ("self.", "):"), which makes
            code about 8 % shorter; SentencePiece's default forbids it.
        weights: share of the sample from each source, on any positive scale, as far as it has it; a source without one
            gives nothing. null takes each in proportion to its training text. They are not the mixture's, so that
            those may change while the tokenizer stays.

    Raises:
        InputError: for a control token that cannot be added, an empty sample or too small a vocabulary.
    """

    vocabulary_size: int = 4096
    control_tokens: list[str] = field(
        default_factory=lambda: ["<|im_start|>", "<|im_end|>", *(f"<|reserved_{i}|>" for i in range(6))]
    )
    sample_megabytes: float = 16.0
    cross_scripts: bool = True
    weights: dict[str, float] | None = None

    def __post_init__(self) -> None:
        for token in self.control_tokens:
            if RESERVED.fullmatch(token) or self.control_tokens.count(token) > 1:
                raise InputError(
                    f"tokenizer.control_tokens holds {token!r}, which is empty, there twice or the tokenizer's own: "
                    "leave it out or give it another name"
                )
        if self.weights is not None and not (self.weights and min(self.weights.values()) > 0):
            raise InputError(f"tokenizer.weights={self.weights}: name sources with weights above 0, or leave it null")
        if not 0 < self.sample_megabytes < float("inf"):
            raise InputError(f"tokenizer.sample_megabytes={self.sample_megabytes}: must be a number above 0")
        least = 4 + len(self.control_tokens) + BYTE_PIECES
        if not least < self.vocabulary_size < 2**31:
            raise InputError(
                f"vocabulary_size={self.vocabulary_size}: must be above {least}, the special, control and byte tokens"
            )

    def to_dict(self) -> dict[str, Any]:
        """Settings for the fingerprint of what is made with them."""
        return asdict(self)


class Tokenizer(ABC):
    """Text to token ids and back.

    Attributes:
        model: the tokenizer as bytes, from which `files.restore` makes it again.
        bos, eos, pad: ids of the beginning-of-text, end-of-text and padding token; some models have no first one.
        stops: further ids that end a response, as Llama 3.1 and Qwen list them.
    """

    model: bytes
    bos: int | None
    eos: int
    pad: int
    stops: tuple[int, ...] = ()

    @property
    def beginning(self) -> list[int]:
        """Token ids that every text begins with."""
        return [] if self.bos is None else [self.bos]

    @property
    def before_text(self) -> int:
        """Token from which the first token of a text is predicted."""
        return self.eos if self.bos is None else self.bos

    @abstractmethod
    def __len__(self) -> int:
        """Number of token ids."""

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens, whatever it spells."""

    @abstractmethod
    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """Token ids of many texts, on all cores."""

    def encode_column(self, texts: pyarrow.Array) -> tuple[np.ndarray, np.ndarray]:
        """Token ids of a column of texts, as one array: lists of Python integers cost more than the encoding.

        Args:
            texts: strings.

        Returns:
            int32 [tokens], all texts one after another, and the number of tokens of each, int64 [texts].
        """
        encoded = [np.array(ids, dtype=np.int32) for ids in self.encode_batch(texts.to_pylist())]
        lengths = np.array([len(ids) for ids in encoded], dtype=np.int64)
        return np.concatenate([*encoded, np.empty(0, dtype=np.int32)]), lengths

    @abstractmethod
    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids; control tokens vanish, bytes that are no UTF-8 become U+FFFD."""

    def encode_continuation(self, text: str, behind_control: bool = False) -> list[int]:
        """Token ids of a text that continues another one: without the space that some tokenizers put in front.

        Args:
            text: what is encoded.
            behind_control: whether a control token is before it, behind which some put a space too.
        """
        return self.encode(text)

    def decode_continuation(self, ids: Iterable[int]) -> str:
        """The text of token ids that continue others, with the space in front that some tokenizers take away."""
        return self.decode(ids)

    @abstractmethod
    def control_ids(self) -> dict[str, int]:
        """Every control token's name and id: what text never turns into."""

    @abstractmethod
    def token_bytes(self) -> np.ndarray:
        """Bytes of UTF-8 text of each token id, int32 [vocabulary]; 0 for control tokens."""

    @abstractmethod
    def write(self, folder: Path) -> None:
        """Write its files into a folder, under the names by which they are found again."""
