"""WARC records by FastWARC, with a check that the file ends after the last of them.

FastWARC takes a file that is cut within the head of a record for one that ends there: an interrupted download would
pass as complete. It stops at a head that it cannot parse; where records are compressed one by one, as in all crawls,
reading goes on with the next.
"""

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow

from datamodules.readers.formats.bounded_streams import RefusedError

_GZIP, _ZSTD = b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd"
_BLOCK = 2**14
"""Bytes decompressed at once: not many, since each may become a thousand."""
_HEAD = 2**16
"""Bytes of a record's head at most, twice what FastWARC reads."""
_PADDING = b"\0\r\n"


def whole_records(path: str, expansion: int) -> Iterator[Any]:
    """All records of a file, of any type, their HTTP heads not parsed; None for one whose own head is damaged.

    Zeros behind the last record are padding, as of tapes and of files that were allocated in advance.

    Args:
        path: of a WARC file; the end of its name says how it is compressed, as FastWARC has it.
        expansion: bytes that may be decompressed while the end is looked at.

    Raises:
        EOFError: at the end of a file that is cut short or holds no record.
        RefusedError: `compression_bomb`.
    """
    from fastwarc.warc import ArchiveIterator

    if not Path(path).stat().st_size:
        return
    last: Any = None
    position = length = 0
    next_begin: int | None = 0  # where reading begins, or begins again
    while next_begin is not None:
        begin, next_begin = next_begin, None
        is_first = True  # whether no record was read since then
        with open(path, "rb") as file:
            file.seek(begin)
            try:
                for record in ArchiveIterator(file if begin else path, parse_http=False, fsspec_args=False):
                    if record.headers.get("Content-Length") is None:
                        raise OSError(f"the head of the record at {record.stream_pos} has no length")
                    last, is_first = record, False
                    position, length = record.stream_pos, record.content_length
                    yield record
            except OSError:
                # Padding is no record; anything else that is none is damage.
                if last is not None and _is_padded(path, position, length, expansion):
                    return
                # What follows the last record is tried by itself, then what follows that.
                next_begin = _next_member(path, begin if is_first else position, expansion)
                if next_begin is None:
                    raise
                if is_first:
                    yield None
    if last is None:
        raise EOFError(f"{path} holds no WARC record")
    _check_end(path, position, length, expansion)


def _next_member(path: str, position: int, expansion: int) -> int | None:
    """Where a file goes on behind a member of gzip, or None where it does not, or is not compressed by records."""
    if not path.lower().endswith(".gz"):
        return None
    with open(path, "rb") as file:
        file.seek(position)
        if not _is_member(file):
            return None
        _pass_member(file, expansion)
        return file.tell() if _is_member(file) else None


def _is_member(file: IO[bytes]) -> bool:
    mark = file.read(len(_GZIP))
    file.seek(-len(mark), 1)
    return mark == _GZIP


def _check_end(path: str, position: int, length: int, expansion: int) -> None:
    """Refuse a file in which something is cut from a record on.

    Raises:
        EOFError: for what is cut.
    """
    with open(path, "rb") as file:
        kind = path.lower().rpartition(".")[2]
        mark = {"gz": _GZIP, "zst": _ZSTD}.get(kind, b"")
        file.seek(position)
        # Where many records are compressed as one, FastWARC does not know where each begins: all is read again.
        file.seek(position if file.read(len(mark)) == mark else 0)
        if kind == "gz":
            while not _only_padding(file):
                _pass_member(file, expansion)
        elif kind == "zst":
            _pass_all(pyarrow.CompressedInputStream(file, "zstd"), expansion)
        elif kind in ("warc", "wet"):
            _pass_record(file, length)
            if not _only_padding(file):
                raise EOFError(f"the record at {position} is followed by the beginning of another")


def _is_padded(path: str, position: int, length: int, expansion: int) -> bool:
    """True if nothing but padding follows the record at a position."""
    with open(path, "rb") as file:
        file.seek(position)
        if path.lower().endswith(".gz"):
            if file.read(len(_GZIP)) != _GZIP:
                return False
            file.seek(position)
            _pass_member(file, expansion)
        elif path.lower().endswith((".warc", ".wet")):
            _pass_record(file, length)
        else:
            return False
        return _only_padding(file)


def _only_padding(file: IO[bytes]) -> bool:
    """True if nothing but padding is left; if there is more, the file stays where it is."""
    position = file.tell()
    while block := file.read(_BLOCK):
        if block.strip(_PADDING):
            file.seek(position)
            return False
    return True


def _pass_member(file: IO[bytes], expansion: int) -> None:
    """Go behind the gzip member that begins at the position of a file."""
    member = zlib.decompressobj(zlib.MAX_WBITS | 16)
    size = 0
    while not member.eof:
        if not (block := file.read(_BLOCK)):
            raise EOFError("a compressed record is cut short")
        size += len(member.decompress(block))
        if size > expansion:
            raise RefusedError("compression_bomb")
    file.seek(-len(member.unused_data), 1)


def _pass_all(stream: IO[bytes], expansion: int) -> None:
    while block := stream.read(_BLOCK):
        expansion -= len(block)
        if expansion < 0:
            raise RefusedError("compression_bomb")


def _pass_record(file: IO[bytes], length: int) -> None:
    """Go behind the uncompressed record that begins at the position of a file."""
    position = file.tell()
    head = file.read(_HEAD).find(b"\r\n\r\n")
    end = position + head + 4 + length
    if head < 0 or end > file.seek(0, 2):
        raise EOFError(f"the record at {position} is cut short")
    file.seek(end)
