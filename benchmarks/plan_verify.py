"""Peak memory and step time as `plan --verify` finds them predicted and measured, by layout, on a CPU.

    python -m benchmarks.plan_verify

A decoder of 31 million parameters, ten steps of 2 x 128 tokens a rank, one thread a process; in its first two steps a
run gives freed memory back at once (callbacks.memory), so that its resident set is what its tensors take. What products
reach is measured by each run; ranks beyond the number of cores share them, which no plan knows. Result:
plan_verify.json.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml

from commands.plan.verify import compare_run
from tests.helpers.distributed import run_ranks
from tests.helpers.planner import CPU, LAYOUTS, PIPELINE, SPREAD, configuration, train

FURTHER: dict[str, tuple[int, str, dict[str, Any], dict[str, Any]]] = {
    "single, full": (1, SPREAD, {"activation_checkpointing": "full"}, {}),
    "single, selective": (1, SPREAD, {"activation_checkpointing": "selective"}, {}),
    "fsdp2, 2 accumulated": (2, SPREAD, {}, {"accumulate_grad_batches": 2}),
    "ddp2": (2, SPREAD, {"data_parallel_replicate_size": 2}, {}),
    "pp2, gpipe": (2, PIPELINE, {"pipeline_parallel_size": 2, "microbatches": 2, "schedule": "gpipe"}, {}),
    "pp2 x fsdp2": (4, PIPELINE, {"pipeline_parallel_size": 2, "microbatches": 2}, {}),
}
RESULT = Path(__file__).with_suffix(".json")


def main() -> None:
    """Every layout in turn."""
    rows = []
    for name, (world, strategy, layout, trainer) in (
        {n: (*found, {}) for n, found in LAYOUTS.items()} | FURTHER
    ).items():
        with tempfile.TemporaryDirectory() as folder:
            chosen = configuration(Path(folder), world, strategy, layout)
            chosen["trainer"] |= {"max_steps": 10, **trainer}
            run_ranks(world, train, chosen, None, timeout=900)
            (Path(folder) / "config.yaml").write_text(yaml.safe_dump(chosen))
            for row in compare_run(Path(folder), CPU):
                if row.name.startswith(("peak memory", "step time")):
                    figures = {"predicted": row.predicted, "measured": row.measured, "difference": row.difference}
                    rows.append({"layout": name, "quantity": f"{row.name} ({row.unit})"})
                    rows[-1] |= {key: float(f"{value:.3g}") for key, value in figures.items()}
                    print(json.dumps(rows[-1]), flush=True)
    RESULT.write_text(json.dumps({"rows": rows, "torch": torch.__version__}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
