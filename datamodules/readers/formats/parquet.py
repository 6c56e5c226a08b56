"""Parquet batches of a bounded number of bytes, whatever their rows decode to.

A few hundred bytes can hold a value of megabytes once, in a dictionary, and a million rows that share it; decoded, each
row has a copy. Arrow can keep the dictionary instead, yet then builds one for values that share nothing, too, which
took two hundred times as long.
"""

import io
from collections.abc import Iterator

import pyarrow
import pyarrow.parquet

from datamodules.readers.formats.bounded_streams import FREE_EXPANSION, MAX_EXPANSION, RefusedError

ROWS_IN_BATCH, BYTES_IN_BATCH = 256, 64 * 2**20
"""Decoded at once, where rows are about as long as those before."""
BYTES_OF_SHARED = 256 * 2**20
"""Decoded at once where all rows share the longest value that the dictionary can hold: dictionaries of a megabyte, the
most that writers make, cost no rows."""
_DICTIONARY_PAGE = 2
"""Of PageType in parquet.thrift."""


def parquet_batches(path: str, table: pyarrow.parquet.ParquetFile, columns: list[str]) -> Iterator[pyarrow.RecordBatch]:
    """Batches that grow from one row to `ROWS_IN_BATCH` as long as they are below `BYTES_IN_BATCH`.

    Args:
        path: of the file.
        table: the file, opened.
        columns: names of those that are read.

    Raises:
        pyarrow.ArrowException, OSError: for damage, once the row groups that are whole have been read.
        RefusedError: `compression_bomb` for columns that say they expand to more than `MAX_EXPANSION` times what
            is stored: a single page of them could fill the memory.
    """
    most = max(1, min(ROWS_IN_BATCH, BYTES_OF_SHARED // max(1, _largest_dictionary(path, table, columns))))
    rows, damage = 1, None
    for group in range(table.num_row_groups):
        batches = table.iter_batches(batch_size=rows, row_groups=[group], columns=columns)
        while True:
            try:
                batch = next(batches, None)
            except (pyarrow.ArrowException, OSError) as error:
                damage = error  # the other groups are whole
                break
            if batch is None:
                break
            yield batch
            row_bytes = max(1, batch.nbytes // max(1, batch.num_rows))
            rows = max(1, min(2 * rows, most, BYTES_IN_BATCH // row_bytes))
            # Arrow asks for it before each batch; Python has no other way to say it.
            table.reader.set_batch_size(rows)
    if damage is not None:
        raise damage


def _largest_dictionary(path: str, table: pyarrow.parquet.ParquetFile, columns: list[str]) -> int:
    """Bytes of the largest dictionary of some columns, decompressed."""
    metadata, largest = table.metadata, 0
    with open(path, "rb") as file:
        for group in range(metadata.num_row_groups):
            for number in range(metadata.num_columns):
                chunk = metadata.row_group(group).column(number)
                if chunk.path_in_schema.partition(".")[0] not in columns:
                    continue
                if chunk.total_uncompressed_size > max(FREE_EXPANSION, MAX_EXPANSION * chunk.total_compressed_size):
                    raise RefusedError("compression_bomb")
                file.seek(min(filter(None, (chunk.dictionary_page_offset, chunk.data_page_offset)), default=0))
                kind, size = _first_integers(file.read(64))
                largest = max(largest, size if kind == _DICTIONARY_PAGE else 0)
    return largest


def _first_integers(head: bytes) -> tuple[int, int]:
    """Type and decompressed size of a page: the first two fields of its head, in Thrift's compact protocol."""
    stream = io.BytesIO(head)
    found = []
    for _ in range(2):
        stream.read(1)  # says that the next field is an integer
        shift = value = 0
        while byte := stream.read(1):
            value |= (byte[0] & 0x7F) << shift
            shift += 7
            if not byte[0] & 0x80:
                break
        found.append((value >> 1) ^ -(value & 1))
    return found[0], found[1]
