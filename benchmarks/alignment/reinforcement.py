"""PPO and GRPO on a task with exact rewards: what they learn in minutes on two cores, over three seeds.

    python main.py fit --config configs/align/sft_brackets.yaml && python -m benchmarks.alignment.reinforcement

Each run is the configuration as it is shipped, with other seeds of the prompts' order and of sampling. Success before
is that of the first batch, drawn from the fine-tuned model; success after is on validation prompts, drawn at
temperature 1 as in training. The picture: success over time, and over the KL it cost.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from tqdm import tqdm

RUNS = ("ppo_brackets", "grpo_brackets")
OUTPUT = Path(__file__).with_suffix(".json")


def read(folder: Path) -> dict[str, list[tuple[int, float, float]]]:
    """(step, seconds since the first row, value) of every metric."""
    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    begin = float(rows[0]["time"])
    found: dict[str, list[tuple[int, float, float]]] = {}
    for row in rows:
        found.setdefault(row["name"], []).append((int(row["step"]), float(row["time"]) - begin, float(row["value"])))
    return found


def summarize(run: str, seed: int, folder: Path) -> dict[str, Any]:
    """What a finished run reached, and its curves."""
    metrics = read(folder)
    rewards, validation = metrics["train/reward"], metrics["validation/reward"]
    first_batch = metrics["train/seconds/generation"][0][2]
    before, after = rewards[0][2], validation[-1][2]
    needed = next((seconds for _, seconds, value in validation if value >= before + 0.4), None)
    return {
        "run": run,
        "seed": seed,
        "before": round(before, 4),
        "after": round(after, 4),
        "points": round(100 * (after - before), 1),
        "minutes": round((rewards[-1][1] + first_batch) / 60, 2),
        "minutes_to_40_points": None if needed is None else round(needed / 60, 2),
        "kl": round(metrics["validation/kl"][-1][2], 3),
        "seconds_per_batch": {
            part: round(sum(value for _, _, value in rows) / len(rows), 3)
            for part in ("generation", "scoring", "learning")
            if (rows := metrics[f"train/seconds/{part}"])
        },
        "validation": [[round(seconds, 1), round(value, 4)] for _, seconds, value in validation],
        "train": [[round(seconds, 1), round(value, 4)] for _, seconds, value in rewards],
        "train_kl": [round(value, 4) for _, _, value in metrics["train/kl"]],
    }


def draw(records: list[dict[str, Any]], path: Path) -> None:
    """Success over time and over KL."""
    figure, (over_time, over_kl) = plt.subplots(1, 2, figsize=(10, 3.6), sharey=True)
    for record in records:
        color = f"C{RUNS.index(record['run'])}"
        seconds, values = zip(*record["train"], strict=True)
        over_time.plot([s / 60 for s in seconds], values, color=color, alpha=0.25)
        over_time.plot(
            [s / 60 for s, _ in record["validation"]], [v for _, v in record["validation"]], "o-", color=color, ms=3,
            label=record["run"].split("_")[0].upper() if record["seed"] == 0 else None,
        )  # fmt: skip
        over_kl.plot(record["train_kl"], values, ".", color=color, alpha=0.4, ms=4)
    over_time.set(xlabel="minutes", ylabel="exact answers", ylim=(0, 1), title="validation (dots), training batches")
    over_kl.set(xlabel="KL from the fine-tuned model, nats per response", title="what it cost")
    over_time.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Run every seed, then record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--runs", choices=RUNS, nargs="*", default=list(RUNS))
    parser.add_argument("--folder", type=Path, default=Path("runs/reinforcement"))
    arguments = parser.parse_args()
    for run in tqdm([(name, seed) for name in arguments.runs for seed in arguments.seeds]):
        name, seed = run
        command = [sys.executable, "main.py", "fit", "--config", f"configs/align/{name}.yaml"]
        command += ["--trainer.default_root_dir", str(arguments.folder / f"{name}-{seed}")]
        command += ["--model.init_args.sampling.seed", str(seed), "--data.init_args.seed", str(seed)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(os.environ))
    records = [summarize(*run, arguments.folder / f"{run[0]}-{run[1]}") for run in
               [(name, seed) for name in arguments.runs for seed in arguments.seeds]]  # fmt: skip
    OUTPUT.write_text(json.dumps(records, indent=1) + "\n")
    draw(records, OUTPUT.with_suffix(".png"))
    for record in records:
        print({key: record[key] for key in ("run", "seed", "before", "after", "points", "minutes", "kl")})


if __name__ == "__main__":
    main()
