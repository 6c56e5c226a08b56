"""Megatron-LM export: shards as its `.bin` and `.idx` files.

A `.bin` holds all tokens, an `.idx` the length and place of every document. The layout is that of
`megatron/core/datasets/indexed_dataset.py` (`_IndexWriter`, `IndexedDatasetBuilder`) in NVIDIA/Megatron-LM: a document
is one sequence, as `tools/preprocess_data.py` writes it with `--append-eod`.
"""

import shutil
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from common.errors import InputError
from common.files import refuse_full_disk, write_atomically
from datamodules.shards.format import Shard, open_shards
from datamodules.tokenization.base import Tokenizer

HEADER, VERSION = b"MMIDIDX\x00\x00", 1
INT32, UINT16 = 4, 8
"""Codes of `DType` there; it has no uint32, and ids are below 2^31."""


def export_megatron(shards: Path, tokenizer: Tokenizer, output: Path) -> list[Path]:
    """Write `SOURCE-SPLIT.bin` and `.idx` for every source and split, and the tokenizer.

    Args:
        shards: folder of shards, each compared with its checksum.
        tokenizer: of the shards.
        output: folder, made if it is not there; every file in it is whole or not there.

    Returns:
        What `--data-path` there takes: the paths without suffix.

    Raises:
        InputError: for a damaged shard, an output that is no folder or a full disk.
    """
    if output.exists() and not output.is_dir():
        raise InputError(f"output={output}: it is a file, name a folder")
    groups: dict[str, list[Shard]] = {}
    for shard in open_shards(shards):
        groups.setdefault(f"{shard.record.source}-{shard.record.split}", []).append(shard)
    with refuse_full_disk(output):
        output.mkdir(parents=True, exist_ok=True)
        tokenizer.write(output)
        for name, group in groups.items():
            # The index last: without it Megatron-LM finds no data set.
            (output / f"{name}.idx").unlink(missing_ok=True)
            with write_atomically(output / f"{name}.bin") as partial, partial.open("wb") as file:
                for shard in group:
                    with shard.paths[0].open("rb") as tokens:
                        shutil.copyfileobj(tokens, file, 2**22)
            with write_atomically(output / f"{name}.idx") as partial:
                write_index(partial, [np.diff(shard.offsets) for shard in group], group[0].dtype)
    return [output / name for name in groups]


def write_index(path: Path, lengths: Sequence[np.ndarray], dtype: np.dtype) -> None:
    """Write the index of documents that follow one another.

    Args:
        path: the file.
        lengths: tokens of each document, in parts.
        dtype: of the tokens, uint16 or uint32.
    """
    sizes = np.concatenate(lengths)
    if sizes.max() >= 2**31:
        raise InputError(f"a document of {sizes.max()} tokens: Megatron-LM counts in int32, cut it into smaller ones")
    pointers = (np.cumsum(sizes) - sizes) * dtype.itemsize
    with path.open("wb") as file:
        file.write(HEADER)
        file.write(struct.pack("<QB", VERSION, UINT16 if dtype.itemsize == 2 else INT32))
        file.write(struct.pack("<QQ", len(sizes), len(sizes) + 1))
        file.write(sizes.astype("<i4").tobytes())
        file.write(pointers.astype("<i8").tobytes())
        file.write(np.arange(len(sizes) + 1, dtype="<i8").tobytes())
