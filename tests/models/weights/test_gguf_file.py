"""GGUF files: what is written is read back bit by bit, names are llama.cpp's, and what is not whole is refused."""

import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from common.errors import InputError
from models.config import DecoderConfig, Experts, RotaryScaling
from models.decoder import Decoder
from models.initialization import build_decoder
from models.weights.gguf_file import GGUFFile, Quantization, write_gguf
from models.weights.gguf_names import FAMILIES, gguf_name, interleaved
from models.weights.hugging_face_names import hugging_face_names
from models.weights.load import load_decoder
from models.weights.source import WeightSource

SHAPE: dict[str, Any] = {
    "vocabulary_size": 40, "width": 32, "layers": 2, "heads": 4, "key_value_heads": 2, "feed_forward_width": 64,
}  # fmt: skip
EXPERTS = Experts(num_experts=4, experts_per_token=2, balance_weight=0.002, z_weight=0.0)
SHAPES: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama untied": {"tied_embeddings": False, "head_width": 16, "norm_epsilon": 1e-6},
    "llama with linear scaling": {"rope_scaling": RotaryScaling("linear", 4.0)},
    "llama 3.1": {"rope_scaling": RotaryScaling("llama3", 8.0), "rope_theta": 500_000.0},
    "llama 3.2": {"rope_scaling": RotaryScaling("llama3", 32.0), "rope_theta": 500_000.0},
    "qwen2": {"query_key_value_bias": True},
    "qwen3": {"query_key_norm": True, "head_width": 16},
    "mixtral": {"experts": EXPERTS},
    "qwen3moe": {"experts": EXPERTS, "query_key_norm": True},
}


def write(path: Path, decoder: Decoder, quantization: Quantization = "f32", **keys: Any) -> None:
    weights = decoder.state_dict()
    sizes = [(name, tensor.shape) for name, tensor in decoder.named_parameters()]
    write_gguf(path, decoder.config, 128, sizes, weights.__getitem__, quantization, keys)


def randomized(config: DecoderConfig) -> Decoder:
    decoder = build_decoder(config)
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return decoder


@pytest.mark.parametrize("changes", SHAPES.values(), ids=SHAPES.keys())
def test_a_written_file_is_read_bit_by_bit(tmp_path: Path, changes: dict[str, Any]) -> None:
    decoder = randomized(DecoderConfig(**SHAPE | changes))
    write(tmp_path / "model.gguf", decoder)
    source = WeightSource(tmp_path / "model.gguf")
    read = source.whole_config()
    assert source.positions == 128
    for name in ("width", "layers", "heads", "key_value_heads", "feed_forward_width", "head_width", "tied_embeddings",
                 "query_key_norm", "query_key_value_bias", "rope_scaling", "rope_theta"):  # fmt: skip
        assert getattr(read, name) == getattr(decoder.config, name), name
    assert read.norm_epsilon == pytest.approx(decoder.config.norm_epsilon)
    for name, parameter in decoder.named_parameters():
        assert torch.equal(source.merged(name), parameter), name
    tokens = torch.arange(12)[None]
    ours, theirs = decoder(tokens), load_decoder(source, torch.device("cpu"))(tokens)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)  # the epsilon is stored in float32


@pytest.mark.parametrize("changes", SHAPES.values(), ids=SHAPES.keys())
def test_names_are_those_of_llama_cpp(changes: dict[str, Any]) -> None:
    """The `gguf` library's own map from Hugging Face's names."""
    decoder = build_decoder(DecoderConfig(**SHAPE | changes))
    config = decoder.config
    architecture = "QWEN2" if config.query_key_value_bias else "QWEN3" if config.query_key_norm else "LLAMA"
    if config.experts is not None and config.query_key_norm:
        architecture = "QWEN3MOE"
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[architecture], config.layers)
    for name, _ in decoder.named_parameters():
        (theirs, *others) = hugging_face_names(name, config)
        if others:  # stacked: the map has the name of the stack
            theirs = theirs.replace(".0.", ".", 2) if theirs.startswith("model.layers.0.") else theirs
            assert gguf_name(name, config) == f"blk.{name.split('.')[1]}.ffn_{_KIND[name[-2:]]}_exps.weight"
            continue
        assert gguf_name(name, config) == names.get_name(theirs, try_suffixes=(".weight", ".bias")), name


_KIND = {"w1": "gate", "w2": "down", "w3": "up"}


def test_queries_and_keys_of_llama_are_in_the_order_of_llama_cpp(tmp_path: Path) -> None:
    """Its converter's own permutation, in its words."""
    decoder = randomized(DecoderConfig(**SHAPE))
    write(tmp_path / "model.gguf", decoder)
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    for ours, theirs, heads in (("wq", "attn_q", 4), ("wk", "attn_k", 2)):
        weight = decoder.get_parameter(f"layers.1.attention.{ours}.weight").detach().numpy()
        wanted = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:]).swapaxes(1, 2)
        np.testing.assert_array_equal(stored[f"blk.1.{theirs}.weight"].data, wanted.reshape(weight.shape))
        np.testing.assert_array_equal(interleaved(torch.from_numpy(weight), 8).numpy(), wanted.reshape(weight.shape))


@pytest.mark.parametrize(("quantization", "tolerance"), [("f16", 1e-3), ("bf16", 1e-2), ("q8_0", 2e-2)])
def test_matrices_are_quantized_and_vectors_kept(tmp_path: Path, quantization: Quantization, tolerance: float) -> None:
    decoder = randomized(DecoderConfig(**SHAPE | {"experts": EXPERTS}))
    write(tmp_path / "model.gguf", decoder, quantization)
    source = WeightSource(tmp_path / "model.gguf")
    for name, parameter in decoder.named_parameters():
        stored = source.merged(name)
        if parameter.dim() == 1 or name.endswith("router.weight"):
            assert torch.equal(stored, parameter)
        else:
            error = (stored - parameter).norm() / parameter.norm()
            assert 0 < error < tolerance
    again = tmp_path / "again.gguf"
    sizes = [(name, parameter.shape) for name, parameter in decoder.named_parameters()]
    write_gguf(again, source.whole_config(), 128, sizes, source.merged, quantization, {})
    for name, _ in sizes:  # quantizing once more changes nothing
        assert torch.equal(WeightSource(again).merged(name), source.merged(name))


def test_a_file_that_is_cut_off_is_refused_wherever(tmp_path: Path) -> None:
    write(tmp_path / "model.gguf", randomized(DecoderConfig(**SHAPE)), **{"tokenizer.ggml.tokens": ["a", "b"]})
    content = (tmp_path / "model.gguf").read_bytes()
    for size in [0, 3, 4, 20, *range(24, len(content) - 1, len(content) // 40), len(content) - 1]:
        path = tmp_path / f"{size}.gguf"
        path.write_bytes(content[:size])
        with pytest.raises(InputError, match=r"cut off|lacks|not a whole model|does not know|architecture"):
            GGUFFile(path)
        path.unlink()


def edited(path: Path, keys: dict[str, Any], tensors: dict[str, np.ndarray], architecture: str = "llama") -> Path:
    """A copy of a file with other keys and more tensors."""
    reader = gguf.GGUFReader(path)
    writer = gguf.GGUFWriter(path.with_name("edited.gguf"), architecture)
    old = {name: field.contents() for name, field in reader.fields.items() if name.startswith("llama.")}
    for name, value in (old | keys).items():
        if value is not None:
            getattr(writer, f"add_{ {int: 'uint32', float: 'float32', str: 'string', list: 'array'}[type(value)] }")(
                name, value
            )
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, np.array(tensors.pop(tensor.name, tensor.data)))
    for name, numbers in tensors.items():
        writer.add_tensor(name, numbers)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.with_name("edited.gguf")


@pytest.mark.parametrize(
    ("keys", "tensors", "message"),
    [
        ({"llama.attention.magic": 3}, {}, "llama.attention.magic=3: a key that this decoder does not know"),
        ({"llama.attention.sliding_window": 64}, {}, "sliding_window=64: not read from GGUF"),
        ({"llama.rope.dimension_count": 4}, {}, "rope.dimension_count=4"),
        ({"llama.rope.scaling.type": "yarn"}, {}, "rope.scaling.type=yarn: this decoder supports linear"),
        ({"llama.attention.head_count_kv": [2, 4]}, {}, r"head_count_kv=\[2, 4\]: this decoder has the same in all"),
        ({"llama.block_count": None}, {}, "block_count=None: must be a number"),
        ({"llama.attention.layer_norm_rms_epsilon": None}, {}, "lacks llama.attention.layer_norm_rms_epsilon"),
        ({"llama.rope.scaling.type": "linear"}, {}, "lacks llama.rope.scaling.factor"),
        ({}, {"blk.0.attn_gate.weight": np.ones(4, np.float32)}, "holds blk.0.attn_gate.weight, which a decoder"),
        ({}, {"rope_freqs.weight": np.full(4, 3, np.float32)}, "a scaling of the rotary embedding that is none of"),
    ],
)
def test_what_would_compute_something_else_is_refused(
    tmp_path: Path, keys: dict[str, Any], tensors: dict[str, np.ndarray], message: str
) -> None:
    write(tmp_path / "model.gguf", randomized(DecoderConfig(**SHAPE)))
    with pytest.raises(InputError, match=message):
        GGUFFile(edited(tmp_path / "model.gguf", keys, dict(tensors)))


def test_another_architecture_is_refused_by_name(tmp_path: Path) -> None:
    write(tmp_path / "model.gguf", randomized(DecoderConfig(**SHAPE)))
    with pytest.raises(InputError, match=f"general.architecture=gemma3: this decoder reads {', '.join(FAMILIES)}"):
        GGUFFile(edited(tmp_path / "model.gguf", {}, {}, "gemma3"))


def test_values_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "model.gguf", randomized(DecoderConfig(**SHAPE)))
    broken = {"output_norm.weight": np.full(32, np.nan, np.float32)}
    file = GGUFFile(edited(tmp_path / "model.gguf", {}, broken))
    with pytest.raises(InputError, match="values of output_norm.weight are NaN or infinite"):
        file("norm.weight")


def test_what_no_architecture_holds_is_refused(tmp_path: Path) -> None:
    for changes, message in (
        ({"sliding_window": 8}, "no sliding windows"),
        ({"residual_scale": 0.5}, "no scales of embeddings"),
        ({"attention_scale": 0.5}, "no scales of embeddings"),
        ({"rope_pattern": [True, False]}, "rotary embeddings in all layers"),
        ({"rope_scaling": RotaryScaling("yarn", 4.0)}, "rope_scaling yarn: not written to GGUF"),
        ({"scalar_output": True, "tied_embeddings": False}, "no reward models"),
        ({"query_key_norm": True, "query_key_value_bias": True}, "has both"),
        ({"query_key_norm": True, "rope_scaling": RotaryScaling()}, "rope_scaling llama3 with qwen3"),
    ):
        with pytest.raises(InputError, match=message):
            write(tmp_path / "model.gguf", build_decoder(DecoderConfig(**SHAPE | changes)))
    with pytest.raises(InputError, match="rows of 24 numbers, q8_0 needs multiples of 32"):
        write(tmp_path / "model.gguf", build_decoder(DecoderConfig(**SHAPE | {"feed_forward_width": 24})), "q8_0")
    assert not list(tmp_path.iterdir())


def test_a_copy_has_the_identity_of_its_original(tmp_path: Path) -> None:
    write(tmp_path / "model.gguf", randomized(DecoderConfig(**SHAPE)))
    shutil.copy(tmp_path / "model.gguf", tmp_path / "copy.gguf")
    assert WeightSource(tmp_path / "model.gguf").identity == WeightSource(tmp_path / "copy.gguf").identity
