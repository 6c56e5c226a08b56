"""Weight source: lazy access to the decoder of any checkpoint format, one tensor at a time.

Reading each tensor whole and keeping a shard costs more bytes from the disk than reading the shard alone, and lets any
format start any parallel layout; a rank never holds more than the tensor it places.
"""

import functools
import json
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from common.content_checksums import content_checksums
from common.errors import InputError
from common.run_folder import CHECKPOINTS, latest_checkpoint
from common.stored_models.gguf_metadata import is_gguf
from common.stored_models.names import model_path, pinned
from models.config import DecoderConfig
from models.lora import LoRA, merged
from models.weights.hugging_face_folder import HuggingFaceFolder, is_hugging_face_folder, weight_files


def weights_identity(path: Path) -> list[list[str]]:
    """See `WeightSource.identity`; of a checkpoint, a converted file or a Hugging Face folder, which is not opened."""
    if path.is_dir() and not is_hugging_face_folder(path):
        from models.weights.sharded_folder import stored_checksums

        return stored_checksums(path)
    if path.suffix == ".ckpt":
        with zipfile.ZipFile(path) as archive:
            return [[entry.filename.partition("/")[2], f"{entry.CRC:08x}"] for entry in archive.infolist()]
    files = [path] if path.is_file() else weight_files(path)
    checksums = content_checksums(map(str, files))
    return [["" if file == path else file.name, checksums[str(file)]] for file in files]


class WeightSource:
    """Stored decoder of a run, a checkpoint, a converted file or a Hugging Face folder, read one tensor at a time.

    Args:
        path: checkpoint of any layout, file that `convert` wrote, GGUF file, Hugging Face folder, or folder of a run,
            whose newest checkpoint is used; or a name, see `common.stored_models.names`.

    Raises:
        InputError: when there is none or it is damaged.

    Attributes:
        config: the decoder's configuration as a dictionary.
        positions: maximum context in tokens, None where it is not stored.
        name: what names these very weights ever after: the path as given, or a name with its commit.
    """

    PREFIX = "decoder."

    def __init__(self, path: Path, option: str = "init_from") -> None:
        self.option, given = option, path
        path = model_path(given, option)
        self.name = pinned(given, path)
        if (path / CHECKPOINTS).is_dir():
            latest = latest_checkpoint(path)
            if latest is None:
                raise InputError(f"{option}={path}: the run holds no checkpoint yet")
            path = latest
        self.path = path
        self._read: Callable[[str], torch.Tensor | None]
        self._names: set[str] | None = None
        self.positions: int | None = None
        if is_hugging_face_folder(path):
            folder = HuggingFaceFolder(path)
            self.config, self._read = asdict(folder.config), lambda name: folder(name.removeprefix(self.PREFIX))
            self.positions = folder.positions
        elif is_gguf(path):
            self._open_gguf()
        elif path.is_dir():
            # Imported where it is used: distributed checkpoints bring DTensor and its symbolic shapes.
            from models.weights.sharded_folder import load_trainer_state, stored_tensors, verify_checkpoint

            if not any((path / name).exists() for name in (".metadata", "trainer.pt")):
                raise self._not_a_model()
            verify_checkpoint(path)
            self.config, names = load_trainer_state(path)["decoder_config"], stored_tensors(path)
            self._names = {name.removeprefix("model.") for name in names if name.startswith("model.")}
            self._read = self._read_sharded
        elif path.suffix == ".safetensors":
            self._open_safetensors()
        elif path.suffix != ".ckpt":
            raise self._not_a_model()
        else:
            # Imported where it is used: it brings Lightning.
            from models.weights.single_file import AtomicCheckpointIO

            checkpoint = AtomicCheckpointIO().load_checkpoint(path)
            self.config, tensors = checkpoint["decoder_config"], checkpoint["state_dict"]
            self._names, self._read = set(tensors), tensors.__getitem__

    @functools.cached_property
    def identity(self) -> list[list[str]]:
        """Names and checksums of the files with the weights: equal for a copy, another after a change.

        Sharded checkpoints and `.ckpt` files hold checksums; files of safetensors are read whole for it.
        """
        return weights_identity(self.path)

    def _open_gguf(self) -> None:
        from models.weights.gguf_file import GGUFFile

        file = GGUFFile(self.path)
        self.config, self._read = asdict(file.config), lambda name: file(name.removeprefix(self.PREFIX))
        self.positions = file.positions

    def _open_safetensors(self) -> None:
        try:
            self._file = safe_open(self.path, "pt")
            self.config = json.loads((self._file.metadata() or {})["decoder_config"])
        except (SafetensorError, KeyError, ValueError) as error:
            raise InputError(f"{self.option}={self.path} was not written by convert or is damaged ({error})") from error
        self._names, self._read = set(self._file.keys()), self._file.get_tensor

    def _read_sharded(self, name: str) -> torch.Tensor:
        from models.weights.sharded_folder import load_tensors, stored_tensors

        entry = stored_tensors(self.path)[f"model.{name}"]
        tensor = torch.empty(entry.size, dtype=entry.properties.dtype)
        load_tensors(self.path, {f"model.{name}": tensor}, alone=True)
        return tensor

    def __call__(self, name: str) -> torch.Tensor | None:
        """Parameter of the decoder by its name, whole, on the CPU; None where it is not stored."""
        name = f"{self.PREFIX}{name}"
        return self._read(name) if self._names is None or name in self._names else None

    def merged(self, name: str) -> torch.Tensor:
        """Parameter of the decoder with its adapter merged, if it has one.

        Raises:
            InputError: when it is not stored.
        """
        weight = self(name)
        if weight is None:
            raise InputError(f"{self.path} lacks {name}: it is not a whole model")
        adapter = self.config.get("lora")
        factors = [self(name.removesuffix("weight") + factor) for factor in ("lora_a", "lora_b")] if adapter else []
        if not factors or factors[0] is None or factors[1] is None:
            return weight
        lora = LoRA(**self.config["lora"])
        return merged(weight, factors[0], factors[1], lora.alpha / lora.rank)

    def _not_a_model(self) -> InputError:
        return InputError(
            f"{self.option}={self.path} is not a run, checkpoint (.ckpt), converted file (.safetensors), GGUF file or "
            "Hugging Face folder: name one"
        )

    def whole_config(self) -> DecoderConfig:
        """Configuration with adapters merged."""
        return DecoderConfig(**self.config | {"lora": None})
