"""A folder whose files do not belong together is refused rather than read as another model."""

import errno
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from common.errors import InputError
from models.config import DecoderConfig
from models.decoder import Decoder
from models.initialization import build_decoder
from models.weights.hugging_face_folder import HuggingFaceFolder, write_hugging_face_folder
from models.weights.hugging_face_names import to_hugging_face

CONFIG = DecoderConfig(
    vocabulary_size=20, width=16, layers=2, heads=2, key_value_heads=1, feed_forward_width=24, tied_embeddings=False
)
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


@pytest.fixture
def decoder() -> Decoder:
    return build_decoder(CONFIG)


def write(folder: Path, decoder: Decoder, shard_bytes: int = 10**6) -> None:
    weights = decoder.state_dict()
    sizes = [(name, tensor.shape) for name, tensor in weights.items()]
    config = to_hugging_face(CONFIG, 16, "float32", {})
    write_hugging_face_folder(folder, CONFIG, config, sizes, weights.__getitem__, torch.float32, shard_bytes)


def change(folder: Path, **keys: object) -> None:
    """Other values for keys of config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


def replace(folder: Path, **tensors: torch.Tensor) -> None:
    """Other tensors in the one file, by their names with `__` for a point."""
    given = {name.replace("__", "."): tensor for name, tensor in tensors.items()}
    save_file(load_file(folder / SINGLE) | given, folder / SINGLE)


def test_a_whole_folder_is_read_bit_by_bit(tmp_path: Path, decoder: Decoder) -> None:
    for shard_bytes in (10**6, 4000):
        write(tmp_path, decoder, shard_bytes)
        folder = HuggingFaceFolder(tmp_path)
        for name, tensor in decoder.state_dict().items():
            read = folder(name)
            assert read is not None
            assert torch.equal(read, tensor)


@pytest.mark.parametrize("fails", ["weights", "reading", "tokenizer", "configuration"])
@pytest.mark.parametrize("shard_bytes", [10**6, 4000])
def test_an_older_model_stays_whole_where_the_new_one_cannot_be_written(
    fails: str, shard_bytes: int, tmp_path: Path, decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, decoder, shard_bytes)
    (tmp_path / "tokenizer.model").write_bytes(b"old")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    full = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    def fail(*arguments: object, **named: object) -> None:
        if fails == "reading":
            raise InputError("the input: no space is left on the disk")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) if fails == "tokenizer" else full

    other = build_decoder(CONFIG).state_dict()
    sizes = [(name, tensor.shape) for name, tensor in other.items()]
    if fails == "weights":
        monkeypatch.setattr("models.weights.hugging_face_folder.save_file", fail)
    if fails == "configuration":
        monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(InputError, match="no space is left on the disk"):
        write_hugging_face_folder(
            *(tmp_path, CONFIG, to_hugging_face(CONFIG, 16, "float32", {}), sizes),
            fail if fails == "reading" else other.__getitem__,  # type: ignore[arg-type]
            *(torch.float32, 10**6 if shard_bytes == 4000 else 4000),
            write_more=fail if fails == "tokenizer" else lambda folder: None,
            stale=("tokenizer.model",),
        )
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_one_file_beside_an_index_of_others_is_refused(tmp_path: Path, decoder: Decoder) -> None:
    write(tmp_path, decoder, 4000)
    save_file(load_file(next(tmp_path.glob("*.safetensors"))), tmp_path / SINGLE)
    with pytest.raises(InputError, match=f"holds {SINGLE} and {INDEX}, which names model-00001-of-"):
        HuggingFaceFolder(tmp_path)


def test_an_index_that_names_tensors_of_another_file_is_refused(tmp_path: Path, decoder: Decoder) -> None:
    write(tmp_path, decoder, 4000)
    index = json.loads((tmp_path / INDEX).read_text())
    index["weight_map"]["model.norm.weight"] = other = index["weight_map"]["model.embed_tokens.weight"]
    (tmp_path / INDEX).write_text(json.dumps(index))
    with pytest.raises(InputError, match=f"{other} lacks model.norm.weight"):
        HuggingFaceFolder(tmp_path)


def test_a_head_tied_by_the_configuration_alone_is_refused(tmp_path: Path, decoder: Decoder) -> None:
    write(tmp_path, decoder)
    change(tmp_path, tie_word_embeddings=True)
    with pytest.raises(InputError, match="tie_word_embeddings=True, but lm_head.weight differs"):
        HuggingFaceFolder(tmp_path)("tok_embeddings.weight")
    replace(tmp_path, lm_head__weight=load_file(tmp_path / SINGLE)["model.embed_tokens.weight"])
    folder = HuggingFaceFolder(tmp_path)
    assert folder.config.tied_embeddings
    assert torch.equal(folder("tok_embeddings.weight"), decoder.tok_embeddings.weight)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_no_numbers_are_refused_where_they_are(tmp_path: Path, decoder: Decoder, bad: float) -> None:
    write(tmp_path, decoder)
    weight = decoder.layers["1"].attention.wk.weight.detach().clone()  # type: ignore[union-attr]
    weight[3, 5] = bad
    replace(tmp_path, model__layers__1__self_attn__k_proj__weight=weight)
    folder = HuggingFaceFolder(tmp_path)
    assert folder("layers.0.attention.wk.weight") is not None
    with pytest.raises(InputError, match=r"1 values of model.layers.1.self_attn.k_proj.weight are NaN or infinite"):
        folder("layers.1.attention.wk.weight")


def test_large_values_are_numbers_where_their_sum_is_none(tmp_path: Path, decoder: Decoder) -> None:
    write(tmp_path, decoder)
    replace(tmp_path, model__norm__weight=torch.full((16,), 3e38))
    assert HuggingFaceFolder(tmp_path)("norm.weight") is not None


def test_weights_without_a_place_in_the_configuration_are_refused(tmp_path: Path, decoder: Decoder) -> None:
    write(tmp_path, decoder)
    change(tmp_path, num_hidden_layers=1)
    with pytest.raises(InputError, match=r"model.layers.1.* other tensors that a 1-layer model .* has no place for"):
        HuggingFaceFolder(tmp_path)
    change(tmp_path, num_hidden_layers=2)
    replace(tmp_path, model__layers__0__self_attn__rotary_emb__inv_freq=torch.ones(4))  # of early Llamas, computed here
    HuggingFaceFolder(tmp_path)
    replace(tmp_path, model__layers__0__self_attn__q_proj__bias=torch.ones(16))
    with pytest.raises(InputError, match=r"holds model.layers.0.self_attn.q_proj.bias and 0 other"):
        HuggingFaceFolder(tmp_path)


def test_codes_of_quantized_weights_are_refused(tmp_path: Path, decoder: Decoder) -> None:
    write(tmp_path, decoder)
    replace(tmp_path, model__norm__weight=torch.ones(16, dtype=torch.int8))
    with pytest.raises(InputError, match=r"model.norm.weight is stored as torch.int8"):
        HuggingFaceFolder(tmp_path)("norm.weight")


def test_further_ends_of_a_response_are_listed(tmp_path: Path, decoder: Decoder) -> None:
    weights = decoder.state_dict()
    sizes = [(name, tensor.shape) for name, tensor in weights.items()]
    config = to_hugging_face(CONFIG, 16, "float32", {"eos_token_id": 2})
    for stops, expected in (([], 2), ([5, 7], [2, 5, 7])):
        read = weights.__getitem__
        write_hugging_face_folder(tmp_path, CONFIG, config, sizes, read, torch.float32, stops=stops)
        assert json.loads((tmp_path / "generation_config.json").read_text())["eos_token_id"] == expected
        assert json.loads((tmp_path / "config.json").read_text())["eos_token_id"] == 2
