"""GGUF files opened with the `gguf` library: metadata of model, tokenizer and template, and where each tensor lies.

Opening one reads all metadata, which takes seconds for a large vocabulary, so that a file is kept open once opened; its
tensors are mapped and not read.
"""

import functools
from pathlib import Path
from typing import Any

from common.errors import InputError


def is_gguf(path: Path) -> bool:
    """Whether a path is named as a GGUF file."""
    return path.suffix == ".gguf"


def open_gguf(path: Path) -> Any:
    """A `gguf.GGUFReader` of a file.

    Args:
        path: of the file.

    Raises:
        InputError: when the library is not installed, or the file is damaged or cut off.
    """
    status = path.stat()
    return _open(str(path.resolve()), status.st_mtime_ns, status.st_size)


def gguf_metadata(path: Path) -> dict[str, Any]:
    """Metadata of a GGUF file by key: numbers, texts and lists of them.

    Raises:
        InputError: see `open_gguf`.
    """
    status = path.stat()
    return _metadata(str(path.resolve()), status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=2)
def _open(path: str, changed: int, size: int) -> Any:
    try:
        import gguf
    except ImportError as error:
        raise InputError(f"{path} needs the gguf package: pip install -e '.[huggingface]'") from error
    try:
        reader = gguf.GGUFReader(path)
    except (OSError, ValueError, IndexError, KeyError, OverflowError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is no GGUF file or is cut off ({error}): download it again") from error
    for tensor in reader.tensors:
        if tensor.data_offset + int(tensor.n_bytes) > size:
            raise InputError(f"{path} is cut off within {tensor.name}: download it again")
    return reader


@functools.lru_cache(maxsize=2)
def _metadata(path: str, changed: int, size: int) -> dict[str, Any]:
    reader = _open(path, changed, size)
    try:
        return {name: field.contents() for name, field in reader.fields.items()}
    except (ValueError, IndexError, UnicodeError) as error:
        raise InputError(f"{path} holds damaged metadata ({error}): download it again") from error
