"""GGUF files, llama.cpp's format: read and dequantized one tensor at a time, and written.

A tensor is dequantized whole each time it is asked for, so that memory holds one; a model that is opened often is
better converted once.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tqdm import tqdm

from common.errors import InputError
from common.files import refuse_failed_save, write_atomically
from common.stored_models.gguf_metadata import gguf_metadata, open_gguf
from models.anatomy import block_tensors, embedding_tensors, head_tensors
from models.config import DecoderConfig
from models.weights.gguf_names import (
    ROTARY_FACTORS,
    from_gguf,
    gguf_name,
    halves,
    interleaved,
    is_interleaved,
    rotary_factors,
    to_gguf,
)

Quantization = Literal["f32", "f16", "bf16", "q8_0"]
"""Formats of the matrices that are written here; vectors are always float32, as llama.cpp wants them."""


class GGUFFile:
    """Tensors of a GGUF file, by their names in this project's decoder.

    Args:
        path: of the file.

    Raises:
        InputError: for an unsupported architecture, or a file that is damaged, cut off or holds other tensors.

    Attributes:
        config: shape of the decoder.
        positions: maximum context in tokens, None where the file does not say.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        reader, metadata = open_gguf(path), gguf_metadata(path)
        self._tensors = {tensor.name: tensor for tensor in reader.tensors}
        architecture = metadata.get("general.architecture")
        factors = torch.from_numpy(self._numbers(ROTARY_FACTORS)) if ROTARY_FACTORS in self._tensors else None
        try:
            self.config: DecoderConfig = from_gguf(metadata, {*self._tensors}, factors)
        except KeyError as error:
            raise InputError(f"{path} lacks {architecture}.{error.args[0]}: it is not a whole model") from error
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        self.positions: int | None = metadata.get(f"{architecture}.context_length")
        self.architecture = str(architecture)
        self._refuse_unread()

    def __call__(self, name: str) -> torch.Tensor | None:
        """Parameter of the decoder, whole, float32 or as it is stored where that is no quantization; None where it is
        not stored.

        Raises:
            InputError: for a quantization that the `gguf` library does not read, or values that are no numbers.
        """
        if name.endswith((".lora_a", ".lora_b")):
            return None  # these files hold whole models; an adapter upon one begins as nothing
        theirs = gguf_name(name, self.config)
        if theirs not in self._tensors:
            return None
        tensor = torch.from_numpy(self._numbers(theirs))
        if not tensor.isfinite().all():
            raise InputError(f"{self.path}: values of {theirs} are NaN or infinite: download it again")
        assert self.config.head_width is not None
        return halves(tensor, self.config.head_width) if is_interleaved(name, self.architecture) else tensor

    def _refuse_unread(self) -> None:
        """Refuse tensors that the decoder has not: the model computes something else with them."""
        config = self.config
        names = [tensor.name for tensor in (*embedding_tensors(config), *head_tensors(config))]
        names += [f"layers.{n}.{tensor.name}" for n in range(config.layers) for tensor in block_tensors(config)]
        read = {gguf_name(name, config) for name in names} | {ROTARY_FACTORS}
        if unread := self._tensors.keys() - read:
            raise InputError(
                f"{self.path} holds {min(unread)}, which a decoder of {self.architecture} has no place for: it "
                "computes something else"
            )

    def _numbers(self, name: str) -> np.ndarray:
        """A tensor as float32, copied from the file."""
        import gguf

        tensor = self._tensors[name]
        try:
            return np.array(gguf.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
        except NotImplementedError as error:
            raise InputError(
                f"{self.path}: {name} is quantized as {tensor.tensor_type.name}, which the gguf package does not read: "
                "take a file in another quantization"
            ) from error


def write_gguf(
    path: Path,
    config: DecoderConfig,
    positions: int,
    sizes: Iterable[tuple[str, torch.Size]],
    read: Callable[[str], torch.Tensor],
    quantization: Quantization,
    tokenizer: dict[str, Any],
) -> None:
    """Write a GGUF file; it gets its name when it is whole.

    Args:
        path: file to write.
        config: configuration of the decoder, without adapters.
        positions: maximum context in tokens.
        sizes: name in this project's decoder and shape of each tensor.
        read: function from such a name to its tensor.
        quantization: of the matrices.
        tokenizer: keys of `tokenizer.ggml.` and `tokenizer.chat_template` with their values.

    Raises:
        InputError: for a shape that no architecture has, or rows that the quantization's blocks do not divide.
    """
    import gguf

    architecture, keys = to_gguf(config, positions)
    matrix, vector = gguf.GGMLQuantizationType[quantization.upper()], gguf.GGMLQuantizationType.F32
    block, block_bytes = gguf.GGML_QUANT_SIZES[matrix]
    listed = [(name, size, matrix if _is_quantized(name, size) else vector) for name, size in sizes]
    for name, size, kind in listed:
        if kind == matrix and size[-1] % block:
            raise InputError(f"{name} has rows of {size[-1]} numbers, {quantization} needs multiples of {block}")
    if config.rope_scaling is not None and config.rope_scaling.kind == "llama3":
        listed.append((ROTARY_FACTORS, rotary_factors(config).shape, vector))

    def numbers(name: str) -> np.ndarray:
        if name == ROTARY_FACTORS:
            return rotary_factors(config).numpy()
        tensor = read(name).float()
        if is_interleaved(name, architecture):
            assert config.head_width is not None
            tensor = interleaved(tensor, config.head_width)
        return tensor.contiguous().numpy()

    with refuse_failed_save(path), write_atomically(path) as partial:
        writer = gguf.GGUFWriter(partial, architecture)
        writer.add_file_type(gguf.LlamaFileType[_FILE_TYPES[quantization]])
        for key, value in {**{f"{architecture}.{key}": value for key, value in keys.items()}, **tokenizer}.items():
            _add(writer, key, value)
        for name, size, kind in listed:
            size_bytes = size.numel() * block_bytes // block if kind == matrix else size.numel() * 4
            theirs = name if name == ROTARY_FACTORS else gguf_name(name, config)
            writer.add_tensor_info(theirs, tuple(size), np.dtype(np.float32), size_bytes, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name, _, kind in tqdm(listed, desc=f"writing {path}", unit=" tensors"):
            writer.write_tensor_data(gguf.quantize(numbers(name), kind))
        writer.close()


def _is_quantized(name: str, size: torch.Size) -> bool:
    """Matrices but the router's, which llama.cpp wants in float32."""
    return len(size) > 1 and not name.endswith("router.weight")


_FILE_TYPES = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "bf16": "MOSTLY_BF16", "q8_0": "MOSTLY_Q8_0"}


def _add(writer: Any, key: str, value: Any) -> None:
    """One key with its value in the type that llama.cpp reads."""
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)
