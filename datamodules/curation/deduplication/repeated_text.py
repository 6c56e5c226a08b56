"""Interface of steps that cut repeated text out of a corpus: spill each chunk, merge once, cut.

What repeats is known only after every document was seen, so texts are read twice; in between only numbers are kept,
on disk, in pieces that are whole or not there. A chunk can be spilled and cut on any worker and in any order, and
spilling one again does nothing, so a stopped run continues where it was.
"""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, TypeAlias

import numpy as np
import pyarrow

from common.errors import InputError
from datamodules.curation.deduplication.external_sort import RECORDS_IN_MEMORY

Texts: TypeAlias = pyarrow.Array | pyarrow.ChunkedArray
"""A column of strings; a null counts as an empty text."""
POSITION_BITS = 28
"""A place is a document's ordinal and the position of a word or line in one number: 2^35 documents of 2^28."""


class RepeatedText(ABC):
    """Cuts text that occurred before."""

    WITHIN_SOURCE: ClassVar[bool]
    """Whether each source is compared with itself alone, or with all that have the same settings."""

    @abstractmethod
    def spill(self, texts: Texts, ordinals: np.ndarray, folder: Path, name: str) -> None:
        """Note what a chunk holds, on disk; nothing where that was done.

        Args:
            texts: whole documents.
            ordinals: rank of each document in the order of the corpus, integers [texts], unique over all chunks; of
                what is repeated the lowest stays.
            folder: where the pieces of all chunks go, and nothing else.
            name: of the chunk, unique, fit for a file name.

        Raises:
            InputError: for an ordinal of 2^35 or more, or a text of 2^28 words or lines.
            OSError: when the disk is full.
        """

    @abstractmethod
    def merge(self, folder: Path, records: int = RECORDS_IN_MEMORY) -> Path:
        """Find what is repeated over all chunks, once each is spilled.

        Args:
            folder: as given to `spill`.
            records: about how many are held at a time.

        Returns:
            Path of a file in the folder, for `cut`; written again at each call.
        """

    @abstractmethod
    def cut(self, texts: Texts, ordinals: np.ndarray, repeated: Path) -> tuple[pyarrow.Array, np.ndarray]:
        """Cut what is repeated out of a chunk.

        Args:
            texts, ordinals: as given to `spill`, in any chunks.
            repeated: from `merge`.

        Returns:
            The texts (large strings, none null), and the characters cut from each, int64 [texts].
        """


def place_keys(ordinals: np.ndarray) -> np.ndarray:
    """Place of the first word or line of documents, uint64 [documents].

    Raises:
        InputError: for an ordinal that does not fit.
    """
    if len(ordinals) and not 0 <= ordinals.min() <= ordinals.max() < 2 ** (63 - POSITION_BITS):
        raise InputError(f"ordinals {ordinals.min()} to {ordinals.max()}: must lie in [0, 2^35), split the corpus")
    return ordinals.astype(np.uint64) << np.uint64(POSITION_BITS)


def characters(text: np.ndarray) -> int:
    """Code points of UTF-8, uint8 [bytes]."""
    return int(np.count_nonzero((text & 0xC0) != 0x80))


def strings(texts: list[np.ndarray]) -> pyarrow.Array:
    """Large strings from their UTF-8, uint8 [bytes] each."""
    offsets = np.cumsum([0, *map(len, texts)], dtype=np.int64)
    data = np.concatenate([*texts, np.empty(0, np.uint8)])
    return pyarrow.LargeStringArray.from_buffers(len(texts), pyarrow.py_buffer(offsets), pyarrow.py_buffer(data))
