"""A model converted either way computes the same: held against transformers for every family."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file

from common.errors import InputError
from main import main
from models.config import DecoderConfig, Experts, RotaryScaling
from models.decoder import Decoder
from models.initialization import build_decoder, materialize
from models.kv_cache import KVCache
from models.language_model import LanguageModel
from models.lora import LoRA
from models.optimizers.adamw import AdamW
from models.optimizers.schedules import Cosine
from models.weights.hugging_face_names import from_hugging_face, hugging_face_names, to_hugging_face
from models.weights.source import WeightSource

SHAPE: dict[str, Any] = {
    "vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "initializer_range": 0.2,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16, "rope_theta": 500.0,
}  # fmt: skip
YARN = {
    "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "rope_theta": 500.0,
}  # fmt: skip
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama 3.1": ("llama", {"rope_parameters": LLAMA3}),
    "llama, stretched": ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10_000.0}}),
    "llama, yarn": ("llama", {"rope_parameters": YARN}),
    "qwen2, yarn of one factor": ("qwen2", {"rope_parameters": YARN | {"attention_factor": 0.7, "truncate": False}}),
    "qwen3, yarn of mscale": (
        "qwen3",
        {
            "head_dim": 16,
            "rope_parameters": YARN | {"mscale": 1.5, "mscale_all_dim": 0.5, "beta_fast": 8.0, "beta_slow": 2.0},
        },
    ),
    "smollm, tied": ("llama", {"tie_word_embeddings": True}),
    "qwen2": ("qwen2", {}),
    "qwen2, tied": ("qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("qwen3", {"head_dim": 16}),
    "smollm3": ("smollm3", {"no_rope_layers": [0, 1]}),
    "smollm3, by interval": ("smollm3", {"no_rope_layer_interval": 2, "tie_word_embeddings": False}),
    "granite": (
        "granite",
        {"embedding_multiplier": 12.0, "attention_multiplier": 0.2, "residual_multiplier": 0.22, "logits_scaling": 8.0},
    ),
    "granite of absent keys": ("granite", {}),
    "mistral": ("mistral", {"sliding_window": 7}),
    "mistral, no window": ("mistral", {"sliding_window": None}),
    "mixtral": ("mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen3_moe": (
        "qwen3_moe",
        {
            "num_experts": 6,
            "num_experts_per_tok": 3,
            "moe_intermediate_size": 24,
            "norm_topk_prob": False,
            "head_dim": 8,
        },
    ),
}


def theirs(family: str, changes: dict[str, Any]) -> Any:
    """A model of transformers with random weights, biases and gains included."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(family, **SHAPE | changes), attn_implementation="eager"
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.normal_(std=0.5)
    return model.float().eval()


def ours(folder: Path) -> Decoder:
    stored = WeightSource(folder)
    with torch.device("meta"):
        decoder = Decoder(stored.whole_config())
    materialize(decoder, torch.device("cpu"), 0, stored=stored)
    return decoder.eval()


@pytest.mark.end_to_end
@pytest.mark.peer
@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_logits_agree_and_a_round_trip_is_bit_identical(
    name: str, tmp_path: Path, hugging_face_tokenizer: Path
) -> None:
    family, changes = FAMILIES[name]
    model = theirs(family, changes)
    first, file, second = tmp_path / "first", tmp_path / "model.safetensors", tmp_path / "second"
    model.save_pretrained(first)
    for path in hugging_face_tokenizer.iterdir():
        (first / path.name).write_bytes(path.read_bytes())
    tokens = torch.randint(300, (2, 40), generator=torch.Generator().manual_seed(1))
    expected = model(tokens).logits
    decoder = ours(first)
    torch.testing.assert_close(decoder.output(decoder(tokens)), expected, rtol=0, atol=1e-5)
    packed = decoder.output(decoder(tokens.view(1, -1), torch.arange(2).repeat_interleave(40)[None]))
    torch.testing.assert_close(packed.view_as(expected), expected, rtol=0, atol=1e-5)

    main(["convert", "--input", str(first), "--output", str(file)])
    main(["convert", "--input", str(file), "--output", str(second)])
    again = transformers.AutoModelForCausalLM.from_pretrained(second).eval()
    if changes.get("sliding_window", 0) is not None:  # Mistral without its window is Llama
        assert type(again) is type(model)
    torch.testing.assert_close(again(tokens).logits, expected, rtol=0, atol=1e-5)
    before, after = (load_file(folder / "model.safetensors") for folder in (first, second))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert (second / "tokenizer.json").read_text() == (first / "tokenizer.json").read_text()


@pytest.mark.peer
@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_agree(name: str, tmp_path: Path) -> None:
    family, changes = FAMILIES[name]
    model = theirs(family, changes)
    model.save_pretrained(tmp_path)
    tokens = torch.randint(300, (2, 40), generator=torch.Generator().manual_seed(1))
    decoder, weights = ours(tmp_path), dict(model.named_parameters())
    for logits in (model(tokens).logits, decoder.output(decoder(tokens))):
        F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).backward()
    compared = 0
    for ours_name, parameter in decoder.named_parameters():
        (their_name, *others) = hugging_face_names(ours_name, decoder.config)
        if others or their_name not in weights:
            continue  # transformers 5 keeps experts stacked and gate beside up
        expected, found = weights[their_name].grad, parameter.grad
        assert expected is not None
        assert found is not None
        assert (found - expected).norm() <= 1e-5 * expected.norm(), ours_name
        compared += 1
    assert compared > 8


@pytest.mark.peer
@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_cached_decoding_equals_the_whole_row(name: str, tmp_path: Path) -> None:
    family, changes = FAMILIES[name]
    theirs(family, changes).save_pretrained(tmp_path)
    decoder = ours(tmp_path)
    tokens = torch.randint(300, (2, 40), generator=torch.Generator().manual_seed(1))
    expected = decoder(tokens)
    cache = KVCache(decoder.config, 2, 40, decoder.tok_embeddings.weight)
    cache.prefill([0, 1], [11, 11])
    prompts = decoder(tokens[:, :11].reshape(1, -1), torch.arange(2).repeat_interleave(11)[None], cache)
    torch.testing.assert_close(prompts.view(2, 11, -1), expected[:, :11], rtol=1e-5, atol=1e-5)
    for place in range(11, 40):
        cache.extend(2)
        found = decoder(tokens[:, place : place + 1], cache=cache)
        torch.testing.assert_close(found[:, 0], expected[:, place], rtol=1e-5, atol=1e-5)


@pytest.mark.end_to_end
@pytest.mark.peer
def test_several_files_and_another_dtype(tmp_path: Path, hugging_face_tokenizer: Path) -> None:
    folder, out = tmp_path / "given", tmp_path / "out"
    theirs("llama", {}).save_pretrained(folder, max_shard_size="30KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    for path in hugging_face_tokenizer.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    main(["convert", "--input", str(folder), "--output", str(out), "--dtype=bfloat16", "--shard_gigabytes=3e-5"])
    files = sorted(out.glob("*.safetensors"))
    assert len(files) > 2
    assert sum(file.stat().st_size for file in files) < 100_000
    again = transformers.AutoModelForCausalLM.from_pretrained(out)
    assert again.dtype == torch.bfloat16
    for name, tensor in transformers.AutoModelForCausalLM.from_pretrained(folder).state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor.bfloat16())
    files[1].unlink()
    with pytest.raises(InputError, match=f"lacks {files[1].name}"):
        WeightSource(out)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gpt2"}, "model_type=gpt2: this decoder supports llama"),
        ({"hidden_act": "gelu"}, "hidden_act=gelu, this decoder supports silu"),
        ({"attention_bias": True}, "attention_bias=True"),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "rope_type=dynamic, .* longest row of a batch"),
        ({"rope_scaling": {"type": "su", "short_factor": [1.0]}}, "rope_type=su, .* longest row of a batch"),
        ({"rope_scaling": {"rope_type": "longrope", "factor": 2.0}}, "rope_type=longrope, .* longest row"),
        (
            {"rope_scaling": {"rope_type": "yarn", "factor": 2.0}, "max_position_embeddings": None},
            "yarn needs original_max_position_embeddings",
        ),
        ({"rope_scaling": YARN | {"beta_fast": 0.5}}, "beta_slow=1.0 must lie between 0 and beta_fast=0.5"),
        ({"model_type": "qwen3", "use_sliding_window": True}, "use_sliding_window=True"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantization_config="),
        ({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
    ],
)
def test_what_this_decoder_has_not_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_hugging_face({"model_type": "llama"} | SHAPE | changes)


@pytest.mark.end_to_end
def test_broken_folders_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for content in ("{", "[]", json.dumps({"model_type": "llama"}), json.dumps({"model_type": "llama"} | SHAPE)):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(SystemExit) as raised:
            main(["convert", "--input", str(tmp_path), "--output", str(tmp_path / "x.safetensors")])
        assert raised.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: {tmp_path}")


@pytest.mark.end_to_end
@pytest.mark.peer
def test_what_lay_in_the_folder_before_is_gone(tmp_path: Path, hugging_face_tokenizer: Path) -> None:
    out, models = tmp_path / "out", {"bfloat16": theirs("llama", {}).bfloat16(), "float32": theirs("qwen2", {})}
    for name, model in models.items():
        model.save_pretrained(tmp_path / name)
        for path in hugging_face_tokenizer.iterdir():
            (tmp_path / name / path.name).write_bytes(path.read_bytes())
    (tmp_path / "float32" / "chat_template.jinja").write_text("{{ messages[0].content }}")
    for name, size in (
        ("bfloat16", "5"),
        ("float32", "3e-5"),
        ("bfloat16", "2e-5"),
        ("float32", "5"),
        ("bfloat16", "5"),
    ):
        main(["convert", "--input", str(tmp_path / name), "--output", str(out), f"--shard_gigabytes={size}"])
        again = transformers.AutoModelForCausalLM.from_pretrained(out).state_dict()
        assert all(torch.equal(again[key], value) for key, value in models[name].state_dict().items())
        written = sum(len(load_file(file)) for file in out.glob("*.safetensors"))
        assert written == len(models[name].state_dict())
        assert (out / "chat_template.jinja").is_file() is (name == "float32")


@pytest.mark.end_to_end
@pytest.mark.peer
def test_the_longest_text_is_that_of_the_input(tmp_path: Path, hugging_face_tokenizer: Path) -> None:
    theirs("llama", {}).save_pretrained(tmp_path / "in")
    for path in hugging_face_tokenizer.iterdir():
        (tmp_path / "in" / path.name).write_bytes(path.read_bytes())
    for number, (given, expected) in enumerate((([], 128), (["--positions=64"], 64))):
        out = tmp_path / str(number)
        main(["convert", "--input", str(tmp_path / "in"), "--output", str(out), *given])
        assert json.loads((out / "config.json").read_text())["max_position_embeddings"] == expected


@pytest.mark.end_to_end
def test_an_input_that_is_not_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["convert", "--input", str(tmp_path / "nowhere"), "--output", str(tmp_path)])
    assert raised.value.code == 2
    assert "does not exist" in capsys.readouterr().err


@pytest.mark.peer
def test_weights_that_are_absent_are_not_drawn(tmp_path: Path) -> None:
    # As transformers saves the trunk alone: without `model.` before the names.
    theirs("llama", {}).model.save_pretrained(tmp_path)
    for lora in (None, LoRA()):
        stored = WeightSource(tmp_path)
        model = LanguageModel(AdamW(), Cosine(), stored.whole_config(), init_from=str(tmp_path), lora=lora)
        model.stored = stored
        with pytest.raises(InputError, match=r"lacks tok_embeddings.weight: it is not a whole model"):
            model.configure_model()


@pytest.mark.end_to_end
@pytest.mark.peer
def test_tensors_of_another_shape_than_described_are_not_converted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "given"
    theirs("llama", {}).save_pretrained(folder)
    described = json.loads((folder / "config.json").read_text())
    described["intermediate_size"] *= 2
    (folder / "config.json").write_text(json.dumps(described))
    with pytest.raises(SystemExit) as raised:
        main(["convert", "--input", str(folder), "--output", str(tmp_path / "out.safetensors")])
    assert raised.value.code == 2
    assert "feed_forward.w1.weight with shape" in capsys.readouterr().err
    assert not (tmp_path / "out.safetensors").exists()


def test_shapes_that_are_no_familys_are_refused() -> None:
    for changes, message in (
        ({"query_key_norm": True, "query_key_value_bias": True}, "qwen2 and qwen3"),
        ({"rope_pattern": [True, False], "query_key_norm": True}, "qwen3 and smollm3"),
        ({"rope_pattern": [True, False], "residual_scale": 0.5}, "granite and smollm3"),
        ({"residual_scale": 0.5, "experts": Experts()}, "granite and mixtral"),
        ({"scalar_output": True, "tied_embeddings": False}, "scalar output"),
    ):
        with pytest.raises(InputError, match=message):
            to_hugging_face(DecoderConfig(vocabulary_size=9, **changes), 16, "float32", {})


@pytest.mark.parametrize(
    "scaling",
    [
        RotaryScaling("llama3", 4.0, 2.0, 8.0, 64),
        RotaryScaling("linear", 3.0),
        RotaryScaling("yarn", 3.0, original_positions=64, beta_fast=16.0, attention_factor=0.5, truncate=False),
        RotaryScaling("yarn", 3.0, original_positions=64),
        None,
    ],
)
def test_every_shape_comes_back_from_its_configuration(scaling: RotaryScaling | None) -> None:
    experts = [Experts(4, 2, z_weight=0.0), Experts(4, 2, False, z_weight=0.0)]  # no family has a router's z-loss
    sparse = [{"experts": experts[0]}, {"experts": experts[1], "query_key_norm": True}]
    layered = [{"rope_pattern": [True, False, True, True, False, True]}]
    layered.append({"attention_scale": 0.3, "residual_scale": 0.5, "embedding_scale": 2.0, "logit_divisor": 4.0})
    for changes in (
        {},
        {"query_key_norm": True},
        {"query_key_value_bias": True},
        {"sliding_window": 5},
        *sparse,
        *layered,
    ):
        config = DecoderConfig(
            vocabulary_size=9, head_width=6, rope_theta=5.5, rope_scaling=scaling, norm_epsilon=1e-6, **changes
        )
        assert from_hugging_face(to_hugging_face(config, 16, "float32", {})) == config


def test_biases_begin_at_zero_and_gains_at_one() -> None:
    decoder = build_decoder(DecoderConfig(vocabulary_size=9, query_key_value_bias=True, layers=1))
    vectors = {name: parameter for name, parameter in decoder.named_parameters() if parameter.ndim == 1}
    assert {name.rpartition(".")[2] for name in vectors} == {"bias", "weight"}
    assert all((vectors[name] == (not name.endswith("bias"))).all() for name in vectors)
