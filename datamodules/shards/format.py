"""Token shards: flat memory-mapped arrays of token ids, with an index of their documents.

A flat array of the smallest integer that fits costs two bytes per token and no parsing; what it lacks, boundaries
and origin, is in small arrays beside it. A manifest names every file with its checksum; its own is written last.

A folder of shards holds, for each split, source and file of documents, `SPLIT-SOURCE-NNNNN.tokens` (uint16 or uint32,
little endian), `.offsets.npy` (int64, where each document starts, and the end), `.ids.npy` (uint64, the documents'
ids), `manifest.json`, and `checksums.json` with the manifest's own.
"""

import functools
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow.compute

from common.artifacts import verified, write_checksums
from common.compute.open_files import files_left
from common.errors import InputError
from common.files import checksum, write_atomically
from datamodules.tokenization.base import Tokenizer

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class ShardRecord:
    """A line of the manifest: one shard's name, content and checksums (xxh3 of each of its three files)."""

    name: str
    split: str
    source: str
    documents: int
    tokens: int
    text_bytes: int
    checksums: dict[str, str]


class ShardWriter:
    """Writes documents of one split and source as shards, holding one batch of tokens at a time.

    Args:
        folder: where the shards go; each of their files is whole or not there.
        split, source: what the documents are.
        tokenizer: of the documents; each becomes BOS (if there is one), its tokens, EOS.
        number: of the file of documents, in the shards' names.
        shard_tokens: a shard is closed once it holds this many.
    """

    def __init__(
        self, folder: Path, split: str, source: str, tokenizer: Tokenizer, number: int = 0, shard_tokens: int = 2**27
    ) -> None:
        self.folder, self.split, self.source = folder, split, source
        self.tokenizer, self.number, self.shard_tokens = tokenizer, number, shard_tokens
        self.records: list[ShardRecord] = []
        self._dtype = token_dtype(len(tokenizer))
        self._open: tuple[Any, IO[bytes]] | None = None

    def write_texts(self, ids: np.ndarray, texts: pyarrow.Array) -> None:
        """Add documents by their text; `ids` uint64 [documents]."""
        tokens, lengths = self.tokenizer.encode_column(texts)
        everywhere = np.ones(len(lengths), dtype=bool)
        size = pyarrow.compute.sum(pyarrow.compute.binary_length(texts)).as_py() or 0
        self.write_tokens(ids, *self._framed(tokens, lengths, everywhere, everywhere), size)

    def write_encoded(self, ids: np.ndarray, tokens: np.ndarray, lengths: np.ndarray, text_bytes: int) -> None:
        """Add documents by their tokens, BOS and EOS put where they are missing.

        Args:
            ids: uint64 [documents].
            tokens: of all documents one after another, any integer type.
            lengths: of each document, int64 [documents].
            text_bytes: UTF-8 bytes of their text.
        """
        ends = np.cumsum(lengths)
        filled = lengths > 0
        first, last = np.full(len(lengths), -1, dtype=np.int64), np.full(len(lengths), -1, dtype=np.int64)
        first[filled], last[filled] = tokens[(ends - lengths)[filled]], tokens[ends[filled] - 1]
        begins = [first == token for token in self.tokenizer.beginning]
        framed = self._framed(tokens, lengths, ~begins[0] if begins else ~filled, last != self.tokenizer.eos)
        self.write_tokens(ids, *framed, text_bytes)

    def write_tokens(self, ids: np.ndarray, tokens: np.ndarray, lengths: np.ndarray, text_bytes: int) -> None:
        """Add documents whose tokens are whole."""
        if not len(ids):
            return
        if self._open is None:
            part = f"-{len(self.records):03}" if self.records else ""
            self._name = f"{self.split}-{self.source}-{self.number:05}{part}"
            whole = write_atomically(self.folder / f"{self._name}.tokens")
            self._open = (whole, whole.__enter__().open("wb"))
            self._ids: list[np.ndarray] = []
            self._lengths: list[np.ndarray] = []
            self._text_bytes = self._size = 0
        self._open[1].write(tokens.data)
        self._ids.append(np.asarray(ids, dtype=np.uint64))
        self._lengths.append(lengths)
        self._text_bytes += text_bytes
        self._size += len(tokens)
        if self._size >= self.shard_tokens:
            self.close()

    def close(self) -> None:
        """Finish the shard that was begun, if there is one."""
        if self._open is None:
            return
        whole, file = self._open
        file.close()
        whole.__exit__(None, None, None)
        self._open = None
        offsets = np.concatenate(([0], np.cumsum(np.concatenate(self._lengths)))).astype(np.int64)
        _, offsets_path, ids_path = paths = _files(self.folder, self._name)
        for path, array in ((offsets_path, offsets), (ids_path, np.concatenate(self._ids))):
            with write_atomically(path) as partial, partial.open("wb") as opened:
                np.save(opened, array)
        checksums = {path.name: checksum(path) for path in paths}
        self.records.append(
            ShardRecord(
                self._name, self.split, self.source, len(offsets) - 1, int(offsets[-1]), self._text_bytes, checksums
            )
        )

    def _framed(
        self, tokens: np.ndarray, lengths: np.ndarray, begin: np.ndarray, end: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Tokens with BOS in front and EOS behind the documents that `begin` and `end` mark, and the new lengths."""
        begin = begin & bool(self.tokenizer.beginning)
        longer = lengths + begin + end
        ends = np.cumsum(longer)
        framed = np.empty(int(longer.sum()), dtype=self._dtype)
        own = np.ones(len(framed), dtype=bool)
        for places, token in (((ends - longer)[begin], self.tokenizer.bos), (ends[end] - 1, self.tokenizer.eos)):
            framed[places] = token or 0
            own[places] = False
        framed[own] = tokens
        return framed, longer


def token_dtype(vocabulary_size: int) -> np.dtype[Any]:
    """uint16 where every id fits, else uint32."""
    return np.dtype("<u2") if vocabulary_size <= 2**16 else np.dtype("<u4")


def _files(folder: Path, name: str) -> list[Path]:
    return [folder / f"{name}{suffix}" for suffix in (".tokens", ".offsets.npy", ".ids.npy")]


def write_manifest(folder: Path, records: list[ShardRecord], tokenizer: Tokenizer) -> None:
    """Write the manifest and its checksum, last of all."""
    manifest = {"vocabulary_size": len(tokenizer), "shards": [asdict(record) for record in records]}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    write_checksums(folder, MANIFEST)


WHOLE_BYTES, WHOLE_ARRAYS = 2**18, 1024
"""Arrays beside the tokens that are read whole up to this size, and how many are kept: at most 256 MB."""
MAX_MAPS = 8192


@functools.cache
def _maps() -> Callable[["Shard", int], np.ndarray]:
    """Cache of memory maps, as large as the process's open files allow; the least used are let go."""

    @functools.lru_cache(maxsize=min(MAX_MAPS, files_left()))
    def mapped(shard: "Shard", file: int) -> np.ndarray:
        path = shard.paths[file]
        return np.load(path, mmap_mode="r") if path.suffix == ".npy" else np.memmap(path, dtype=shard.dtype, mode="r")

    return mapped


@functools.lru_cache(maxsize=WHOLE_ARRAYS)
def _whole(shard: "Shard", file: int) -> np.ndarray | None:
    """A small array read whole, which holds no descriptor; None for a large one."""
    path = shard.paths[file]
    return np.load(path) if path.stat().st_size <= WHOLE_BYTES else None


def _array(shard: "Shard", file: int) -> np.ndarray:
    """A small array from memory, a large one mapped."""
    whole = _whole(shard, file)
    return _maps()(shard, file) if whole is None else whole


class Shard:
    """A shard for reading; its files are opened when they are needed, tokens stay on disk until they are used.

    Args:
        folder: of the shards.
        record: its line of the manifest.
        vocabulary_size: decides the bytes per token.
    """

    def __init__(self, folder: Path, record: ShardRecord, vocabulary_size: int) -> None:
        self.paths, self.dtype = _files(folder, record.name), token_dtype(vocabulary_size)
        self.record = record

    @property
    def tokens(self) -> np.ndarray:
        """Memory map, uint16 or uint32 [tokens]."""
        return _maps()(self, 0)

    @property
    def offsets(self) -> np.ndarray:
        """int64 [documents + 1]."""
        return _array(self, 1)

    @property
    def ids(self) -> np.ndarray:
        """uint64 [documents]."""
        return _array(self, 2)


def open_shards(folder: Path, verify: bool = True) -> Iterator[Shard]:
    """Every shard of a folder, in the manifest's order.

    Args:
        folder: a folder with a manifest.
        verify: read each file once and compare its checksum (several GB/s, bound by the disk); the manifest always is.

    Raises:
        InputError: when the manifest or a file is missing, or a checksum differs.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise InputError(f"{path} does not exist: run `python main.py prepare` with this configuration")
    manifest = json.loads(verified(path).read_text(encoding="utf-8"))
    for entry in manifest["shards"]:
        record = ShardRecord(**entry)
        for file in _files(folder, record.name):
            found = checksum(file) if verify and file.is_file() else None
            if not file.is_file() or (verify and found != record.checksums[file.name]):
                raise InputError(
                    f"shard {file}: checksum {found}, the manifest says {record.checksums[file.name]}: "
                    f"the file is damaged, delete {folder} and prepare again"
                )
        yield Shard(folder, record, manifest["vocabulary_size"])
