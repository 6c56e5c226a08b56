"""Comparison of two small models by a reward model and a reward of letters, as a command."""

import json
from pathlib import Path
from typing import Any

import torch

from alignment.rewards.base import Reward
from main import main


class Vowels(Reward):
    """A monitored reward that can be counted by hand."""

    def __call__(self, responses: Any) -> torch.Tensor:
        return torch.tensor([float(sum(letter in "aeiou" for letter in one.text)) for one in responses])


def compared(models: dict[str, str], prompts: Path, output: Path, *further: str) -> dict[str, Any]:
    main(
        [
            "compare",
            f"--models.base={models['base']}",
            f"--models.moved={models['moved']}",
            f"--reward_model={models['reward']}",
            "--monitored_reward.class_path=tests.commands.compare.comparison.Vowels",
            f"--prompts=[{prompts}]",
            "--validation_fraction=1",
            "--chat_template=plain",
            "--max_new_tokens=8",
            f"--output={output}",
            *further,
        ]
    )
    found: dict[str, Any] = json.loads((output / "comparison.json").read_text())
    return found
