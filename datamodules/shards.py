"""Tokens on disk: flat arrays read through memory maps, with an index of the documents they hold.

A flat array of the smallest integer that fits costs two bytes a token and no parsing; what it lacks, boundaries
and origin, stands in small arrays beside it. A manifest names every file with its checksum; its own is written last.

A folder of shards holds, for each split and source, `SPLIT-SOURCE-NNNNN.tokens` (uint16 or uint32, little endian),
`.offsets.npy` (int64, where each document starts, and the end), `.ids.npy` (uint64, the documents' ids),
`manifest.json`, and `checksums.json` with the manifest's own.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.stages import checksum, verified, write_checksums
from datamodules.tokenizer import Tokenizer
from errors import InputError

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
    """Encodes documents of one split and source and writes them as shards.

    Args:
        folder: where the shards go.
        split, source: what the documents are.
        tokenizer: encodes them; each document becomes BOS (if there is one), its tokens, EOS.
        shard_tokens: a shard is closed once it holds this many.
    """

    def __init__(self, folder: Path, split: str, source: str, tokenizer: Tokenizer, shard_tokens: int = 2**27) -> None:
        self.folder, self.split, self.source = folder, split, source
        self.tokenizer, self.shard_tokens = tokenizer, shard_tokens
        self.records: list[ShardRecord] = []
        self._dtype = token_dtype(len(tokenizer))
        self._clear()

    def write(self, ids: Iterable[int], texts: list[str]) -> None:
        """Add documents."""
        for identity, text, tokens in zip(ids, texts, self.tokenizer.encode_batch(texts), strict=True):
            self._tokens.append(np.array([*self.tokenizer.beginning, *tokens, self.tokenizer.eos], dtype=self._dtype))
            self._ids.append(identity)
            self._text_bytes += len(text.encode())
            self._size += len(tokens) + 2
            if self._size >= self.shard_tokens:
                self.close()

    def close(self) -> None:
        """Write the documents gathered so far as a shard, if there are any."""
        if not self._tokens:
            return
        name = f"{self.split}-{self.source}-{len(self.records):05}"
        offsets = np.cumsum([0, *(len(tokens) for tokens in self._tokens)], dtype=np.int64)
        np.concatenate(self._tokens).tofile(self.folder / f"{name}.tokens")
        np.save(self.folder / f"{name}.offsets.npy", offsets)
        np.save(self.folder / f"{name}.ids.npy", np.array(self._ids, dtype=np.uint64))
        checksums = {path.name: checksum(path) for path in _files(self.folder, name)}
        self.records.append(
            ShardRecord(name, self.split, self.source, len(self._ids), int(offsets[-1]), self._text_bytes, checksums)
        )
        self._clear()

    def _clear(self) -> None:
        self._tokens: list[np.ndarray] = []
        self._ids: list[int] = []
        self._text_bytes = self._size = 0


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


class Shard:
    """A shard opened for reading; tokens stay on disk until they are used.

    Attributes:
        tokens: memory map, uint16 or uint32.
        offsets: int64 [documents + 1].
        ids: uint64 [documents].
    """

    def __init__(self, folder: Path, record: ShardRecord, vocabulary_size: int) -> None:
        tokens, offsets, ids = _files(folder, record.name)
        self.record = record
        self.tokens = np.memmap(tokens, dtype=token_dtype(vocabulary_size), mode="r")
        self.offsets = np.load(offsets, mmap_mode="r")
        self.ids = np.load(ids, mmap_mode="r")


def open_shards(folder: Path, verify: bool = True) -> Iterator[Shard]:
    """Open every shard of a folder, in the manifest's order.

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
