"""Hugging Face model folders: `config.json` and tensors in one or more safetensors files.

Tensors are read one at a time and written one file at a time, so that a model of any size passes through the memory of
one file; the price is that the writer needs all sizes before it reads the first tensor.
"""

import json
import shutil
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tqdm import tqdm

from common.errors import InputError
from common.files import refuse_failed_save, sync
from models.anatomy import block_tensors, embedding_tensors, head_tensors
from models.config import DecoderConfig
from models.weights.hugging_face_names import from_hugging_face, hugging_face_names

CONFIG, GENERATION = "config.json", "generation_config.json"
INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
_HEAD, _BUFFERS = "lm_head.weight", "rotary_emb.inv_freq"
_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
PARTIAL = ".partial"
"""Folder within that of a model, of files that are being written."""
SHARD_BYTES = 5_000_000_000
"""Bytes of a file at most, transformers' default."""


class HuggingFaceFolder:
    """Tensors of a Hugging Face folder, by their names in this project's decoder.

    Args:
        path: folder with `config.json` and safetensors files.

    Raises:
        InputError: for an unsupported family, or files that are missing or damaged.

    Attributes:
        config: shape of the decoder.
        positions: maximum context in tokens, None where the configuration does not say.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            described = json.loads((path / CONFIG).read_text(encoding="utf-8"))
            self.config: DecoderConfig = self._described(described)
            self.positions: int | None = described.get("max_position_embeddings")
            self._file_of = self._files()
            self._refuse_unread()
        except (OSError, UnicodeError, json.JSONDecodeError, SafetensorError) as error:
            raise InputError(f"{path} is no Hugging Face checkpoint in safetensors files ({error})") from error
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path / CONFIG} lacks {error} or holds something else there") from error

    def _described(self, described: Any) -> DecoderConfig:
        try:
            return from_hugging_face(described)
        except InputError as error:
            # A message about a key begins with the file's name alone.
            raise InputError(f"{self.path}/{error}" if str(error).startswith(CONFIG) else str(error)) from None

    def _files(self) -> dict[str, Path]:
        """File of each tensor, from the files themselves; two models in one folder are refused."""
        single, index = self.path / SINGLE, self.path / INDEX
        if not index.is_file():
            with safe_open(single, "pt") as file:
                return dict.fromkeys(file.keys(), single)
        files: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted(set(files.values()))
        missing = [name for name in names if not (self.path / name).is_file()]
        if single.is_file() and SINGLE not in names:
            raise InputError(
                f"{self.path} holds {SINGLE} and {INDEX}, which names {names[0]}: two models, or a stale index; remove "
                "the one that is not meant"
            )
        if missing:
            raise InputError(f"{self.path} lacks {', '.join(missing)}: download it again")
        for name in names:
            with safe_open(self.path / name, "pt") as file:
                absent = {tensor for tensor, place in files.items() if place == name} - set(file.keys())
            if absent:
                raise InputError(
                    f"{self.path / name} lacks {min(absent)}, which {INDEX} says it holds: download it again"
                )
        return {tensor: self.path / name for tensor, name in files.items()}

    def _refuse_unread(self) -> None:
        """Refuse tensors that the decoder has not: the model computes something else with them."""
        config = self.config
        names = [tensor.name for tensor in (*embedding_tensors(config), *head_tensors(config))]
        names += [f"layers.{n}.{tensor.name}" for n in range(config.layers) for tensor in block_tensors(config)]
        read = {theirs for name in names for theirs in hugging_face_names(name, config)}
        unread = {name for name in self._file_of.keys() - read if not name.endswith(_BUFFERS)}
        needed = read - {_HEAD} if config.tied_embeddings else read
        if unread and self._file_of.keys() >= needed:
            raise InputError(
                f"{self.path} holds {min(unread)} and {len(unread) - 1} other tensors that a {config.layers}-layer "
                f"model of {CONFIG} has no place for: the configuration is not that of these weights"
            )

    def __call__(self, name: str) -> torch.Tensor | None:
        """Parameter of the decoder, whole, on the CPU; None where it is not stored.

        Raises:
            InputError: for values that are no numbers, or a head that is tied in `config.json` alone.
        """
        if name.endswith((".lora_a", ".lora_b")):
            return None  # these folders hold whole models; an adapter upon one begins as nothing
        theirs = hugging_face_names(name, self.config)
        if not all(one in self._file_of for one in theirs):
            return None
        tensors = [self._tensor(one) for one in theirs]
        tied = self.config.tied_embeddings and _HEAD in self._file_of and name == "tok_embeddings.weight"
        if tied and not torch.equal(tensors[0], self._tensor(_HEAD)):
            raise InputError(
                f"{self.path / CONFIG}: tie_word_embeddings=True, but {_HEAD} differs from {theirs[0]}; set it to "
                f"false, or remove {_HEAD} if it is not meant"
            )
        return tensors[0] if len(tensors) == 1 else torch.stack(tensors)

    def _tensor(self, name: str) -> torch.Tensor:
        with safe_open(self._file_of[name], "pt") as file:
            tensor: torch.Tensor = file.get_tensor(name)
        if tensor.dtype not in _DTYPES:
            raise InputError(
                f"{self._file_of[name]}: {name} is stored as {tensor.dtype}, this decoder reads weights in half "
                "precision or more; dequantize the model first"
            )
        # One sum passes over the memory once and finds every value that is no number; it may overflow by itself.
        if not tensor.sum(dtype=torch.float32).isfinite() and not tensor.isfinite().all():
            bad = int((~tensor.isfinite()).sum())
            raise InputError(f"{self._file_of[name]}: {bad} values of {name} are NaN or infinite: download it again")
        return tensor


def is_hugging_face_folder(path: Path) -> bool:
    """Whether a path is a Hugging Face model folder."""
    return path.is_dir() and (path / CONFIG).is_file()


def weight_files(path: Path) -> list[Path]:
    """Configuration and files of weights of a Hugging Face folder, by name."""
    return [path / CONFIG, *sorted(path.glob("*.safetensors"))]


def write_hugging_face_folder(
    folder: Path,
    shape: DecoderConfig,
    config: dict[str, Any],
    sizes: Iterable[tuple[str, torch.Size]],
    read: Callable[[str], torch.Tensor],
    dtype: torch.dtype,
    shard_bytes: int = SHARD_BYTES,
    stops: Iterable[int] = (),
    write_more: Callable[[Path], None] = lambda folder: None,
    stale: Collection[str] = (),
) -> None:
    """Write a Hugging Face folder; a model that is there stays whole until all of the new one is on the disk.

    Args:
        folder: folder to write; made if it is missing.
        shape: configuration of the decoder.
        config: content of `config.json`.
        sizes: name in this project's decoder and shape of each tensor.
        read: function from such a name to its tensor.
        dtype: dtype of the tensors written.
        shard_bytes: bytes of a file at most, unless one tensor alone is larger.
        stops: token ids that end a response beside `eos_token_id`, for `generation_config.json`.
        write_more: function that writes further files, such as a tokenizer's, into a folder.
        stale: names of further files that are removed where `write_more` does not write them.

    Raises:
        InputError: when it cannot be written.
    """
    partial = folder / PARTIAL
    with refuse_failed_save(folder):
        shutil.rmtree(partial, ignore_errors=True)  # of one that was killed
        partial.mkdir(parents=True)
    try:
        _write_files(partial, shape, config, sizes, read, dtype, shard_bytes, stops)
        with refuse_failed_save(folder):
            write_more(partial)
            _install(folder, partial, stale)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _install(folder: Path, partial: Path, stale: Collection[str]) -> None:
    """Put files that are whole in the place of an earlier model's."""
    names = {path.name for path in partial.iterdir()}
    for path in partial.iterdir():
        sync(path)
    for name in (CONFIG, INDEX):
        # Without them the folder is no model: one that is interrupted from here on must not hold two.
        (folder / name).unlink(missing_ok=True)
    # Files of an earlier model would be read in place of these, or beside them.
    for old in [folder / SINGLE, *folder.glob("model-*-of-*.safetensors"), *(folder / name for name in stale)]:
        if old.name not in names:
            old.unlink(missing_ok=True)
    for name in sorted(names, key=CONFIG.__eq__):
        (partial / name).replace(folder / name)
    sync(folder)


def _write_files(
    folder: Path,
    shape: DecoderConfig,
    config: dict[str, Any],
    sizes: Iterable[tuple[str, torch.Size]],
    read: Callable[[str], torch.Tensor],
    dtype: torch.dtype,
    shard_bytes: int,
    stops: Iterable[int],
) -> None:
    """Write all files of a model into an empty folder."""
    shards: list[list[str]] = []
    free = total = 0
    for name, whole_size in sizes:
        size = whole_size.numel() * dtype.itemsize
        if not shards or size > free:
            shards.append([])
            free = shard_bytes
        shards[-1].append(name)
        free -= size
        total += size
    index: dict[str, str] = {}
    with tqdm(total=total, desc=f"writing {folder.parent}", unit="B", unit_scale=True) as progress:
        for number, names in enumerate(shards):
            file = SINGLE if len(shards) == 1 else f"model-{number + 1:05d}-of-{len(shards):05d}.safetensors"
            tensors: dict[str, torch.Tensor] = {}
            for name in names:
                theirs, whole = hugging_face_names(name, shape), read(name).to(dtype)
                # safetensors would write the whole storage of a slice.
                parts = [whole] if len(theirs) == 1 else [part.clone() for part in whole]
                tensors |= {one: part.contiguous() for one, part in zip(theirs, parts, strict=True)}
            with refuse_failed_save(folder.parent / file):
                save_file(tensors, folder / file, metadata={"format": "pt"})
            index |= dict.fromkeys(tensors, file)
            progress.update(sum(tensor.nbytes for tensor in tensors.values()))
    if len(shards) > 1:
        described = {"metadata": {"total_size": total}, "weight_map": dict(sorted(index.items()))}
        _write_json(folder / INDEX, described)
    special: dict[str, Any] = {
        key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id") if config.get(key) is not None
    }
    if further := list(stops):
        special["eos_token_id"] = [special["eos_token_id"], *further]
    _write_json(folder / GENERATION, special)
    _write_json(folder / CONFIG, config)


def _write_json(path: Path, value: Any) -> None:
    with refuse_failed_save(path.parent.parent / path.name):
        path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
