"""Supervised fine-tuning: the base model's module with fewer labels, packed rows, adapters, and any number of ranks."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors import safe_open

from common.run_folder import read_metrics
from datamodules.conversations.chat_template import ChatTemplate
from datamodules.tokenization.files import find_tokenizer, load_tokenizer
from main import main
from models.decoder import DecoderConfig
from models.initialization import build_decoder
from models.lora import LoRA, LoRALinear, lora_disabled
from models.weights.single_file import read_checkpoint
from tests.helpers.corpus import Configure
from tests.helpers.distributed import run_ranks


def losses(run: Path, name: str = "train/loss") -> list[float]:
    return [float(value) for _, _, found, value in read_metrics(run) if found == name]


@pytest.mark.end_to_end
def test_only_answers_are_learned_and_batches_weigh_by_their_labels(align: Configure, tmp_path: Path) -> None:
    """One batch of four rows and four batches of one row, which hold unequally many labels, are the same step."""
    configs = [
        align({}, {"batch_size": 4}),
        align({}, {"batch_size": 1}, accumulate_grad_batches=4, val_check_interval=12),
    ]
    runs = [tmp_path / "whole", tmp_path / "pieces"]
    for config, run in zip(configs, runs, strict=True):
        main(["fit", "--config", str(config), f"--trainer.default_root_dir={run}"])
    assert losses(runs[1]) == pytest.approx(losses(runs[0]), abs=1e-5)
    norms = [losses(run, "train/gradient_norm") for run in runs]
    assert norms[1] == pytest.approx(norms[0], abs=1e-4)
    assert losses(runs[0])[-1] < losses(runs[0])[0]


@pytest.mark.end_to_end
def test_a_fine_tuned_run_begins_the_next_stage(
    align: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(align({}))
    main(["fit", "--config", config])
    main(["generate", "--input", str(tmp_path / "run"), "--prompt", "Ba", "--max_new_tokens", "4"])
    main(["convert", "--input", str(tmp_path / "run"), "--output", str(tmp_path / "tuned.safetensors")])
    expected = read_checkpoint(tmp_path / "run/checkpoints/step=6.ckpt")["state_dict"]
    for start in (tmp_path / "run", tmp_path / "run/checkpoints/step=6.ckpt", tmp_path / "tuned.safetensors"):
        name = start.name
        # A step too small to see: what is saved is what it began with.
        still = {"optimizer": {"class_path": "models.AdamW", "init_args": {"learning_rate": 1e-12}}}
        further = align({"init_from": str(start)} | still, default_root_dir=str(tmp_path / f"from {name}"), max_steps=2)
        main(["validate", "--config", str(further), "--ckpt_path", str(tmp_path / "run/checkpoints/step=6.ckpt")])
        main(["fit", "--config", str(further)])
        began = read_checkpoint(tmp_path / f"from {name}/checkpoints/step=2.ckpt")["state_dict"]
        assert began.keys() == expected.keys()
        for parameter, value in expected.items():
            torch.testing.assert_close(began[parameter], value, rtol=0, atol=1e-6)


@pytest.mark.end_to_end
def test_an_adapter_trains_alone_and_merges(align: Configure, tmp_path: Path, base_run: Path) -> None:
    config = str(align({"lora": {"rank": 4}}))
    main(["fit", "--config", config])
    base = read_checkpoint(max(base_run.glob("checkpoints/*.ckpt"), key=lambda p: int(p.stem[5:])))["state_dict"]
    tuned = read_checkpoint(tmp_path / "run/checkpoints/step=6.ckpt")["state_dict"]
    assert all(torch.equal(tuned[name], base[name]) for name in base)
    added = {name for name in tuned if name not in base}
    assert added
    assert all(name.endswith(("lora_a", "lora_b")) for name in added)
    assert any(tuned[name].any() for name in added if name.endswith("lora_b"))
    main(["convert", "--input", str(tmp_path / "run"), "--output", str(tmp_path / "merged.safetensors")])
    with safe_open(tmp_path / "merged.safetensors", "pt") as file:
        assert set(file.keys()) == set(base)
        name = "decoder.layers.0.attention.wq"
        product = tuned[f"{name}.lora_b"] @ tuned[f"{name}.lora_a"] * (16 / 4)
        torch.testing.assert_close(file.get_tensor(f"{name}.weight"), base[f"{name}.weight"] + product)


def test_an_adapter_begins_as_nothing_and_can_be_switched_off() -> None:
    shape = {
        "vocabulary_size": 32,
        "width": 16,
        "layers": 2,
        "heads": 2,
        "key_value_heads": 1,
        "feed_forward_width": 24,
    }
    base = build_decoder(DecoderConfig(**shape))
    adapted = build_decoder(DecoderConfig(**shape, lora=LoRA(rank=2)))
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(32, (2, 9), generator=generator)
    assert torch.equal(base(tokens), adapted(tokens))
    layers = [module for module in adapted.modules() if isinstance(module, LoRALinear)]
    assert len(layers) == 2 * 7
    with torch.no_grad():
        for layer in layers:
            # Merging rounds; larger factors amplify that.
            layer.lora_b.normal_(std=0.1, generator=generator)
    assert not torch.allclose(base(tokens), adapted(tokens))
    with lora_disabled(adapted):
        assert torch.equal(base(tokens), adapted(tokens))
    before = adapted(tokens)
    with torch.no_grad():
        for layer in layers:
            layer.weight.copy_(layer.merged())
            layer.lora_b.zero_()
    torch.testing.assert_close(adapted(tokens), before)


def fit(*arguments: str) -> None:
    main(["fit", *arguments])


TP = {"class_path": "strategies.TensorParallelStrategy", "init_args": {"tensor_parallel_size": 2}}
PP = {
    "class_path": "strategies.PipelineParallelStrategy",
    "init_args": {"pipeline_parallel_size": 2, "microbatches": 2},
}
LAYOUTS: dict[str, tuple[dict[str, Any], int]] = {
    "fsdp2": ({}, 2),
    "tp2": ({"strategy": TP}, 4),
    "1f1b": ({"strategy": PP}, 4),
}
MODULES: dict[str, dict[str, Any]] = {
    "sft": {},
    "lora": {"lora": {"rank": 4}},
    "dpo": {"model_class": "alignment.PreferencePolicy", "loss": {"class_path": "alignment.DPO"}},
    "online": {
        "model_class": "alignment.PreferencePolicy", "loss": {"class_path": "alignment.DPO"}, "reference": "online"
    },
    "kto": {"model_class": "alignment.PreferencePolicy", "loss": {"class_path": "alignment.KTO"}},
    "reward": {"model_class": "alignment.RewardModel", "center_rewards": 0.01},
}  # fmt: skip


COMPARED = ("train/loss", "train/gradient_norm", "validation/accuracy", "validation/rewards/margin")


@pytest.fixture(scope="module")
def alone() -> dict[str, dict[str, list[float]]]:
    """What one process logged, by module, each run once."""
    return {}


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("module", "layout"),
    [
        ("sft", "fsdp2"), ("sft", "tp2"), ("sft", "1f1b"), ("lora", "tp2"),
        ("dpo", "fsdp2"), ("dpo", "tp2"), ("online", "fsdp2"), ("kto", "fsdp2"), ("reward", "fsdp2"), ("reward", "tp2"),
    ],
)  # fmt: skip
def test_layouts_give_the_numbers_of_one_process(
    align: Configure, tmp_path: Path, module: str, layout: str, alone: dict[str, dict[str, list[float]]]
) -> None:
    changes, batch_size = LAYOUTS[layout]
    if module not in alone:
        config = align(dict(MODULES[module]), {"batch_size": 4}, default_root_dir=str(tmp_path / "alone"))
        main(["fit", "--config", str(config)])
        alone[module] = {name: losses(tmp_path / "alone", name) for name in COMPARED}
    spread = align(
        dict(MODULES[module]),
        {"batch_size": batch_size},
        default_root_dir=str(tmp_path / "spread"),
        devices=2,
        **changes,
    )
    run_ranks(2, fit, "--config", str(spread))
    for name, expected in alone[module].items():
        assert losses(tmp_path / "spread", name) == pytest.approx(expected, abs=2e-5, rel=1e-5), name
    assert len(alone[module]["train/loss"]) == 6


@pytest.mark.end_to_end
@pytest.mark.peer
def test_fine_tuning_begins_from_a_hugging_face_folder_and_goes_back(
    align: Configure, tmp_path: Path, hugging_face_tokenizer: Path
) -> None:
    """With more rows in the embedding than the tokenizer has tokens, as Qwen's; adapters are merged on the way out."""
    torch.manual_seed(0)
    shape = {"vocab_size": 320, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True}
    model = transformers.AutoModelForCausalLM.from_config(transformers.Qwen2Config(**shape, **heads))
    start, out = tmp_path / "qwen", tmp_path / "tuned"
    model.save_pretrained(start)
    for path in hugging_face_tokenizer.iterdir():
        (start / path.name).write_bytes(path.read_bytes())
    config = str(align({"init_from": str(start), "lora": {"rank": 4}}, {"sequence_length": 128}))
    main(["fit", "--config", config])
    assert losses(tmp_path / "run")[-1] < losses(tmp_path / "run")[0]
    main(["convert", "--input", str(tmp_path / "run"), "--output", str(out)])
    tuned = transformers.AutoModelForCausalLM.from_pretrained(out)
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(out)
    assert type(tuned) is type(model)
    changed = [name for name, tensor in tuned.state_dict().items() if not torch.equal(tensor, model.state_dict()[name])]
    assert changed
    assert all("proj.weight" in name for name in changed)
    messages = [{"role": "user", "content": "3 bade?"}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    # What was trained on: the same template, the same ids.
    template = ChatTemplate("chatml", load_tokenizer(find_tokenizer(start)))
    assert ids == template.encode_prompt(messages)
