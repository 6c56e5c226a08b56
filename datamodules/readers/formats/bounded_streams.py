"""Bounded streams: decompression, lines, whole files and archive members with a limit of bytes.

What is read is untrusted: a few kilobytes can expand to terabytes, a line can have no end. Limits cost one comparison
per block; without them one file ends the run.
"""

import bz2
import gzip
import io
import lzma
import os
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, cast
from zlib import error as ZlibError

import pyarrow

COMPRESSIONS = (".gz", ".zst", ".bz2", ".xz")
MAX_EXPANSION = 200
"""Bytes out for one byte in. Text compresses 3 to 10 times, much repeated logs 50 times; gzip can reach 1,032."""
FREE_EXPANSION = 64 * 2**20
"""Bytes that any file may expand to, whatever the ratio."""
BLOCK = 2**20
STEP = 2**14
"""Bytes decompressed at a time: what is lost of a damaged file before the damage."""
MAX_ZSTD_WINDOW = 2**27
"""What Arrow's decompressor takes; `zstd --long=28` and more write larger ones."""

MALFORMED = (
    ValueError, LookupError, ArithmeticError, AssertionError, RecursionError, NotImplementedError, struct.error,
)  # fmt: skip
"""What parsers raise on content that their authors did not think of. TypeError, AttributeError and NameError are not
among them: those are mistakes in a program, and stop the run."""
DAMAGE = (
    EOFError, OSError, ZlibError, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile, pyarrow.ArrowException,
    *MALFORMED,
)  # fmt: skip
"""What a cut, overwritten or forged file raises, by any of the formats read here. `InputError`, a ValueError, is no
damage: a handler of these lets it pass first."""


class RefusedError(Exception):
    """Content that is not read, by the reason it is dropped for: too large, a compression bomb, too deep."""


class _Limited(io.RawIOBase):
    """Raw stream over another that refuses to give more than `max_bytes` bytes."""

    def __init__(self, stream: IO[bytes], max_bytes: int) -> None:
        self.stream, self.left = stream, max_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        # Not `read`, which on damage loses what it has decompressed up to there.
        data = getattr(self.stream, "read1", self.stream.read)(min(len(buffer), STEP))
        self.left -= len(data)
        if self.left < 0:
            raise RefusedError("compression_bomb")
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self.stream.close()
        super().close()


class _Zstandard:
    """A .zst file by Arrow's stream, which on damage loses what it has decompressed within a read."""

    def __init__(self, location: str) -> None:
        self.location, self.given, self.damage = location, 0, cast(Exception | None, None)
        self.stream = self._open()

    def _open(self) -> Any:
        return pyarrow.CompressedInputStream(pyarrow.OSFile(self.location), "zstd")

    def read(self, size: int) -> bytes:
        """At most `size` bytes; what comes before damage is given first, the error at the next read."""
        if self.damage is not None:
            raise self.damage
        try:
            data: bytes = self.stream.read(size)
        except OSError as error:
            self.damage = error
            data = self._before_damage()
            if not data:
                raise
        self.given += len(data)
        return data

    def _before_damage(self) -> bytes:
        """The bytes that the failed read lost: from the beginning again, and one at a time where it failed."""
        self.stream.close()
        self.stream = self._open()
        found, left = bytearray(), self.given
        with suppress(OSError):  # the same damage, which is kept
            while left and (passed := self.stream.read(min(left, BLOCK))):
                left -= len(passed)
            while byte := self.stream.read(1):
                found += byte
        return bytes(found)

    def close(self) -> None:
        self.stream.close()


def uncompressed_name(name: str) -> str:
    """A name in lower case without a suffix of compression."""
    name = name.lower()
    for compression in COMPRESSIONS:
        name = name.removesuffix(compression)
    return name


def open_bounded(location: str) -> IO[bytes]:
    """A file, decompressed by its suffix (.gz, .zst, .bz2, .xz).

    Raises:
        RefusedError: `zstd_window_too_large` for a .zst whose window is above `MAX_ZSTD_WINDOW`; while reading,
            `compression_bomb` beyond `MAX_EXPANSION` times what is stored.
    """
    suffix = Path(location).suffix.lower()
    if suffix in (".gz", ".tgz"):
        stream = cast(IO[bytes], gzip.open(location, "rb"))  # noqa: SIM115
    elif suffix == ".bz2":
        stream = cast(IO[bytes], bz2.open(location, "rb"))  # noqa: SIM115
    elif suffix == ".xz":
        stream = cast(IO[bytes], lzma.open(location, "rb"))  # noqa: SIM115
    elif suffix == ".zst":
        refuse_large_window(location)
        # Arrow's stream notices a frame cut short, which zstandard's reads as the end.
        stream = cast(IO[bytes], _Zstandard(location))
    else:
        return open(location, "rb")
    return limited(stream, os.path.getsize(location))


def refuse_large_window(location: str) -> None:
    """Refuse a .zst that needs more memory than Arrow gives it, by the head of its first frame (RFC 8878, 3.1.1.1).

    Raises:
        RefusedError: `zstd_window_too_large`.
    """
    with open(location, "rb") as file:
        head = file.read(6)
    single_segment = len(head) == 6 and head[4] & 0x20
    if head[:4] != b"\x28\xb5\x2f\xfd" or len(head) < 6 or single_segment:
        return
    base = 2 ** (10 + (head[5] >> 3))
    if base + base // 8 * (head[5] & 7) > MAX_ZSTD_WINDOW:
        raise RefusedError("zstd_window_too_large")


def limited(stream: IO[bytes], stored: int) -> IO[bytes]:
    """A decompressing stream that refuses to give more than `MAX_EXPANSION` times what is stored.

    Args:
        stream: gives what was compressed.
        stored: compressed size in bytes.
    """
    return cast(IO[bytes], io.BufferedReader(_Limited(stream, max(FREE_EXPANSION, MAX_EXPANSION * stored)), BLOCK))


def read_whole(stream: IO[bytes], max_bytes: int) -> bytes:
    """All that is left in a stream.

    Raises:
        RefusedError: `too_large` for more than `max_bytes` bytes, having read one byte more.
    """
    # A short read is no end: decompressors give what they have.
    blocks, size = [], 0
    while block := stream.read(min(BLOCK, max_bytes + 1 - size)):
        blocks.append(block)
        size += len(block)
        if size > max_bytes:
            raise RefusedError("too_large")
    return b"".join(blocks)


def bounded_lines(stream: IO[bytes], max_bytes: int) -> Iterator[bytes | None]:
    """Lines with their ends; None for one of more than `max_bytes` bytes, whose rest is passed over."""
    while line := stream.readline(max_bytes + 1):
        if len(line) <= max_bytes or line.endswith(b"\n"):
            yield line
            continue
        del line
        while (rest := stream.readline(BLOCK)) and not rest.endswith(b"\n"):
            pass
        yield None


def tar_streams(stream: IO[bytes]) -> Iterator[tuple[str, int, IO[bytes]]]:
    """Names, sizes and streams of the regular files of a tar archive, in order; what is not read is skipped.

    Links and devices are passed over: nothing is ever written, so that names need no check.
    """
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            if member.isreg():
                content = archive.extractfile(member)
                assert content is not None
                yield member.name, member.size, content


def tar_members(
    stream: IO[bytes], max_bytes: int, wanted: Callable[[str], bool] = lambda name: True
) -> Iterator[tuple[str, bytes | None]]:
    """Names and contents of the files of a tar archive that are wanted by their names; None above `max_bytes` bytes."""
    for name, size, content in tar_streams(stream):
        if wanted(name):
            yield name, content.read() if size <= max_bytes else None


def is_tar(head: bytes) -> bool:
    """True if the first 512 bytes of a file are the head of a tar archive of any age, by its checksum."""
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


class _Rejoined(io.RawIOBase):
    """Bytes that were read from a stream, and the rest of it."""

    def __init__(self, head: bytes, stream: IO[bytes]) -> None:
        self.head, self.stream = head, stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.head[: len(buffer)] or self.stream.read(len(buffer))
        self.head = self.head[len(data) :]
        buffer[: len(data)] = data
        return len(data)


def rejoined(head: bytes, stream: IO[bytes]) -> IO[bytes]:
    """A stream of which some was read to see what it is, from its beginning."""
    return cast(IO[bytes], io.BufferedReader(_Rejoined(head, stream), BLOCK))


def zip_member(archive: zipfile.ZipFile, name: str, max_bytes: int) -> bytes:
    """Content of a file in a zip archive; the sizes that the archive claims are not believed.

    Raises:
        KeyError: when there is none of this name.
        RefusedError: `too_large`, or `encrypted_file` for one that needs a password or an unknown method.
    """
    try:
        with archive.open(name) as stream:
            return read_whole(stream, max_bytes)
    except (RuntimeError, NotImplementedError) as error:
        raise RefusedError("encrypted_file") from error
