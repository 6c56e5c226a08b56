"""Sharded checkpoint folders (distributed checkpoint, DCP), written by all ranks and read by any parallel layout.

PyTorch's DCP stores each tensor under the parameter's name, whole or in shards, and reads the requested slice; nothing
in a folder depends on the number of ranks that wrote it. Added here: the folder gets its name when every byte is on
disk, each file has a checksum beside it, and no file is unpickled freely. Verification reads all bytes once more.
"""

import copy
import functools
import pickle
import shutil
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata

from common.errors import InputError
from common.files import checksum, sync

METADATA = ".metadata"
"""DCP's index of the folder; a folder without it is no checkpoint."""

TRAINER = "trainer.pt"
"""File of the trainer state: all but tensors of the model and the optimizer."""

CHECKSUM = ".xxh3"
"""Suffix of a file's checksum beside it."""

_INDEX = "torch.distributed.checkpoint.metadata"
_PARTS = {
    *((_INDEX, name) for name in ("Metadata", "MetadataIndex", "StorageMeta", "TensorProperties")),
    *((_INDEX, name) for name in ("TensorStorageMetadata", "BytesStorageMetadata", "ChunkStorageMetadata")),
    (_INDEX, "_MEM_FORMAT_ENCODING"),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    *(("torch", name) for name in ("Size", "device")),
    ("torch.serialization", "_get_layout"),
    ("builtins", "set"),
    ("pathlib", "PosixPath"),
}
"""Classes of an index by exact name: a module's prefix would admit all that the module imports."""


def write_checksum(path: Path) -> None:
    """Write a file's checksum beside it and sync both."""
    sidecar = path.with_name(path.name + CHECKSUM)
    sidecar.write_text(checksum(path), encoding="ascii")
    for name in (path, sidecar):
        sync(name)


def damaged_files(folder: Path, names: Iterable[str]) -> list[str]:
    """Those files of a checkpoint that are missing, lack a checksum or do not match it."""
    wrong = []
    for path in (folder / name for name in names):
        sidecar = path.with_name(path.name + CHECKSUM)
        if not (path.is_file() and sidecar.is_file()) or sidecar.read_text(encoding="ascii") != checksum(path):
            wrong.append(path.name)
    return wrong


class _Unpickler(pickle.Unpickler):
    """Restricted unpickler: builds the classes of an index and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        is_dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if is_dtype or (module, name) in _PARTS:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a checkpoint's index")


@functools.lru_cache(maxsize=4)
def _read_index(path: Path, changed: int) -> Metadata:
    """Index of a checkpoint, read once however many tensors are asked for.

    Args:
        path: file of the index.
        changed: time of its last change, in nanoseconds.
    """
    try:
        with path.open("rb") as file:
            metadata = _Unpickler(file).load()
        if not isinstance(metadata, Metadata):
            raise pickle.UnpicklingError(f"it holds a {type(metadata).__name__}")
    except (pickle.UnpicklingError, EOFError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise InputError(f"checkpoint {path.parent} has no readable index ({error})") from error
    return metadata


class _Reader(FileSystemReader):
    """DCP reader that unpickles the index without running code in it."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        path = Path(self.path) / METADATA
        metadata = copy.copy(_read_index(path, path.stat().st_mtime_ns))
        metadata.storage_meta = copy.copy(metadata.storage_meta) or dcp.StorageMeta()  # type: ignore[attr-defined]
        metadata.storage_meta.load_id = self.load_id
        return metadata


def rank_and_size() -> tuple[int, int]:
    """This process's rank and the number of processes; (0, 1) without a process group."""
    if torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def verify_checkpoint(folder: Path) -> None:
    """Refuse a folder that is no checkpoint, lacks a file or whose bytes changed; each rank verifies its share.

    The index says which files there must be; others, as file managers and network disks leave them, are no part of it.

    Raises:
        InputError: names the damaged files, on all ranks alike.
    """
    if not (folder / METADATA).is_file() or not (folder / TRAINER).is_file():
        raise InputError(f"checkpoint {folder} does not exist or lacks {METADATA} or {TRAINER}: check the path")
    rank, size = rank_and_size()
    wrong: list[Any] = [damaged_files(folder, (METADATA, TRAINER))]
    if not wrong[0]:
        stored = _Reader(folder).read_metadata().storage_data or {}
        wrong = [damaged_files(folder, sorted({part.relative_path for part in stored.values()})[rank::size])]
    if size > 1:
        unsharded: list[Any] = [None] * size
        torch.distributed.all_gather_object(unsharded, wrong[0])
        wrong = unsharded
    names = sorted({name for part in wrong for name in part})
    if names:
        raise InputError(
            f"checkpoint {folder} is damaged ({', '.join(names)}): delete it to continue from the one before"
        )


def load_trainer_state(folder: Path) -> dict[str, Any]:
    """Trainer state of a checkpoint, all but the tensors, unpickled without code."""
    return require_parts(load_without_code(folder / TRAINER), folder)


def load_without_code(path: Path, map_location: Any = None) -> Any:
    """Content of a `torch.save` file, tensors and plain values only.

    Raises:
        InputError: when the file is of another kind or holds anything else.
    """
    try:
        return torch.load(path, map_location=map_location or "cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError) as error:
        first = str(error).splitlines()[0]
        raise InputError(f"checkpoint {path} holds more than tensors and plain values ({first})") from error


def require_parts(checkpoint: Any, path: Path) -> dict[str, Any]:
    """Refuse a file that is no checkpoint of this project's `fit`."""
    parts = ("pytorch-lightning_version", "global_step", "decoder_config")
    missing = [part for part in parts if not isinstance(checkpoint, dict) or part not in checkpoint]
    if missing:
        raise InputError(f"checkpoint {path} lacks {', '.join(missing)}: it was not written by `fit`")
    return dict(checkpoint)


def stored_tensors(folder: Path) -> dict[str, TensorStorageMetadata]:
    """Global shape and dtype of each tensor in a checkpoint, by name."""
    entries = _Reader(folder).read_metadata().state_dict_metadata
    return {name: entry for name, entry in entries.items() if isinstance(entry, TensorStorageMetadata)}


def stored_checksums(folder: Path) -> list[list[str]]:
    """Names and checksums of the files with the tensors: equal for a copy of the folder, another after a change."""
    parts = _Reader(folder).read_metadata().storage_data or {}
    files = sorted({part.relative_path for part in parts.values()})
    return [[name, (folder / (name + CHECKSUM)).read_text(encoding="ascii")] for name in files]


def load_tensors(folder: Path, tensors: dict[str, Tensor], alone: bool = False) -> None:
    """Fill tensors in place, each rank those it names, as whole tensors or as the shards of DTensors.

    Args:
        folder: checkpoint folder.
        tensors: tensors by their names in it.
        alone: whether to not wait for the other ranks, which read other tensors.

    Raises:
        InputError: when the checkpoint lacks a name or holds another shape under it.
    """
    stored = stored_tensors(folder)
    for name, tensor in tensors.items():
        shape = tuple(stored[name].size) if name in stored else None
        if shape != tuple(tensor.shape):
            raise InputError(
                f"checkpoint {folder} holds {name} with shape {shape}, this model needs {tuple(tensor.shape)}: "
                "restore the configuration it was trained with"
            )
    alone = alone or not torch.distributed.is_initialized()
    _fill(folder, tensors, alone)


def _fill(folder: Path, tensors: dict[str, Tensor], alone: bool) -> None:
    with warnings.catch_warnings():
        # A single process is intended.
        warnings.filterwarnings("ignore", message=".*the intent is to load in a single process")
        dcp.load(cast(dict[str, Any], tensors), storage_reader=_Reader(folder), no_dist=alone)


def read_whole(folder: Path) -> dict[str, Any]:
    """Whole checkpoint in one process: trainer state, and `state_dict` with all parameters by name."""
    verify_checkpoint(folder)
    checkpoint = load_trainer_state(folder)
    tensors = {
        name: torch.empty(entry.size, dtype=entry.properties.dtype)
        for name, entry in stored_tensors(folder).items()
        if name.startswith("model.")
    }
    _fill(folder, tensors, alone=True)
    checkpoint["state_dict"] = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    return checkpoint


def remove(folder: Path) -> None:
    """Delete a checkpoint folder; a kill in the middle leaves nothing under its name."""
    if folder.exists():
        hidden = folder if folder.name.startswith(".") else folder.with_name(f".{folder.name}.removed")
        if hidden != folder:
            folder.rename(hidden)
        shutil.rmtree(hidden)
