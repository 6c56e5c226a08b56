"""Actor, critic and reference: initial weights, precision, and where a reference lives."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from alignment import GroupRelativeAdvantage, PPOUpdates
from alignment.reinforcement.kl import (
    FixedKL,
    KLPenalty,
)
from common.errors import InputError
from models.lora import LoRA
from models.packed_batch import response_states
from tests.helpers.policy_training import CONFIG, assert_same_steps, ppo, train
from tests.helpers.rollouts import CPU, CRITIC, made_up


@pytest.mark.end_to_end
def test_a_fresh_policy_is_where_its_reference_is(tmp_path: Path) -> None:
    """Temperature on both sides of every ratio: the first step's KL divergences and drift are nothing but rounding."""
    for settings in (
        {"optimization": PPOUpdates(1, 1)},
        {"reference": "adapter_off", "decoder": CONFIG, "lora": LoRA(rank=2), "optimization": PPOUpdates(1, 1)},
        {
            "advantage": GroupRelativeAdvantage(),
            "kl": KLPenalty(FixedKL(), "k3", "loss"),
            "optimization": PPOUpdates(1, 1),
        },
    ):
        record = train(str(tmp_path), settings=settings, options={"max_steps": 2})
        first, second = record.steps
        for name in ("train/kl", "train/kl_per_token/k3", "train/update_kl", "train/drift/kl", "train/clip_fraction"):
            assert first[name] == pytest.approx(0, abs=1e-5), name
        assert first["train/drift/ratio"] == pytest.approx(1, abs=1e-5)
        assert second["train/kl_per_token/k3"] > 1e-6
        assert second["train/drift/kl"] == pytest.approx(0, abs=1e-5)


@pytest.mark.end_to_end
def test_a_reference_in_fewer_bits_is_nearly_the_same(tmp_path: Path) -> None:
    record = train(str(tmp_path), settings={"reference_precision": "bfloat16"}, options={"max_steps": 1})
    assert 0 < abs(record.steps[0]["train/kl_per_token/k1"]) < 0.02


@pytest.mark.end_to_end
def test_a_reference_on_the_cpu_says_the_same_and_is_left_where_it_is(tmp_path: Path) -> None:
    """It is neither moved, sharded nor saved; another one is refused where a run goes on."""
    options = {"max_steps": 2, "val_check_interval": 2}
    beside = train(str(tmp_path), options=options)
    module, saved = ppo(reference_on_cpu=True), str(tmp_path / "half.ckpt")
    record = train(str(tmp_path), options=options, module=module, save=saved)
    assert_same_steps(record.steps, beside.steps, 0)
    assert record.validations == beside.validations
    assert record.steps[-1]["train/kl_per_token/k3"] > 0
    assert cast(Any, module.models.reference).tok_embeddings.weight.device.type == "cpu"
    assert not any(name.startswith("reference") for name in module.state_dict())
    module.to("meta")
    assert not any(parameter.is_meta for parameter in cast(Any, module.models.reference).parameters())
    longer = {"max_steps": 3, "val_check_interval": 3}
    again = train(str(tmp_path), options=longer, settings={"reference_on_cpu": True}, resume=saved)
    assert len(again.steps) == 1
    for changes, message in (
        ({"reference_on_cpu": True, "initial_seed": 9}, "another reference than the checkpoint"),
        ({}, "written with reference_on_cpu=true"),
    ):
        with pytest.raises(InputError, match=message):
            train(str(tmp_path), options=longer, settings=changes, resume=saved)


def test_the_critic_begins_as_the_reward_model() -> None:
    weights = dict(CRITIC.named_parameters())
    stored: Any = SimpleNamespace(whole_config=lambda: CRITIC.config, merged=weights.__getitem__)
    module, fresh = ppo(critic_init_from="reward-run"), ppo()
    module.models.begin_critic_from(stored)
    packed = made_up(2).pack(list(range(6)), CPU)
    for model in (module, fresh):
        model.configure_model()
    with torch.no_grad():
        hidden = response_states(CRITIC, packed)
        torch.testing.assert_close(module.models.values(packed), CRITIC.output(hidden)[:, 0])
    assert fresh.critic is not None
    assert fresh.models.values(packed).abs().max() == 0
    torch.testing.assert_close(fresh.critic.tok_embeddings.weight, cast(Any, fresh.decoder).tok_embeddings.weight)
    stored.whole_config = lambda: CONFIG
    with pytest.raises(InputError, match="this has 16 and an output per token"):
        module.models.begin_critic_from(stored)
