"""Single-file checkpoints with atomic writes, for Lightning's own strategies, and reading any checkpoint whole.

`torch.save` straight to the final name is simpler, but a kill or a power cut in the middle leaves half a file under a
name that the next run trusts. Here the bytes are on disk before the name exists, which costs one fsync.
"""

import json
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO
from safetensors.torch import save_file

from common.errors import InputError
from common.files import refuse_failed_save, write_atomically
from models.weights.sharded_folder import load_without_code, read_whole, require_parts


class AtomicCheckpointIO(CheckpointIO):
    """Single-file checkpoint IO: atomic write; verified and unpickled without code on load."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Atomic write of a checkpoint: `path` never names a partial file, not even after a power cut.

        Raises:
            InputError: when it cannot be written.
        """
        path = Path(path)
        with refuse_failed_save(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with write_atomically(path) as partial, partial.open("wb") as file:
                torch.save(checkpoint, file)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Checkpoint of a file, always read with `weights_only=True`.

        Raises:
            InputError: when the file is missing or its bytes do not match their checksums.
        """
        path = Path(path)
        if path.is_dir():
            raise InputError(
                f"checkpoint {path} is a folder, written by strategies.TensorParallelStrategy or its kin: "
                "continue with one of these, or give this one a trainer.default_root_dir of its own and "
                "model.init_args.init_from"
            )
        if not path.is_file():
            raise InputError(f"checkpoint {path} does not exist: check the path, or train first")
        try:
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
        except zipfile.BadZipFile as error:
            damaged = str(error)
        if damaged:
            raise InputError(f"checkpoint {path} is damaged ({damaged}): delete it to continue from the one before")
        return require_parts(load_without_code(path, map_location), path)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete a checkpoint."""
        Path(path).unlink(missing_ok=True)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Checkpoint of any layout in one process, all parameters whole under `state_dict`.

    Raises:
        InputError: when it is missing or damaged.
    """
    path = Path(path)
    return read_whole(path) if path.is_dir() else AtomicCheckpointIO().load_checkpoint(path)


def write_safetensors(tensors: dict[str, torch.Tensor], config: dict[str, Any], path: Path) -> None:
    """Safetensors file of a decoder, its configuration as JSON in the header's metadata.

    Args:
        tensors: parameters by name.
        config: the decoder's configuration.
        path: file to write or replace; its folder is made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with refuse_failed_save(path), write_atomically(path) as partial:
        save_file(tensors, partial, metadata={"decoder_config": json.dumps(config)})
