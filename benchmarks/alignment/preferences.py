"""Preference learning of a small model: accuracy of its reward model, and the gain of DPO by KL.

    python -m benchmarks.alignment.preferences [--hh FILE]

After `make quickstart`. Fine-tunes its model on docstrings, trains a reward model, then DPO from the fine-tuned model
with three betas, all by `python main.py fit` with the shipped configurations and the overrides below, on every Python
distribution of this machine. `--hh` adds a reward model of human preferences: a file of Anthropic's HH-RLHF. Finished
runs are not run again; curves go to `preferences.json`, pictures to `preferences.png`.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib
import yaml
from tqdm import tqdm

matplotlib.use("Agg")
from matplotlib import pyplot

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from common.run_folder import read_metrics  # noqa: E402

FOLDER = Path("runs/preferences")
BETAS = (0.05, 0.1, 0.5)
MUON = {"class_path": "models.Muon", "init_args": {"learning_rate": 1e-3, "weight_decay": 0.1}}


def docstrings(negatives: int) -> dict[str, Any]:
    """All functions of this machine's distributions."""
    arguments = {"distributions": None, "max_megabytes": 200, "negatives": negatives}
    return {"class_path": "datamodules.DocstringRows", "init_args": arguments}


def runs(hh: Path | None) -> dict[str, tuple[str, dict[str, Any]]]:
    """Name -> shipped configuration and overrides, in the order of running."""
    pairs = {
        "data.init_args.rows": docstrings(negatives=4),
        "data.init_args.max_tokens": 256,
        "data.init_args.validation_pairs": 512,
        "model.init_args.optimizer": MUON,
    }
    found: dict[str, tuple[str, dict[str, Any]]] = {
        "sft": (
            "sft_quickstart",
            {
                "data.init_args.rows": docstrings(negatives=1),
                "model.init_args.optimizer": {"class_path": "models.Muon", "init_args": {"learning_rate": 2e-3}},
                "trainer.max_steps": 400,
                "trainer.val_check_interval": 200,
            },
        ),
        "reward": ("reward_quickstart", pairs | {"trainer.max_steps": 3000, "trainer.val_check_interval": 250}),
    }
    for beta in BETAS:
        found[f"dpo beta {beta}"] = (
            "dpo_quickstart",
            pairs
            | {
                "model.init_args.init_from": str(FOLDER / "sft"),
                "model.init_args.reference": "online",
                "model.init_args.loss": {"class_path": "alignment.DPO", "init_args": {"beta": beta}},
                "trainer.max_steps": 1500,
                "trainer.val_check_interval": 125,
            },
        )
    if hh is not None:
        rows = {"class_path": "datamodules.FileRows", "init_args": {"paths": [str(hh.resolve())]}}
        for seed in range(3):
            found[f"hh seed {seed}"] = (
                "reward_hh",
                {
                    "data.init_args.rows": rows,
                    "data.init_args.validation_fraction": 0.1,
                    "data.init_args.seed": seed,
                    "model.init_args.initial_seed": seed,
                    "trainer.max_steps": 112,  # one epoch
                    "trainer.val_check_interval": 14,
                },
            )
    return found


def fit(name: str, config: str, overrides: dict[str, Any]) -> None:
    """Train, or continue, or find it done."""
    command = [sys.executable, "main.py", "fit", "--config", f"configs/align/{config}.yaml"]
    command += [f"--trainer.default_root_dir={FOLDER / name}", "--trainer.enable_progress_bar=false"]
    command += [
        f"--{key}={json.dumps(value) if isinstance(value, dict) else value}" for key, value in overrides.items()
    ]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def curves(name: str) -> dict[str, list[tuple[int, float]]]:
    """Every validation metric of a run by step."""
    found: dict[str, list[tuple[int, float]]] = {}
    for step, _, metric, value in read_metrics(ROOT / FOLDER / name):
        if metric.startswith("validation/"):
            found.setdefault(metric.removeprefix("validation/"), []).append((int(step), round(float(value), 4)))
    return found


def draw(record: dict[str, Any], path: Path) -> None:
    """Reward margin and accuracy of DPO against KL; accuracy of the reward models by step."""
    figure, axes = pyplot.subplots(1, 3, figsize=(13, 4))
    for name, run in record.items():
        if name.startswith("dpo"):
            kl = [value for _, value in run["kl_per_token"]]
            for axis, metric in zip(axes, ("rewards/margin", "rewards/accuracy"), strict=False):
                axis.plot(kl, [value for _, value in run[metric]], marker="o", markersize=3, label=name[4:])
                axis.set(xlabel="KL(policy || reference), nats per token", ylabel=f"validation {metric}")
                axis.legend()
        elif name != "sft":
            axes[2].plot(*zip(*run["accuracy"], strict=True), marker="o", markersize=3, label=name)
    axes[2].set(xlabel="step", ylabel="validation accuracy")
    axes[2].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Run what is not there, then record and draw all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hh", type=Path, help="chosen and rejected transcripts, .jsonl.gz")
    arguments = parser.parse_args()
    record: dict[str, Any] = {}
    wanted = runs(arguments.hh)
    for name, (config, overrides) in tqdm(wanted.items(), unit=" runs"):
        fit(name, config, overrides)
        record[name] = curves(name)
    here = Path(__file__)
    here.with_suffix(".json").write_text(json.dumps(record, indent=None) + "\n")
    draw(record, here.with_suffix(".png"))
    for name, run in record.items():
        print(name, yaml.safe_dump({metric: values[-1][1] for metric, values in run.items()}))


if __name__ == "__main__":
    main()
