"""Preference and instruction rows that it can learn something from."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helpers.corpus import Configure


@pytest.fixture(scope="session")
def pairs_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Responses that repeat the prompt's word are chosen, shouted ones rejected; lengths differ."""
    generator = random.Random(0)
    rows = []
    for number in range(120):
        word = "".join(generator.choices("badefino", k=generator.randint(2, 9)))
        chosen = " ".join([word] * generator.randint(1, 4))
        rejected = f"{word.upper()}! " * generator.randint(1, 4)
        rows.append({"prompt": f"{number} {word}?", "chosen": chosen, "rejected": rejected, "margin": number / 60})
        rows[-1]["response"] = chosen
    path = tmp_path_factory.mktemp("rows") / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture
def align(base_run: Path, pairs_file: Path, tmp_path: Path) -> Configure:
    """Writes a configuration that begins from the base run, with changes given as dotted names."""

    def write(model: dict[str, Any], data: dict[str, Any] | None = None, **trainer: Any) -> Path:
        instructions = "model_class" not in model
        configuration: dict[str, Any] = {
            "seed_everything": 0,
            "trainer": {
                "default_root_dir": str(tmp_path / "run"), "accelerator": "cpu", "devices": 1, "precision": "32-true",
                "max_steps": 6, "gradient_clip_val": 1.0, "log_every_n_steps": 1, "val_check_interval": 3,
                "check_val_every_n_epoch": None, "num_sanity_val_steps": 0, "enable_model_summary": False,
                "enable_progress_bar": False, "logger": [{"class_path": "callbacks.MetricsTable"}],
                "callbacks": [{"class_path": "callbacks.Checkpoints", "init_args": {"every_steps": 2}}],
            } | trainer,
            "model": {
                "class_path": model.pop("model_class", "models.SFT"),
                "init_args": {
                    "init_from": str(base_run),
                    "optimizer": {"class_path": "models.AdamW", "init_args": {"learning_rate": 3e-3}},
                    "schedule": {"class_path": "models.Cosine", "init_args": {"warmup_steps": 2}},
                } | model,
            },
            "data": {
                "class_path": "datamodules.SFTData" if instructions else "datamodules.PreferenceData",
                "init_args": {
                    "folder": str(tmp_path / "data"), "chat_template": "chatml", "batch_size": 4,
                    "validation_fraction": 0.2,
                    "rows": {"class_path": "datamodules.FileRows", "init_args": {"paths": [str(pairs_file)]}},
                    **({"sequence_length": 64} if instructions else {"max_tokens": 64}),
                } | (data or {}),
            },
        }  # fmt: skip
        path = tmp_path / f"align-{len(list(tmp_path.glob('align-*')))}.yaml"
        path.write_text(yaml.safe_dump(configuration))
        return path

    return write
