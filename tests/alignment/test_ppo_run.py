"""The chain by the command line: a reward model becomes reward and critic of a policy, itself a start for others."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from alignment import PolicyOptimization
from common.run_folder import read_metrics
from main import main
from models.weights.source import WeightSource
from tests.helpers.command_line import learned, refused
from tests.helpers.corpus import Configure

TIMES = ("train/seconds", "train/responses_per_second")


@pytest.fixture(scope="session")
def reward_run(base_run: Path, pairs_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a reward model's run."""
    folder = tmp_path_factory.mktemp("reward")
    configuration: dict[str, Any] = {
        "trainer": {
            "default_root_dir": str(folder / "run"), "accelerator": "cpu", "devices": 1, "precision": "32-true",
            "max_steps": 4, "limit_val_batches": 0, "enable_progress_bar": False, "logger": False,
            "callbacks": [{"class_path": "callbacks.Checkpoints"}],
        },
        "model": {
            "class_path": "alignment.RewardModel",
            "init_args": {
                "init_from": str(base_run),
                "optimizer": {"class_path": "models.AdamW"},
                "schedule": {"class_path": "models.Cosine", "init_args": {"warmup_steps": 0}},
            },
        },
        "data": {
            "class_path": "datamodules.PreferenceData",
            "init_args": {
                "folder": str(folder / "data"), "chat_template": "chatml", "max_tokens": 64,
                "rows": {"class_path": "datamodules.FileRows", "init_args": {"paths": [str(pairs_file)]}},
            },
        },
    }  # fmt: skip
    (folder / "reward.yaml").write_text(yaml.safe_dump(configuration))
    main(["fit", "--config", str(folder / "reward.yaml")])
    return folder / "run"


def configure(align: Configure, tmp_path: Path, **model: Any) -> Path:
    """A configuration of PPO."""
    settings = {
        "model_class": "alignment.PPO",
        "reward": {"class_path": "alignment.ExactMatch", "init_args": {"answer_key": "chosen"}},
        "advantage": {"class_path": "alignment.GAE"},
        "kl": {"controller": {"class_path": "alignment.AdaptiveKL"}},
        "optimization": {"epochs": 2, "minibatches": 2},
        "max_new_tokens": 8,
        "stop": ["<|im_end|>"],
    }
    path = align(settings | model, max_steps=4, val_check_interval=2, gradient_clip_val=None)
    configuration = yaml.safe_load(path.read_text())
    configuration["trainer"]["callbacks"] += [
        {"class_path": "callbacks.RolloutSamples", "init_args": {"every_steps": 3, "responses": 2}},
        {"class_path": "callbacks.Throughput", "init_args": {"peak_flops_per_second": 1e11}},
        {"class_path": "callbacks.Report"},
    ]
    configuration["data"]["class_path"] = "datamodules.PromptData"
    configuration["data"]["init_args"].pop("max_tokens")
    configuration["data"]["init_args"].pop("sequence_length", None)
    configuration["data"]["init_args"]["validation_prompts"] = 5
    path.write_text(yaml.safe_dump(configuration))
    return path


@pytest.mark.end_to_end
def test_a_reward_model_teaches_a_policy(align: Configure, tmp_path: Path, reward_run: Path) -> None:
    """As reward and as critic; what is watched is the right answer. The run is a language model again."""
    model = {
        "reward": {"class_path": "alignment.RewardModelScore", "init_args": {"init_from": str(reward_run)}},
        "monitored_reward": {"class_path": "alignment.ExactMatch", "init_args": {"answer_key": "chosen"}},
        "critic_init_from": str(reward_run),
    }
    config = str(configure(align, tmp_path, **model))
    main(["fit", "--config", config])
    found: dict[str, list[float]] = {}
    for _, _, name, value in read_metrics(tmp_path / "run"):
        found.setdefault(name, []).append(float(value))
    assert len(found["train/reward"]) == 4
    assert len(found["validation/kl"]) == 2
    for name in (
        "train/monitored_reward",
        "train/critic/explained_variance",
        "train/seconds/generation",
        "train/kl_coefficient",
    ):
        assert all(map(math.isfinite, found[name])), name
    assert len(set(found["train/kl_coefficient"])) > 1
    samples = [json.loads(line) for line in (tmp_path / "run/samples.jsonl").read_text().splitlines()]
    assert [sample["step"] for sample in samples] == [1, 1, 3, 3]
    assert {"prompt", "continuation", "reward", "monitored_reward", "kl", "finish"} <= samples[0].keys()
    assert (tmp_path / "run/report.html").exists()
    main(["generate", "--input", str(tmp_path / "run"), "--prompt", "Ba", "--max_new_tokens", "4"])
    main(["convert", "--input", str(tmp_path / "run"), "--output", str(tmp_path / "policy.safetensors")])
    assert not WeightSource(tmp_path / "policy.safetensors").config["scalar_output"]
    main(["predict", "--config", config])


class KilledError(Exception):
    """Stands for a kill."""


@pytest.mark.end_to_end
def test_a_killed_run_continues_by_the_same_command(
    align: Configure,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    base_run: Path,
) -> None:
    """Same losses, same KL divergences, same responses; with another critic it is another run."""
    config = str(configure(align, tmp_path))
    main(["fit", "--config", config, f"--trainer.default_root_dir={tmp_path / 'whole'}"])
    step = PolicyOptimization.training_step

    def die(self: Any, batch: Any, index: int) -> Any:
        if self.trainer.global_step == 3:
            raise KilledError
        return step(self, batch, index)

    with monkeypatch.context() as patched:
        patched.setattr(PolicyOptimization, "training_step", die)
        with pytest.raises(KilledError):
            main(["fit", "--config", config])
    main(["fit", "--config", config])
    runs = [tmp_path / "run", tmp_path / "whole"]
    curves = [[row for row in learned(run) if not row[1].startswith(TIMES)] for run in runs]
    assert curves[0] == curves[1]
    assert len({value for _, name, value in curves[0] if name == "train/loss"}) == 4
    responses = [(run / "samples.jsonl").read_text() for run in runs]
    assert responses[0] == responses[1]
    other = configure(
        align, tmp_path, model_class="alignment.PolicyOptimization",
        advantage={"class_path": "alignment.BatchNormalizedAdvantage"},
    )  # fmt: skip
    assert "another critic, or none" in refused(["fit", "--config", other], capsys)
    unanswered = {"class_path": "alignment.ExactMatch", "init_args": {"answer_key": "solution"}}
    assert "solution" in refused(["fit", "--config", configure(align, tmp_path, monitored_reward=unanswered)], capsys)
    wrong = configure(align, tmp_path, critic_init_from=str(base_run))
    assert "begins as a reward model" in refused(["fit", "--config", wrong], capsys)
