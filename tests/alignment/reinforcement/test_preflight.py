"""Settings, data and layouts that policy optimization refuses before it starts."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from alignment import Alarms, GroupRelativeAdvantage, LeaveOneOutAdvantage, PPOUpdates
from common.errors import InputError
from models.inference.sampling import Sampling
from tests.helpers.policy_training import TinyPrompts, ppo, train


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"advantage": GroupRelativeAdvantage(), "group_size": 1},
            "group_size=1: GroupRelativeAdvantage compares responses to one prompt",
        ),
        ({"drop_zero_variance_groups": True, "group_size": 1}, "group_size=1: drop_zero_variance_groups compares"),
        ({"group_size": 0}, "group_size=0: must lie between 1"),
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"sampling": Sampling(temperature=0.0)}, "temperature=0.0"),
        ({"sampling": Sampling(repetition_penalty=1.2)}, "repetition_penalty=1.2"),
        ({"reference": None}, "kl without a reference"),
        ({"reference": "adapter_off"}, "there is no adapter"),
        ({"reference": None, "kl": None, "reference_precision": "bfloat16"}, "reference_precision=bfloat16"),
        ({"reference": None, "kl": None, "reference_on_cpu": True}, "reference_on_cpu=true: only"),
        ({"advantage": LeaveOneOutAdvantage(), "critic_init_from": "there"}, "needs no critic"),
        ({"missing_eos_penalty": -1.0}, "missing_eos_penalty=-1.0"),
        ({"value_clip": 0.0}, "value_clip=0.0"),
        ({"z_loss": 0.1}, "z_loss=0.1"),
    ],
    ids=str,
)
def test_what_cannot_be_together_gets_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ppo(**changes)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("gradient_clip_val", 1.0, "max_gradient_norm"),
        ("accumulate_grad_batches", 2, "microbatch_tokens"),
        ("max_steps", -1, "max_steps=-1"),
    ],
)
def test_what_lightning_has_no_say_in_is_refused(name: str, value: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        train(str(tmp_path), options={name: value})


def test_layouts_and_settings_that_cannot_work_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no control token of the tokenizer"):
        train(str(tmp_path), settings={"stop": ["<|nowhere|>"]})
    for arguments, message in (({"epochs": 0}, "epochs=0"), ({"target_kl": 0.0}, "target_kl=0.0")):
        with pytest.raises(InputError, match=message):
            PPOUpdates(**arguments)
    with pytest.raises(InputError, match="alarms.repetition=0"):
        Alarms(repetition=0)
    module = ppo()
    trainer = SimpleNamespace(
        precision="32-true", state=SimpleNamespace(fn="validate"), gradient_clip_val=None, accumulate_grad_batches=1,
        strategy=SimpleNamespace(sizes=SimpleNamespace(tp=2, pp=1)), datamodule=TinyPrompts(),
    )  # fmt: skip
    with pytest.raises(InputError, match="decoded by a whole model on every rank"):
        module.preflight(trainer)
    trainer.strategy = SimpleNamespace()
    trainer.datamodule = SimpleNamespace(source_names=["pairs"])
    with pytest.raises(InputError, match="responds to prompts: take datamodules.PromptData"):
        module.preflight(trainer)
