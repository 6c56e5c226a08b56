"""Fine-tuning under its own name: published defaults, and checkpoints that do not depend on the class."""

from typing import Any

import pytest
import torch
from jsonargparse import ArgumentParser

from models import SFT, AdamW, Cosine, DecoderConfig, LanguageModel

CONFIG = DecoderConfig(vocabulary_size=13, width=8, layers=1, heads=2, key_value_heads=1, feed_forward_width=16)


def test_defaults_are_those_of_llama_2() -> None:
    parser = ArgumentParser()
    parser.add_subclass_arguments(LanguageModel, "model")
    model = ["--model=models.SFT", "--model.decoder.vocabulary_size=13", "--model.decoder.width=8"]
    shape = ["layers=1", "heads=2", "key_value_heads=1", "feed_forward_width=16"]
    given = parser.parse_args([*model, *(f"--model.decoder.{one}" for one in shape)])
    built: Any = parser.instantiate_classes(given).model
    for sft in (built, SFT(decoder=CONFIG)):
        sft.configure_model()
        (optimizer,) = sft.build_optimizers()
        assert {group["lr"] for group in optimizer.param_groups} == {2e-5}
        assert optimizer.param_groups[0]["weight_decay"] == 0.1
        assert sft.schedule.factor(0, 100) == pytest.approx(1, abs=1e-3)
        assert sft.schedule.factor(99, 100) == pytest.approx(0.1)


def test_an_optimizer_named_instead_keeps_its_own_defaults() -> None:
    parser = ArgumentParser()
    parser.add_subclass_arguments(LanguageModel, "model")
    shape = {"vocabulary_size": 13, "width": 8, "layers": 1, "heads": 2, "key_value_heads": 1}
    init_args = {"decoder": shape, "optimizer": {"class_path": "models.AdamW"}}
    given = parser.parse_object({"model": {"class_path": "models.SFT", "init_args": init_args}})
    assert given.model.init_args.optimizer.init_args.learning_rate == AdamW().learning_rate


@pytest.mark.parametrize("classes", [(LanguageModel, SFT), (SFT, LanguageModel)])
def test_a_checkpoint_of_either_class_continues_as_the_other(classes: tuple[type, type]) -> None:
    first, second = (kind(AdamW(), Cosine(), decoder=CONFIG, initial_seed=seed) for seed, kind in enumerate(classes))
    first.configure_model()
    checkpoint: dict[str, Any] = {"state_dict": first.state_dict()}
    first.on_save_checkpoint(checkpoint)
    assert not any("SFT" in key or "LanguageModel" in key for key in checkpoint)
    second.load_weights(checkpoint)
    for name, parameter in first.decoder.named_parameters():
        assert torch.equal(second.decoder.get_parameter(name), parameter), name
