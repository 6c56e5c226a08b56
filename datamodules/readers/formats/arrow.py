"""Arrow files: the expanded size of their record batches, before any is decompressed.

`save_to_disk` compresses nothing, so that batches are memory of the file; others may, and Arrow decompresses a batch
whole, however large it says that it is.
"""

import struct

import pyarrow

from datamodules.readers.formats.bounded_streams import FREE_EXPANSION, MAX_EXPANSION, RefusedError

_MAGIC = b"ARROW1\0\0"
_HEADER, _BODY_COMPRESSION = 2, 3
"""Places of fields in the tables Message and RecordBatch of Arrow's Message.fbs."""
_BUFFERS = 2
_DICTIONARY_DATA = 1


def check_expansion(path: str) -> None:
    """Refuse a file with a batch that says it expands beyond `MAX_EXPANSION` times what is stored.

    Raises:
        RefusedError: `compression_bomb`.
    """
    with pyarrow.memory_map(path) as source:
        if source.read(len(_MAGIC)) != _MAGIC:
            source.seek(0)
        try:
            for message in pyarrow.ipc.MessageReader.open_stream(source):
                if message.body is not None and _expanded(message) > max(
                    FREE_EXPANSION, MAX_EXPANSION * message.body.size
                ):
                    raise RefusedError("compression_bomb")
        except (pyarrow.ArrowException, OSError, ValueError, struct.error):
            return  # damage is found, and what comes before it kept, where batches are read


def _expanded(message: pyarrow.ipc.Message) -> int:
    """Bytes that the buffers of a message say they decompress to; 0 where they are not compressed."""
    data = message.metadata.to_pybytes()
    table = _pointed(data, 0)
    batch = _field(data, table, _HEADER)
    if message.type == "dictionary" and batch:
        batch = _field(data, _pointed(data, batch), _DICTIONARY_DATA)
    elif message.type != "record batch":
        return 0
    if not batch:
        return 0
    batch = _pointed(data, batch)
    buffers = _field(data, batch, _BUFFERS)
    if not buffers or not _field(data, batch, _BODY_COMPRESSION):
        return 0
    vector = _pointed(data, buffers)
    (count,) = struct.unpack_from("<I", data, vector)
    size = 0
    for number in range(count):
        start, length = struct.unpack_from("<qq", data, vector + 4 + 16 * number)
        # A compressed buffer begins with its size, -1 for one that is not compressed after all.
        size += max(struct.unpack_from("<q", message.body, start)[0], 0) if length >= 8 else 0
    return size


def _pointed(data: bytes, place: int) -> int:
    """Where an offset points."""
    return place + int(struct.unpack_from("<I", data, place)[0])


def _field(data: bytes, table: int, number: int) -> int:
    """Position of a field of a table, or 0 for one that is left out."""
    vtable = table - struct.unpack_from("<i", data, table)[0]
    (size,) = struct.unpack_from("<H", data, vtable)
    place = 4 + 2 * number
    offset = struct.unpack_from("<H", data, vtable + place)[0] if place < size else 0
    return table + int(offset) if offset else 0
