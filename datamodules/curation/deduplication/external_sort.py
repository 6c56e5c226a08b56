"""External sort: sorted runs of numbers on disk, merged one range of keys at a time.

A database would do the same behind more code. A piece is a `.npy` array [columns, records] of uint64, sorted by its
first row, written under another name and renamed: it is whole or not there.
"""

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from common.compute.open_files import files_left
from common.files import sync

RECORDS_IN_MEMORY = 4 * 2**20
"""Records of all pieces looked at together, at 16 to 24 bytes, plus as much again several times while they are sorted:
less than 512 MB."""
SAMPLES = 4096
MAX_PIECES = 256
"""Pieces mapped at once, each of which holds an open file; more are merged in rounds of as many."""
HEADER_BYTES = 128


def write_piece(path: Path, columns: int, parts: Iterable[Sequence[np.ndarray]]) -> None:
    """Write a piece as a whole or not at all, a part of its records at a time.

    Args:
        path: where to.
        columns: how many.
        parts: columns of uint64 of one length each; sorted by the first, within and from part to part.

    Raises:
        OSError: when the disk is full; nothing is left of the piece.
    """
    partials = [path.with_name(f".{path.name}.{column}.partial") for column in range(columns)]
    try:
        records = 0
        with ExitStack() as stack:
            files = [stack.enter_context(partial.open("w+b")) for partial in partials]
            # A header of a fixed length, written when the number of records is known.
            files[0].write(bytes(HEADER_BYTES))
            for part in parts:
                records += len(part[0])
                for file, values in zip(files, part, strict=True):
                    file.write(np.ascontiguousarray(values, dtype="<u8").data)
            for file in files[1:]:
                file.seek(0)
                shutil.copyfileobj(file, files[0], 2**20)
            files[0].seek(0)
            files[0].write(_header(columns, records))
        sync(partials[0])
        os.replace(partials[0], path)
        sync(path.parent)
    finally:
        for partial in partials:
            partial.unlink(missing_ok=True)


def _header(columns: int, records: int) -> bytes:
    """Of the `.npy` format 1.0, padded to `HEADER_BYTES`."""
    described = f"{{'descr': '<u8', 'fortran_order': False, 'shape': ({columns}, {records}), }}"
    text = described.encode().ljust(HEADER_BYTES - 11) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def read_piece(path: Path) -> np.ndarray:
    """A piece, uint64 [columns, records], mapped and not read."""
    found: np.ndarray = np.load(path, mmap_mode="r")
    return found


def in_key_ranges(paths: Sequence[Path], records: int = RECORDS_IN_MEMORY, whole: int = 0) -> Iterator[np.ndarray]:
    """The records of sorted pieces, in ranges of their keys from low to high.

    Of more than `MAX_PIECES` pieces, or than the process may open, some are merged into larger ones before, which are
    removed at the end: a second copy on disk.

    Args:
        paths: pieces of the same columns.
        records: about how many are held at a time; records of one key are never parted, however many they are.
        whole: keys that differ in nothing but their lowest `whole` bits are not parted either.

    Yields:
        uint64 [columns, records found], grouped by piece and not sorted.
    """
    most = max(2, min(MAX_PIECES, files_left()))
    merged: list[Path] = []
    try:
        while len(paths) > most:
            paths = _merge_round(paths, records, most, len(merged))
            merged += paths
        yield from _ranges(paths, records, whole)
    finally:
        for path in merged:
            path.unlink(missing_ok=True)


def _merge_round(paths: Sequence[Path], records: int, most: int, number: int) -> list[Path]:
    """Fewer pieces of the same records, each merged from `most`; those that a round before made are removed."""
    fewer: list[Path] = []
    for start in range(0, len(paths), most):
        some = paths[start : start + most]
        path = some[0].with_name(f".merged-{number + len(fewer)}.npy")
        columns = read_piece(some[0]).shape[0]
        write_piece(path, columns, (_sorted(part) for part in _ranges(some, records)))
        fewer.append(path)
        if number:
            for read in some:
                read.unlink()
    return fewer


def _sorted(part: np.ndarray) -> list[np.ndarray]:
    """Columns of records, sorted by the first."""
    return list(part[:, np.argsort(part[0], kind="stable")])


def _ranges(paths: Sequence[Path], records: int, whole: int = 0) -> Iterator[np.ndarray]:
    """The ranges of pieces that can be mapped at once, see `in_key_ranges`."""
    pieces = [piece for piece in map(read_piece, paths) if piece.shape[1]]
    total = sum(piece.shape[1] for piece in pieces)
    if not total:
        return
    bounds = _bounds(pieces, -(-total // records), np.uint64(whole))
    places = [[0, *np.searchsorted(piece[0], bounds).tolist(), piece.shape[1]] for piece in pieces]
    for part in range(len(bounds) + 1):
        slices = [piece[:, place[part] : place[part + 1]] for piece, place in zip(pieces, places, strict=True)]
        if any(found.shape[1] for found in slices):
            yield np.concatenate(slices, axis=1)


def _bounds(pieces: list[np.ndarray], parts: int, whole: np.uint64) -> np.ndarray:
    """Keys that cut all records into about equal parts, by evenly spaced samples of each piece."""
    total = sum(piece.shape[1] for piece in pieces)
    step = max(1, total // (parts * SAMPLES))
    samples = np.sort(np.concatenate([piece[0, ::step] for piece in pieces]))
    cuts = samples[np.linspace(0, len(samples), parts + 1).astype(np.int64)[1:-1]]
    return np.unique(cuts >> whole << whole)
